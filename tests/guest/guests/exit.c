// Ends with the code that its first argument says, from within a nested call, without flushing what comes after.
#include <stdio.h>
#include <stdlib.h>
#include <wasi/api.h>

__attribute__((noinline)) static void leave(int code) {
  fflush(stdout);
  __wasi_proc_exit((__wasi_exitcode_t)code);
}

int main(int argc, char** argv) {
  printf("before");
  leave(atoi(argv[1]));
  printf("after");
  return 0;
}
