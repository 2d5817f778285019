// Writes without end: to standard output ("1"), to standard error ("2", a bounded number of times), or by output_write
// ("3").
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((import_module("spore"), import_name("output_write"))) uint32_t output_write(const void*, uint32_t);

int main(int argc, char** argv) {
  static char line[4096];
  memset(line, 'f', sizeof(line));
  const int where = atoi(argv[1]);
  if (where == 2) {
    for (int i = 0; i < 10000; ++i) {
      if (write(2, line, sizeof(line)) != sizeof(line)) return 1;
    }
    return 0;
  }
  while (1) {
    if (where == 3) {
      output_write(line, sizeof(line));
    } else if (write(1, line, sizeof(line)) < 0) {
      return 1;
    }
  }
}
