// spore.h: every call of it, in the three steps of bindings_test.cc.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../sdk/c/spore.h"

#define CHECK(condition)                                      \
  do {                                                        \
    if (!(condition)) {                                       \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      exit(100);                                              \
    }                                                         \
  } while (0)
#define KEY(text) (text), sizeof(text) - 1

static const char kValue[] = "c/value";

static void first(void) {
  char text[100], names[513];
  int error;
  struct spore_state_version version;
  CHECK(!spore_state_map(kValue, 0, 0, &error) && error == ENOENT);
  char* mapped = spore_state_map(kValue, 10000, 0, &error);
  CHECK(mapped && error == 0 && spore_state_size(KEY(kValue)) == 10000);
  CHECK(!spore_state_map(kValue, 10001, 0, &error) && error == EINVAL);
  memcpy(mapped, "through memory", 14);
  CHECK(spore_state_write(KEY(kValue), 9000, "by the host", 11) == 11);
  CHECK(spore_state_read(KEY(kValue), 0, text, 14) == 14 && !memcmp(text, "through memory", 14));
  CHECK(!memcmp(mapped + 9000, "by the host", 11));
  CHECK(spore_state_read(KEY(kValue), 9995, text, 14) == 5 && spore_state_read(KEY(kValue), 10000, text, 14) == 0);
  CHECK(spore_state_write(KEY(kValue), 9999, "ab", 2) == -EFBIG);
  const char* read_only = spore_state_map(kValue, 0, SPORE_STATE_READ_ONLY, 0);
  CHECK(read_only && read_only != mapped && !memcmp(read_only, mapped, 10000));
  CHECK(spore_state_version(KEY(kValue), &version) == 0 && version.number == 0);
  CHECK(spore_state_push(KEY(kValue), 0, 1) == 0);
  CHECK(spore_state_version(KEY(kValue), &version) == 0 && version.number == 1 && version.epoch != 0);
  memcpy(mapped + 5000, "ab", 2);
  CHECK(spore_state_push_if(KEY(kValue), &version) == 0);
  mapped[1] = 'H';
  CHECK(spore_state_push_if(KEY(kValue), &version) == -EAGAIN);
  CHECK(spore_state_version(KEY(kValue), &version) == 0 && version.number == 2);

  CHECK(spore_state_append(KEY("c/log"), KEY("one, ")) == 0 && spore_state_append(KEY("c/log"), KEY("two, ")) == 5);
  int64_t* element = spore_state_map("c/sum", 8, 0, 0);
  CHECK(spore_state_merge(KEY("c/sum"), SPORE_SUM, SPORE_I64) == 0);
  *element = 5;
  CHECK(spore_state_map("c/sized", 10, 0, 0) && spore_state_resize(KEY("c/sized"), 20) == 0);
  CHECK(spore_state_size(KEY("c/sized")) == 20);
  CHECK(spore_state_unmap(KEY("c/sized")) == 0 && spore_state_unmap(KEY("c/sized")) == -ENOENT);
  CHECK(spore_state_map("c/gone", 10, 0, 0) && spore_state_push(KEY("c/gone"), 0, 0) == 0);
  CHECK(spore_state_delete(KEY("c/gone")) == 0 && spore_state_pull(KEY("c/gone"), 0, 0) == -ENOENT);
  static const char kNames[] = "c/log\0c/sized\0c/sum\0c/value";
  CHECK(spore_state_list(KEY("c/"), KEY(""), names, sizeof(names)) == sizeof(kNames));
  CHECK(!memcmp(names, kNames, sizeof(kNames)));
  CHECK(spore_state_list(KEY("c/"), KEY("c/sum"), names, sizeof(names)) == 8);
  CHECK(spore_state_list(KEY("c/"), KEY("c/value"), names, sizeof(names)) == 0);
  for (uint32_t scope = 0; scope <= SPORE_LOCK_GLOBAL; scope += SPORE_LOCK_GLOBAL) {
    CHECK(spore_state_lock(KEY(kValue), SPORE_LOCK_WRITE | scope, 1000) == 0);
    CHECK(spore_state_lock(KEY(kValue), scope, 1000) == -EDEADLK);
    CHECK(spore_state_unlock(KEY(kValue), SPORE_LOCK_WRITE | scope) == 0);
    CHECK(spore_state_unlock(KEY(kValue), SPORE_LOCK_WRITE | scope) == -ENOENT);
  }
  CHECK(spore_state_size(KEY("")) == -EINVAL);
}

static void second(void) {
  char text[100];
  CHECK(spore_state_pull(KEY(kValue), 0, 14) == 0);
  CHECK(spore_state_read(KEY(kValue), 0, text, 14) == 14 && !memcmp(text, "through memory", 14));
  char* mapped = spore_state_map(kValue, 0, 0, 0);
  CHECK(mapped && !memcmp(mapped + 5000, "ab", 2));
  CHECK(spore_state_read(KEY(kValue), 9000, text, 14) == 14 && !memcmp(text, "by the host\0\0\0", 14));
  memcpy(mapped + 4500, "from the other host", 19);
  CHECK(spore_state_push(KEY(kValue), 0, 0) == 0);
  int64_t* element = spore_state_map("c/sum", 8, 0, 0);
  CHECK(spore_state_merge(KEY("c/sum"), SPORE_SUM, SPORE_I64) == 0);
  *element = 7;
  CHECK(spore_state_push(KEY("c/sum"), 0, 0) == 0);
  CHECK(spore_state_append(KEY("c/log"), KEY("three")) == 10);
  CHECK(spore_state_size(KEY("c/sized")) == -ENOENT);
}

static void third(void) {
  char text[100];
  CHECK(spore_state_read(KEY(kValue), 4500, text, 3) == 3 && !memcmp(text, "\0\0\0", 3));
  CHECK(spore_state_pull(KEY(kValue), 0, 0) == 0);
  CHECK(spore_state_read(KEY(kValue), 4500, text, 19) == 19 && !memcmp(text, "from the other host", 19));
  CHECK(spore_state_read(KEY(kValue), 0, text, 7) == 7 && !memcmp(text, "tHrough", 7));
  CHECK(spore_state_push(KEY("c/sum"), 0, 0) == 0 && spore_state_pull(KEY("c/sum"), 0, 0) == 0);
  CHECK(*(const int64_t*)spore_state_map("c/sum", 0, SPORE_STATE_READ_ONLY, 0) == 12);
  CHECK(spore_state_pull(KEY("c/log"), 0, 0) == 0);
  CHECK(spore_state_read(KEY("c/log"), 0, text, 100) == 15 && !memcmp(text, "one, two, three", 15));
}

int main(int argc, char** argv) {
  char input[100];
  const uint32_t size = spore_input_size();
  CHECK(spore_input_read(0, input, sizeof(input)) == size && spore_input_read(2, input, 100) == size - 2);
  CHECK(spore_input_read(0, input, sizeof(input)) == size);
  if (argc < 2) return 98;
  if (!strcmp(argv[1], "first")) first();
  if (!strcmp(argv[1], "second")) second();
  if (!strcmp(argv[1], "third")) third();
  return spore_output_write(input, size) == size ? 0 : 99;
}
