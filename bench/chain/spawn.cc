// What a call costs as a process: fork and exec of a program that does nothing, until it has ended.
//
// usage: bench-chain-spawn ROUNDS PROGRAM     prints the median and the 99th percentile in us
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<double> samples(std::max(1, std::atoi(argv[1])));
  for (double& sample : samples) {
    const auto start = std::chrono::steady_clock::now();
    char* arguments[] = {argv[2], nullptr};
    char* environment[] = {nullptr};
    pid_t child = 0;
    int status = 0;
    if (::posix_spawn(&child, argv[2], nullptr, nullptr, arguments, environment) != 0) return 1;
    if (::waitpid(child, &status, 0) != child || status != 0) return 1;
    sample = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  }
  std::ranges::sort(samples);
  std::printf("%.2f %.2f\n", samples[samples.size() / 2], samples[samples.size() * 99 / 100]);
}
