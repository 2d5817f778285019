// What everybody starts: it tells the time, first of all, and then reads what there is to read. As a process or in a
// container it is idle as long as its standard input stays open.
#include <stdint.h>
#include <time.h>
#include <unistd.h>

int main(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t nanoseconds = now.tv_sec * 1000000000ll + now.tv_nsec;
  if (write(STDOUT_FILENO, &nanoseconds, sizeof(nanoseconds)) != sizeof(nanoseconds)) return 1;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) > 0) {
  }
  return 0;
}
