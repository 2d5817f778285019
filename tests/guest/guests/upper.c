// Standard input in upper case to standard output; the number of bytes to standard error.
#include <ctype.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
  static char buffer[65536];
  size_t total = 0, got;
  while ((got = fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
    total += got;
    for (size_t i = 0; i < got; ++i) buffer[i] = (char)toupper((unsigned char)buffer[i]);
    if (fwrite(buffer, 1, got, stdout) != got) return 1;
  }
  if (ferror(stdin) || fflush(stdout) != 0) return 2;
  fprintf(stderr, "%zu bytes\n", total);
  return isatty(0) + isatty(1);
}
