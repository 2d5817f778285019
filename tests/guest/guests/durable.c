// For durable calls: every run leaves a line "CALL ATTEMPT" in the file $RUNS, which counts each of them, and in the
// state value "runs", which counts them once for a call. Then: echo; sleep MS and echo; fail BEFORE: exits with 3 where
// the attempt's number is less; trap.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../../sdk/c/spore.h"

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "echo";
  const int number = argc > 2 ? atoi(argv[2]) : 0;
  const char* call = getenv("SPORE_CALL_ID");
  const char* attempt = getenv("SPORE_ATTEMPT");
  char line[128];
  const int bytes = snprintf(line, sizeof(line), "%s %s\n", call ? call : "-", attempt ? attempt : "-");
  const int file = open(getenv("RUNS"), O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (file < 0 || write(file, line, (size_t)bytes) != bytes || close(file) != 0) return 89;
  if (spore_state_append("runs", 4, line, (uint32_t)bytes) < 0) return 90;
  fprintf(stderr, "%s: attempt %s\n", what, attempt ? attempt : "-");
  if (!strcmp(what, "sleep")) usleep((useconds_t)number * 1000);
  if (!strcmp(what, "fail") && (!attempt || atoi(attempt) < number)) return 3;
  if (!strcmp(what, "trap")) __builtin_trap();
  char buffer[4096];
  ssize_t got;
  while ((got = read(0, buffer, sizeof(buffer))) > 0)
    if (write(1, buffer, (size_t)got) != got) return 91;
  return got < 0 ? 92 : 0;
}
