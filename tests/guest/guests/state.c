// State from a guest's side: each command does one thing and says what it saw. Commands that fail return the line.
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../../sdk/c/spore.h"

#define CHECK(condition)                                      \
  do {                                                        \
    if (!(condition)) {                                       \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      exit(100);                                              \
    }                                                         \
  } while (0)

static uint32_t length(const char* text) { return (uint32_t)strlen(text); }

static int bad_arguments(void) {
  static char key[600];
  memset(key, 'k', sizeof(key));
  static char page[4096];
  CHECK(spore_state_map_("", 0, 10, 0) == -EINVAL);
  CHECK(spore_state_map_(key, 513, 10, 0) == -EINVAL);
  CHECK(spore_state_map_(key, 512, 10, 0) > 0);
  CHECK(spore_state_map_("a\0b", 3, 10, 0) == -EINVAL);
  CHECK(spore_state_map_("\xff", 1, 10, 0) == -EINVAL);
  CHECK(spore_state_map_("a", 1, 10, 2) == -EINVAL);
  CHECK(spore_state_map_("a", 1, 0, 0) == -ENOENT);
  CHECK(spore_state_map_("a", 1, 4ull << 30, 0) == -EINVAL);
  CHECK(spore_state_map_("a", 1, UINT64_MAX, 0) == -EINVAL);
  CHECK(spore_state_map_("a", 1, 100, 0) > 0);
  CHECK(spore_state_map_("a", 1, 101, 0) == -EINVAL);
  CHECK(spore_state_size("a", 1) == 100);
  CHECK(spore_state_read("a", 1, 99, page, 10) == 1);
  CHECK(spore_state_read("a", 1, 100, page, 10) == 0);
  CHECK(spore_state_read("a", 1, UINT64_MAX, page, 10) == 0);
  CHECK(spore_state_write("a", 1, 99, page, 1) == 1);
  CHECK(spore_state_write("a", 1, 99, page, 2) == -EFBIG);
  CHECK(spore_state_write("a", 1, UINT64_MAX, page, 2) == -EFBIG);
  CHECK(spore_state_write("a", 1, UINT64_MAX, page, 0) == -EFBIG);
  CHECK(spore_state_read("none", 4, 0, page, 10) == -ENOENT);
  CHECK(spore_state_write("none", 4, 0, page, 10) == -ENOENT);
  CHECK(spore_state_push("none", 4, 0, 0) == -ENOENT);
  CHECK(spore_state_pull("none", 4, 0, 0) == -ENOENT);
  CHECK(spore_state_delete("none", 4) == -ENOENT);
  CHECK(spore_state_unmap("none", 4) == -ENOENT);
  CHECK(spore_state_resize("a", 1, 4ull << 30) == -EINVAL);
  CHECK(spore_state_list("", 0, "", 0, page, 512) == -EINVAL);
  return 0;
}

// Loads, stores, libc's copies, the host's reads and writes: all meet in the same bytes.
static int windows(void) {
  const char key[] = "w/{x}%41/..";
  unsigned char* all = spore_state_map(key, 200000, 0, 0);
  CHECK(all);
  const unsigned char* read_only = spore_state_map(key, 0, SPORE_STATE_READ_ONLY, 0);
  CHECK(read_only && read_only != all);
  CHECK(spore_state_map(key, 200000, 0, 0) == all);
  all[199999] = 42;
  CHECK(((volatile const unsigned char*)read_only)[199999] == 42);
  memset(all + 100, 7, 150000);
  CHECK(read_only[100] == 7 && read_only[150099] == 7 && read_only[150100] == 0);
  memmove(all + 101, all + 100, 150000);
  memcpy(all, "written through memory", 22);
  char text[64] = {0};
  CHECK(spore_state_read(key, length(key), 0, text, 22) == 22);
  CHECK(strcmp(text, "written through memory") == 0);
  CHECK(spore_state_write(key, length(key), 8, "by the host  ", 13) == 13);
  CHECK(memcmp(all, "written by the host  y", 22) == 0);
  // From state to output, and from one value into another.
  CHECK(write(1, all, 19) == 19);
  unsigned char* other = spore_state_map("other", 30, 0, 0);
  CHECK(spore_state_read(key, length(key), 0, other, 30) == 30);
  CHECK(memcmp(other, all, 30) == 0);
  CHECK(spore_state_unmap(key, length(key)) == 0);
  return 0;
}

static int touch(const char* how) {
  unsigned char* bytes = spore_state_map("touched", 100, 0, 0);
  const unsigned char* read_only = spore_state_map("touched", 100, SPORE_STATE_READ_ONLY, 0);
  if (!strcmp(how, "read-only")) *(volatile unsigned char*)read_only = 1;
  if (!strcmp(how, "past")) bytes[4096] = 1;
  if (!strcmp(how, "before")) bytes[-1] = 1;
  if (!strcmp(how, "copy-read-only")) memset((void*)read_only, 1, 100000 / (unsigned)strlen("past-the"));
  if (!strcmp(how, "copy-past")) memmove(bytes + 10, bytes, 5000);
  if (!strcmp(how, "host-read-only")) return spore_state_read("touched", 7, 0, (void*)read_only, 10) == 10 ? 1 : 2;
  if (!strcmp(how, "host-past")) return spore_state_write("touched", 7, 0, bytes + 4090, 10) == 10 ? 1 : 2;
  if (!strcmp(how, "unmapped")) {
    spore_state_unmap("touched", 7);
    bytes[0] = 1;
  }
  return 99;
}

static int count(void) {
  int64_t* counter = spore_state_map("counter", 8, 0, 0);
  printf("%lld at %u", (long long)++*counter, (unsigned)(uintptr_t)counter);
  return 0;
}

// Grows memory until it cannot, with windows in the way and without.
static int grow(void) {
  unsigned char* bytes = spore_state_map("between", 10 << 20, 0, 0);
  CHECK(bytes);
  for (int i = 0; i < 10 << 20; i += 4096) bytes[i] = (unsigned char)(i >> 12);
  uint32_t pages = 0;
  while (__builtin_wasm_memory_grow(0, 160) != (size_t)-1) pages += 160;
  CHECK(pages >= 500 << 4);
  for (int i = 0; i < 10 << 20; i += 4096) CHECK(bytes[i] == (unsigned char)(i >> 12));
  const uintptr_t end = (uintptr_t)__builtin_wasm_memory_size(0) << 16;
  CHECK(end <= (uintptr_t)bytes);
  *(volatile char*)(end - 1) = 1;
  return 0;
}

static int spin(void) {
  _Atomic int* flag = spore_state_map("flag", 4, 0, 0);
  while (*flag == 0) {
  }
  return *flag;
}

static int lists(void) {
  char key[32], names[1100];
  for (int i = 0; i < 300; ++i) {
    const int n = snprintf(key, sizeof(key), "l/%03d", i);
    CHECK(spore_state_append(key, (uint32_t)n, key, (uint32_t)n) == 0);
  }
  CHECK(spore_state_map("l/0505", 5, 0, 0));  // only here
  int seen = 0;
  char after[32] = "";
  for (;;) {
    const int64_t bytes = spore_state_list("l/", 2, after, length(after), names, sizeof(names));
    CHECK(bytes >= 0);
    if (bytes == 0) break;
    for (const char* name = names; name < names + bytes; name += strlen(name) + 1) {
      CHECK(strcmp(after, name) < 0);
      strcpy(after, name);
      ++seen;
    }
  }
  CHECK(seen == 301);
  return 0;
}

static int locks(void) {
  CHECK(spore_state_unlock("l", 1, SPORE_LOCK_WRITE) == -ENOENT);
  for (uint32_t scope = 0; scope <= SPORE_LOCK_GLOBAL; scope += SPORE_LOCK_GLOBAL) {
    CHECK(spore_state_lock("l", 1, SPORE_LOCK_WRITE | scope, 1000) == 0);
    CHECK(spore_state_lock("l", 1, SPORE_LOCK_WRITE | scope, 1000) == -EDEADLK);
    CHECK(spore_state_lock("l", 1, scope, 1000) == -EDEADLK);
    CHECK(spore_state_unlock("l", 1, SPORE_LOCK_WRITE | scope) == 0);
    CHECK(spore_state_unlock("l", 1, SPORE_LOCK_WRITE | scope) == -ENOENT);
    CHECK(spore_state_lock("l", 1, scope, 1000) == 0);
    CHECK(spore_state_lock("l", 1, scope, 1000) == 0);
    CHECK(spore_state_unlock("l", 1, scope) == 0);
    CHECK(spore_state_unlock("l", 1, scope) == 0);
  }
  CHECK(spore_state_lock("l", 1, 4, 0) == -EINVAL);
  CHECK(spore_state_lock("", 0, 0, 0) == -EINVAL);
  return 0;
}

#ifdef __wasm_atomics__
// Waits until somebody else has written to a word of state, without running meanwhile.
static int waits(void) {
  int* word = spore_state_map("word", 8, 0, 0);
  CHECK(__builtin_wasm_memory_atomic_wait32(word, 1, -1) == 1);
  CHECK(__builtin_wasm_memory_atomic_wait32(word + 1, 0, 1000000) == 2);
  CHECK(__builtin_wasm_memory_atomic_notify(word + 1, 5) == 0);
  const int result = __builtin_wasm_memory_atomic_wait32(word, 0, -1);
  CHECK(result == 0 || result == 1);
  return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static int notifies(void) {
  int* word = spore_state_map("word", 8, 0, 0);
  __atomic_store_n(word, 33, __ATOMIC_SEQ_CST);
  return (int)__builtin_wasm_memory_atomic_notify(word, 100);
}
#endif

// Adds one to a number, and publishes it: alone on all hosts, or not.
static int bump(const char* key, int alone) {
  const uint32_t bytes = length(key);
  if (alone) {
    const int64_t locked = spore_state_lock(key, bytes, SPORE_LOCK_WRITE | SPORE_LOCK_GLOBAL, 30000);
    if (locked < 0) return (int)-locked;
    const int64_t pulled = spore_state_pull(key, bytes, 0, 0);
    if (pulled < 0 && pulled != -ENOENT) return (int)-pulled;
  }
  int error;
  volatile int64_t* number = spore_state_map(key, 8, 0, &error);
  if (!number) return error;
  const int64_t value = *number + 1;
  *number = value;
  const int64_t pushed = spore_state_push(key, bytes, 0, 0);
  if (pushed < 0) return (int)-pushed;
  const int64_t unlocked = alone ? spore_state_unlock(key, bytes, SPORE_LOCK_WRITE | SPORE_LOCK_GLOBAL) : 0;
  if (unlocked < 0) return (int)-unlocked;
  printf("%lld", (long long)value);
  return 0;
}

// Many values, PREFIX/000000 and on; each has its own key as its bytes. fill() makes `count`, from the number on that
// is the input.
static uint32_t nth_key(char* key, const char* prefix, int n) {
  return (uint32_t)sprintf(key, "%.20s/%06d", prefix, n);
}

static int fill(const char* prefix, int count) {
  char key[32];
  int from;
  CHECK(scanf("%d", &from) == 1);
  for (int i = from; i < from + count; ++i) {
    const uint32_t bytes = nth_key(key, prefix, i);
    char* value = spore_state_map(key, bytes, 0, 0);
    CHECK(value);
    memcpy(value, key, bytes);
    CHECK(spore_state_push(key, bytes, 0, 0) == 0);
    CHECK(spore_state_unmap(key, bytes) == 0);
  }
  return 0;
}

// Lists them in pages of at most `page` bytes, and prints how many there are: all from the first on, in order.
static int keys(const char* prefix, uint32_t page) {
  static char names[4096];
  CHECK(page <= sizeof(names));
  char after[32] = "", key[32];
  int seen = 0;
  for (;;) {
    const int64_t bytes = spore_state_list(prefix, length(prefix), after, length(after), names, page);
    CHECK(bytes >= 0);
    if (bytes == 0) break;
    for (const char* name = names; name < names + bytes; name += strlen(name) + 1) {
      nth_key(key, prefix, seen++);
      CHECK(!strcmp(name, key));
      strcpy(after, name);
    }
  }
  printf("%d", seen);
  return 0;
}

// Reads `times` of the first `count`, by turns through memory and by the host.
static int sample(const char* prefix, int count, int times, unsigned seed) {
  char key[32], got[32];
  srand(seed);
  for (int i = 0; i < times; ++i) {
    const uint32_t bytes = nth_key(key, prefix, rand() % count);
    if (i % 2) {
      const char* value = spore_state_map(key, 0, SPORE_STATE_READ_ONLY, 0);
      CHECK(value && !memcmp(value, key, bytes));
      CHECK(spore_state_unmap(key, bytes) == 0);
    } else {
      CHECK(spore_state_read(key, bytes, 0, got, sizeof(got)) == bytes && !memcmp(got, key, bytes));
    }
  }
  return 0;
}

// Writes into each `step`-th page of a value, all of the page: `mark`, and the page's number.
static int mark_pages(const char* key, int pages, int step, uint32_t mark) {
  int error;
  uint32_t(*words)[1024] = spore_state_map(key, (uint64_t)pages * 4096, 0, &error);
  if (!words) return error;
  for (int page = 0; page < pages; page += step)
    for (int i = 0; i < 1024; ++i) words[page][i] = mark + (uint32_t)page;
  return 0;
}

// Prints how many of each `step`-th page have that mark, and how many of the others are zero.
static int marked_pages(const char* key, int step, uint32_t mark) {
  int error;
  uint32_t(*words)[1024] = spore_state_map(key, 0, SPORE_STATE_READ_ONLY, &error);
  if (!words) return error;
  const int64_t pages = spore_state_size(key, length(key)) / 4096;
  int marked = 0, zeros = 0;
  for (int page = 0; page < pages; ++page) {
    const uint32_t wanted = page % step ? 0 : mark + (uint32_t)page;
    int i = 0;
    while (i < 1024 && words[page][i] == wanted) ++i;
    if (i == 1024) ++*(page % step ? &zeros : &marked);
  }
  printf("%d %d", marked, zeros);
  return 0;
}

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "";
  if (!strcmp(command, "bad")) return bad_arguments();
  if (!strcmp(command, "windows")) return windows();
  if (!strcmp(command, "touch")) return touch(argv[2]);
  if (!strcmp(command, "count")) return count();
  if (!strcmp(command, "grow")) return grow();
  if (!strcmp(command, "spin")) return spin();
  if (!strcmp(command, "lists")) return lists();
  if (!strcmp(command, "locks")) return locks();
#ifdef __wasm_atomics__
  if (!strcmp(command, "waits")) return waits();
  if (!strcmp(command, "notifies")) return notifies();
#endif
  if (!strcmp(command, "bump")) return bump(argv[2], 0);
  if (!strcmp(command, "bump-alone")) return bump(argv[2], 1);
  if (!strcmp(command, "fill")) return fill(argv[2], atoi(argv[3]));
  if (!strcmp(command, "keys")) return keys(argv[2], (uint32_t)atoi(argv[3]));
  if (!strcmp(command, "sample")) return sample(argv[2], atoi(argv[3]), atoi(argv[4]), (unsigned)atoi(argv[5]));
  if (!strcmp(command, "mark")) return mark_pages(argv[2], atoi(argv[3]), atoi(argv[4]), (uint32_t)atoi(argv[5]));
  if (!strcmp(command, "marked")) return marked_pages(argv[2], atoi(argv[3]), (uint32_t)atoi(argv[4]));
  if (!strcmp(command, "lock")) {  // KEY: and ends with it
    printf("%lld", (long long)spore_state_lock(argv[2], length(argv[2]), SPORE_LOCK_WRITE | SPORE_LOCK_GLOBAL, 5000));
    return 0;
  }
  if (!strcmp(command, "hold")) {  // KEY: its lock, until there is a value KEY.go; then writes and publishes
    const char* key = argv[2];
    char go[64];
    snprintf(go, sizeof(go), "%s.go", key);
    CHECK(spore_state_lock(key, length(key), SPORE_LOCK_WRITE | SPORE_LOCK_GLOBAL, 5000) == 0);
    int64_t* number = spore_state_map(key, 8, 0, 0);
    CHECK(number);
    const char held[] = "held";
    CHECK(spore_state_append("held", 4, held, 4) >= 0);  // to be seen by whoever waits for it
    while (spore_state_size(go, length(go)) == -ENOENT) usleep(10000);
    *number = 1000;
    return (int)-spore_state_push(key, length(key), 0, 0);
  }
  if (!strcmp(command, "die")) {  // KEY: with its lock held
    CHECK(spore_state_lock(argv[2], length(argv[2]), SPORE_LOCK_WRITE | SPORE_LOCK_GLOBAL, 5000) >= 0);
    __builtin_trap();
  }
  if (!strcmp(command, "put")) {  // KEY TEXT [EXIT-CODE]
    const uint32_t size = length(argv[3]);
    void* bytes = spore_state_map(argv[2], size, 0, 0);
    CHECK(bytes);
    memcpy(bytes, argv[3], size);
    return argc > 4 ? atoi(argv[4]) : 0;
  }
  if (!strcmp(command, "push")) return (int)-spore_state_push(argv[2], length(argv[2]), 0, 0);
  if (!strcmp(command, "pull")) return (int)-spore_state_pull(argv[2], length(argv[2]), 0, 0);
  if (!strcmp(command, "delete")) return (int)-spore_state_delete(argv[2], length(argv[2]));
  if (!strcmp(command, "get")) {  // KEY
    int error;
    const char* bytes = spore_state_map(argv[2], 0, SPORE_STATE_READ_ONLY, &error);
    if (!bytes) return error;
    return write(1, bytes, (size_t)spore_state_size(argv[2], length(argv[2]))) < 0;
  }
  if (!strcmp(command, "cas")) {  // KEY: two from one version
    struct spore_state_version version;
    char* bytes = spore_state_map(argv[2], 8, 0, 0);
    CHECK(spore_state_push(argv[2], length(argv[2]), 0, 0) == 0);
    CHECK(spore_state_version(argv[2], length(argv[2]), &version) == 0 && version.number == 1);
    bytes[0] = 1;
    CHECK(spore_state_push_if(argv[2], length(argv[2]), &version) == 0);
    bytes[0] = 2;
    CHECK(spore_state_push_if(argv[2], length(argv[2]), &version) == -EAGAIN);
    CHECK(spore_state_version(argv[2], length(argv[2]), &version) == 0 && version.number == 2);
    return 0;
  }
  return 98;
}
