// A program written for Faasm: it declares Faasm's names itself. The command "all" uses each as it should be, others do
// one thing that must not be.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define FAASM(result, name, ...) \
  __attribute__((import_module("env"), import_name("__faasm_" #name))) result __faasm_##name(__VA_ARGS__)

FAASM(long, read_input, unsigned char* buffer, long size);
FAASM(void, write_output, const char* output, long size);
FAASM(unsigned int, chain_name, const char* name, const unsigned char* input, long size);
FAASM(unsigned int, chain_ptr, int (*function)(void), const unsigned char* input, long size);
FAASM(int, await_call, unsigned int id);
FAASM(int, await_call_output, unsigned int id, char** output, int* size);
FAASM(long, read_state, const char* key, unsigned char* buffer, long size);
FAASM(unsigned char*, read_state_ptr, const char* key, long total);
FAASM(void, read_state_offset, const char* key, long total, long offset, unsigned char* buffer, long size);
FAASM(unsigned char*, read_state_offset_ptr, const char* key, long total, long offset, long size);
FAASM(void, write_state, const char* key, const unsigned char* data, long size);
FAASM(void, write_state_offset, const char* key, long total, long offset, const unsigned char* data, long size);
FAASM(void, push_state, const char* key);
FAASM(void, push_state_partial, const char* key);
FAASM(void, pull_state, const char* key, long total);
FAASM(void, append_state, const char* key, const unsigned char* data, long size);
FAASM(void, read_appended_state, const char* key, unsigned char* data, long size, long count);
FAASM(void, clear_appended_state, const char* key);
FAASM(void, flag_state_dirty, const char* key, long total);
FAASM(void, flag_state_offset_dirty, const char* key, long total, long offset, long size);
FAASM(void, lock_state_read, const char* key);
FAASM(void, unlock_state_read, const char* key);
FAASM(void, lock_state_write, const char* key);
FAASM(void, unlock_state_write, const char* key);
FAASM(void, lock_state_global, const char* key);
FAASM(void, unlock_state_global, const char* key);

#define BYTES(text) ((const unsigned char*)(text)), sizeof(text) - 1

static int own_entry(void) { return 0; }

static int all(void) {
  unsigned char text[100] = {0};
  EXPECT(__faasm_read_input(text, 0), 5);
  EXPECT(__faasm_read_input(text, 3), 3);
  EXPECT(__faasm_read_input(text, 100), 5);
  EXPECT(memcmp(text, "input", 5), 0);

  unsigned int id = __faasm_chain_name("echo", BYTES("hello"));
  EXPECT(__faasm_await_call(id), 0);
  char* output = 0;
  int size = 0;
  EXPECT(__faasm_await_call_output(id, &output, &size), 0);
  EXPECT(size, 5);
  EXPECT_TRUE(output && !strcmp(output, "hello"));  // a NUL is behind it
  free(output);
  id = __faasm_chain_name("fail", BYTES(""));
  EXPECT(__faasm_await_call(id), 3);
  EXPECT(__faasm_await_call_output(id, &output, &size), 3);
  EXPECT(size, 7);
  EXPECT(__faasm_await_call(__faasm_chain_name("trap", BYTES(""))), 1);
  EXPECT(__faasm_await_call(__faasm_chain_name("later", BYTES("x"))), 0);
  id = __faasm_chain_ptr(own_entry, BYTES("x"));
  EXPECT(__faasm_await_call_output(id, &output, &size), 0);
  EXPECT_TRUE(size == 4 && !memcmp(output, &(int (*)(void)){own_entry}, 4));

  EXPECT(__faasm_read_state("none", text, 0), 0);
  __faasm_write_state("k", BYTES("first value"));
  EXPECT(__faasm_read_state("k", text, 0), 11);
  memset(text, 0, sizeof(text));
  EXPECT(__faasm_read_state("k", text, sizeof(text)), 11);
  EXPECT(strcmp((char*)text, "first value"), 0);
  __faasm_write_state("k", BYTES("0123456789"));
  __faasm_write_state_offset("k", 10, 2, BYTES("xy"));
  __faasm_read_state_offset("k", 10, 1, text, 4);
  EXPECT(memcmp(text, "1xy4", 4), 0);
  unsigned char* mapped = __faasm_read_state_ptr("k", 10);
  EXPECT(memcmp(mapped, "01xy456789", 10), 0);
  EXPECT_TRUE(__faasm_read_state_offset_ptr("k", 10, 4, 6) == mapped + 4);
  mapped[9] = '!';
  __faasm_flag_state_dirty("k", 10);
  __faasm_flag_state_offset_dirty("k", 10, 9, 1);
  EXPECT(__faasm_read_state("k", text, 10), 10);
  EXPECT(memcmp(text, "01xy45678!", 10), 0);
  __faasm_push_state("k");
  mapped[0] = '>';
  __faasm_push_state_partial("k");
  __faasm_pull_state("k", 10);
  __faasm_pull_state("k", 0);
  unsigned char* zeros = __faasm_read_state_ptr("new", 100);
  EXPECT(zeros[0] + zeros[99], 0);
  __faasm_write_state_offset("made", 20, 10, BYTES("middle"));
  EXPECT(__faasm_read_state("made", text, 100), 20);
  EXPECT(memcmp(text + 9, "\0middle\0", 8), 0);

  __faasm_clear_appended_state("list");
  __faasm_append_state("list", BYTES("one"));
  __faasm_append_state("list", BYTES(""));
  __faasm_append_state("list", BYTES("three"));
  memset(text, 0, sizeof(text));
  __faasm_read_appended_state("list", text, 100, 2);
  EXPECT(strcmp((char*)text, "one"), 0);
  __faasm_read_appended_state("list", text, 8, 3);
  EXPECT(strcmp((char*)text, "onethree"), 0);
  __faasm_read_appended_state("list", text, 0, 0);
  __faasm_clear_appended_state("list");
  __faasm_read_appended_state("list", text, 100, 0);

  __faasm_lock_state_read("k");
  __faasm_unlock_state_read("k");
  __faasm_lock_state_write("k");
  __faasm_unlock_state_write("k");
  __faasm_lock_state_global("k");
  __faasm_unlock_state_global("k");

  printf("this goes\n");
  fflush(stdout);
  __faasm_write_output("not this", 8);
  __faasm_write_output("this", 4);
  return finish();
}

static char* outside;  // two bytes before the end of memory
static char long_text[600];

static int wrong(int which) {
  unsigned char text[100];
  char* output;
  int size;
  __faasm_write_state("k", BYTES("0123456789"));
  const unsigned int id = __faasm_chain_name("echo", BYTES("hello"));
  switch (which) {
    case 0: __faasm_chain_name("nobody", BYTES("")); break;
    case 1: __faasm_chain_name("full", BYTES("")); break;
    case 2: __faasm_chain_name("\xff\x01", BYTES("")); break;
    case 3: __faasm_chain_name(long_text, BYTES("")); break;
    case 4: __faasm_await_call(1000); break;
    case 5: __faasm_await_call_output(1000, &output, &size); break;
    case 6: __faasm_read_state("none", text, 10); break;
    case 7: __faasm_read_state("k", text, 9); break;
    case 8: __faasm_read_state("", text, 10); break;
    case 9: __faasm_read_state(long_text, text, 10); break;
    case 10: __faasm_read_state_ptr("k", 11); break;
    case 11: __faasm_read_state_ptr("k", 0); break;
    case 12: __faasm_read_state_offset("k", 10, 5, text, 6); break;
    case 13: __faasm_read_state_offset("k", 9, 0, text, 1); break;
    case 14: __faasm_read_state_offset("none", 9, 0, text, 1); break;
    case 15: __faasm_read_state_offset_ptr("k", 10, 11, 0); break;
    case 16: __faasm_write_state_offset("k", 10, 8, BYTES("abc")); break;
    case 17: __faasm_write_state_offset("k", 20, 8, BYTES("abc")); break;
    case 18: __faasm_push_state("none"); break;
    case 19: __faasm_pull_state("none", 0); break;
    case 20: __faasm_push_state("k"), __faasm_pull_state("k", 11); break;
    case 21: __faasm_read_appended_state("list", text, 100, 1); break;
    case 22: __faasm_append_state("list", BYTES("three")), __faasm_read_appended_state("list", text, 4, 1); break;
    case 23: __faasm_read_appended_state("list", text, 100, -1); break;
    case 24: __faasm_flag_state_offset_dirty("k", 10, 0, -1); break;
    case 25: __faasm_unlock_state_read("k"); break;
    case 26: __faasm_unlock_state_global("k"); break;
    case 27: __faasm_lock_state_write("k"), __faasm_lock_state_write("k"); break;
  }
  (void)id;
  return 0;
}

static int wild(int which) {
  unsigned char text[10];
  unsigned char* const bytes = (unsigned char*)outside;
  char* output;
  int size;
  __faasm_write_state("k", BYTES("0123456789"));
  const unsigned int id = __faasm_chain_name("echo", BYTES("hello"));
  memset(outside, 'k', 2);  // a text without an end
  switch (which) {
    case 0: __faasm_read_input(bytes, 3); break;
    case 1: __faasm_write_output(outside, 3); break;
    case 2: __faasm_chain_name(outside, BYTES("")); break;
    case 3: __faasm_chain_name("echo", bytes, 3); break;
    case 4: __faasm_chain_ptr(own_entry, bytes, 3); break;
    case 5: __faasm_await_call_output(id, (char**)outside, &size); break;
    case 6: __faasm_await_call_output(id, &output, (int*)outside); break;
    case 7: __faasm_read_state(outside, text, 10); break;
    case 8: __faasm_read_state("k", bytes, 10); break;
    case 9: __faasm_read_state_ptr(outside, 10); break;
    case 10: __faasm_read_state_offset(outside, 10, 0, text, 1); break;
    case 11: __faasm_read_state_offset("k", 10, 0, bytes, 3); break;
    case 12: __faasm_read_state_offset_ptr(outside, 10, 0, 1); break;
    case 13: __faasm_write_state(outside, text, 1); break;
    case 14: __faasm_write_state("k", bytes, 3); break;
    case 15: __faasm_write_state_offset(outside, 10, 0, text, 1); break;
    case 16: __faasm_write_state_offset("k", 10, 0, bytes, 3); break;
    case 17: __faasm_push_state(outside); break;
    case 18: __faasm_push_state_partial(outside); break;
    case 19: __faasm_pull_state(outside, 0); break;
    case 20: __faasm_append_state(outside, text, 1); break;
    case 21: __faasm_append_state("list", bytes, 3); break;
    case 22: __faasm_read_appended_state(outside, text, 1, 0); break;
    case 23: __faasm_read_appended_state("list", bytes, 3, 0); break;
    case 24: __faasm_clear_appended_state(outside); break;
    case 25: __faasm_flag_state_dirty(outside, 10); break;
    case 26: __faasm_flag_state_offset_dirty(outside, 10, 0, 1); break;
    case 27: __faasm_lock_state_read(outside); break;
    case 28: __faasm_unlock_state_read(outside); break;
    case 29: __faasm_lock_state_write(outside); break;
    case 30: __faasm_unlock_state_write(outside); break;
    case 31: __faasm_lock_state_global(outside); break;
    case 32: __faasm_unlock_state_global(outside); break;
    case 33: __faasm_write_state("k", bytes, -1); break;
  }
  return 0;
}

int main(int argc, char** argv) {
  outside = (char*)(__builtin_wasm_memory_size(0) * 65536 - 2);
  memset(long_text, 'n', sizeof(long_text) - 1);
  if (argc == 2 && !strcmp(argv[1], "all")) return all();
  if (argc < 3) return 98;
  return !strcmp(argv[1], "wrong") ? wrong(atoi(argv[2])) : wild(atoi(argv[2]));
}
