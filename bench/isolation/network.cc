// What a network costs a cold start, how fast namespaces are made, and how exactly rates hold. Between namespaces of
// its own; needs root.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "isolation/network_test_world.h"

namespace spore::isolation {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

struct Samples {
  std::vector<double> values;
  double at(double quantile) {
    std::ranges::sort(values);
    return values[static_cast<size_t>(quantile * static_cast<double>(values.size() - 1))];
  }
};

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

void wait_until_full(const NetworkPool& pool, size_t ready) {
  while (pool.stats().ready < ready) std::this_thread::sleep_for(1ms);
}

NetworkPolicy policy() {
  NetworkPolicy out;
  out.allow.push_back({.addresses = range("10.9.0.10")});
  out.allow.push_back({.addresses = range("10.9.0.10"), .protocol = Protocol::kUdp});
  out.egress_bits_per_second = out.ingress_bits_per_second = 10'000'000;
  return out;
}

struct Starts {
  Samples take, first_socket, next_socket;
};

// Each lease from a pool that is full and rests, or one after another while it is being filled.
Starts bench_starts(NetworkPool& pool, size_t ready, size_t rounds, bool resting) {
  auto prepared = must(pool.prepare(policy()));
  Starts out;
  std::vector<NetworkLease> leases;
  for (size_t round = 0; round < rounds; ++round) {
    if (resting || round % ready == 0) wait_until_full(pool, ready);
    auto begin = Clock::now();
    NetworkLease lease = must(pool.take(prepared));
    out.take.values.push_back(us_since(begin));
    begin = Clock::now();
    const auto first = must(lease.socket(AF_INET, SOCK_STREAM));
    out.first_socket.values.push_back(us_since(begin));
    begin = Clock::now();
    const auto next = must(lease.socket(AF_INET, SOCK_STREAM));
    out.next_socket.values.push_back(us_since(begin));
    leases.push_back(std::move(lease));
    if (leases.size() == 100) leases.clear();
  }
  return out;
}

void print(const char* what, Samples& samples) {
  std::printf("  %-34s %8.1f %8.1f\n", what, samples.at(0.5), samples.at(0.99));
}

}  // namespace
}  // namespace spore::isolation

int main(int argc, char** argv) {
  using namespace spore::isolation;
  CLI::App app("Costs of a Faaslet's network");
  size_t rounds = 400;
  int seconds = 5;
  app.add_option("--rounds", rounds, "Leases of each kind")->check(CLI::Range(10, 100'000));
  app.add_option("--seconds", seconds, "How long each rate is measured")->check(CLI::Range(1, 60));
  CLI11_PARSE(app, argc, argv);
  if (const auto problem = network_tests_problem(); !problem.empty()) {
    std::printf("bench isolation network: skipped, %s\n", problem.c_str());
    return 0;
  }
  NetworkTestWorld world;
  constexpr size_t kReady = 32;
  auto broker = must(spore::isolation::Broker::start(network_operations(NetworkTestWorld::limits())));
  auto pool = must(NetworkPool::open(*broker, {.limits = NetworkTestWorld::limits(), .ready = kReady}));
  Servers servers;
  servers.serve_in(world.around());
  servers.start();

  Samples prepare;
  for (int i = 0; i < 50; ++i) {
    const auto begin = Clock::now();
    const auto prepared = must(pool->prepare(policy()));
    prepare.values.push_back(us_since(begin));
  }
  Starts resting = bench_starts(*pool, kReady, rounds, true);
  Starts busy = bench_starts(*pool, kReady, rounds, false);
  std::printf("us: %33s %8s\n", "median", "p99");
  print("prepare a policy", prepare);
  print("take, pool full", resting.take);
  print("  first socket", resting.first_socket);
  print("  next socket", resting.next_socket);
  print("take, pool being filled", busy.take);
  print("  first socket", busy.first_socket);
  print("  next socket", busy.next_socket);

  // Filling from nothing, and while as many are being removed.
  double fresh = 0, churn = 0;
  {
    auto prepared = must(pool->prepare(policy()));
    std::vector<NetworkLease> leases;
    const auto begin = Clock::now();
    for (int i = 0; i < 500; ++i) leases.push_back(must(pool->take(prepared)));
    fresh = 500 / (us_since(begin) / 1e6);
  }
  {
    auto prepared = must(pool->prepare(policy()));
    const auto begin = Clock::now();
    int taken = 0;
    while (Clock::now() - begin < 3s)
      if (pool->take(prepared)) ++taken;
    churn = taken / (us_since(begin) / 1e6);
  }
  std::printf("namespaces a second: %.0f made; %.0f made, used and removed\n", fresh, churn);

  auto prepared = must(pool->prepare(policy()));
  NetworkLease lease = must(pool->take(prepared));
  const auto duration = std::chrono::seconds(seconds);
  const double egress = measure_mbit_per_second(lease, servers, ip("10.9.0.10"), true, duration);
  const double ingress = measure_mbit_per_second(lease, servers, ip("10.9.0.10"), false, duration);
  std::printf("TCP payload under a limit of 10 Mbit/s: %.2f Mbit/s out, %.2f Mbit/s in\n", egress, ingress);
  std::printf(
      "bench isolation network: cold_net_us=%.1f cold_net_p99_us=%.1f first_socket_us=%.1f refill_per_s=%.0f "
      "churn_per_s=%.0f egress_pct=%.1f ingress_pct=%.1f\n",
      resting.take.at(0.5), resting.take.at(0.99), resting.first_socket.at(0.5), fresh, churn, egress * 10,
      ingress * 10);
  return 0;
}
