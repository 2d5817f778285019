// Counts its calls, in state: a number that lies in the memory of every Faaslet of this host that maps it. Publishes it
// after each call, so that other hosts and a restart find it.
//
// Two hosts that both publish a plain number would overwrite each other's; as pushes of this one add up, nothing is
// lost.
#include <spore.h>
#include <stdatomic.h>
#include <stdio.h>

static const char kKey[] = "counter";
enum { kKeyBytes = sizeof(kKey) - 1 };

SPORE_FUNCTION {
  int error;
  _Atomic int64_t* counter = spore_state_map(kKey, sizeof(int64_t), 0, &error);
  if (!counter) return error;
  if (spore_state_merge(kKey, kKeyBytes, SPORE_SUM, SPORE_I64) < 0) return 1;
  const int64_t count = atomic_fetch_add(counter, 1) + 1;
  if (spore_state_push(kKey, kKeyBytes, 0, 0) < 0) return 2;
  char text[32];
  const int bytes = snprintf(text, sizeof(text), "%lld\n", (long long)count);
  spore_output_write(text, (uint32_t)bytes);
  return 0;
}
