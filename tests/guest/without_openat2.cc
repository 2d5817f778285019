// without_openat2 PROGRAM [ARGUMENT...]: runs a program to which openat2(2) does not exist, as on a kernel before 5.6.
#include <seccomp.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: without_openat2 PROGRAM [ARGUMENT...]\n", stderr), 2;
  const scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
  if (!filter || ::seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(openat2), 0) != 0 ||
      ::seccomp_load(filter) != 0) {
    return std::fputs("without_openat2: the filter cannot be set\n", stderr), 1;
  }
  ::execv(argv[1], argv + 1);
  std::perror(argv[1]);
  return 1;
}
