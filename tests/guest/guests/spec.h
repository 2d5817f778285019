// For guests that test WASI against its specification, a section a function: SECTION(fd_close) { ... }, listed for
// run_section(), which runs that of argv[1]. Descriptor 3 is a writable directory, 4 a read-only one; the world of the
// sections is made by wasi_spec_test.cc. All 46 imports are here as raw_NAME, with plain numbers for addresses and
// lengths, so that any value can be offered.
#pragma once

#include <string.h>

#include "check.h"

typedef uint32_t u32;
typedef uint64_t u64;

#define IMPORT(name, parameters) RAW(name) u32 raw_##name parameters
IMPORT(args_get, (u32 argv, u32 buf));
IMPORT(args_sizes_get, (u32 count, u32 bytes));
IMPORT(environ_get, (u32 environ, u32 buf));
IMPORT(environ_sizes_get, (u32 count, u32 bytes));
IMPORT(clock_res_get, (u32 id, u32 out));
IMPORT(clock_time_get, (u32 id, u64 precision, u32 out));
IMPORT(fd_advise, (u32 fd, u64 offset, u64 len, u32 advice));
IMPORT(fd_allocate, (u32 fd, u64 offset, u64 len));
IMPORT(fd_close, (u32 fd));
IMPORT(fd_datasync, (u32 fd));
IMPORT(fd_fdstat_get, (u32 fd, u32 out));
IMPORT(fd_fdstat_set_flags, (u32 fd, u32 flags));
IMPORT(fd_fdstat_set_rights, (u32 fd, u64 base, u64 inheriting));
IMPORT(fd_filestat_get, (u32 fd, u32 out));
IMPORT(fd_filestat_set_size, (u32 fd, u64 size));
IMPORT(fd_filestat_set_times, (u32 fd, u64 atim, u64 mtim, u32 flags));
IMPORT(fd_pread, (u32 fd, u32 iovs, u32 count, u64 offset, u32 out));
IMPORT(fd_prestat_get, (u32 fd, u32 out));
IMPORT(fd_prestat_dir_name, (u32 fd, u32 path, u32 len));
IMPORT(fd_pwrite, (u32 fd, u32 iovs, u32 count, u64 offset, u32 out));
IMPORT(fd_read, (u32 fd, u32 iovs, u32 count, u32 out));
IMPORT(fd_readdir, (u32 fd, u32 buf, u32 len, u64 cookie, u32 out));
IMPORT(fd_renumber, (u32 from, u32 to));
IMPORT(fd_seek, (u32 fd, u64 offset, u32 whence, u32 out));
IMPORT(fd_sync, (u32 fd));
IMPORT(fd_tell, (u32 fd, u32 out));
IMPORT(fd_write, (u32 fd, u32 iovs, u32 count, u32 out));
IMPORT(path_create_directory, (u32 fd, u32 path, u32 len));
IMPORT(path_filestat_get, (u32 fd, u32 lookup, u32 path, u32 len, u32 out));
IMPORT(path_filestat_set_times, (u32 fd, u32 lookup, u32 path, u32 len, u64 atim, u64 mtim, u32 flags));
IMPORT(path_link, (u32 fd, u32 lookup, u32 path, u32 len, u32 new_fd, u32 new_path, u32 new_len));
IMPORT(path_open, (u32 fd, u32 lookup, u32 path, u32 len, u32 oflags, u64 base, u64 inheriting, u32 fdflags, u32 out));
IMPORT(path_readlink, (u32 fd, u32 path, u32 len, u32 buf, u32 buf_len, u32 out));
IMPORT(path_remove_directory, (u32 fd, u32 path, u32 len));
IMPORT(path_rename, (u32 fd, u32 path, u32 len, u32 new_fd, u32 new_path, u32 new_len));
IMPORT(path_symlink, (u32 target, u32 target_len, u32 fd, u32 path, u32 len));
IMPORT(path_unlink_file, (u32 fd, u32 path, u32 len));
IMPORT(poll_oneoff, (u32 in, u32 out, u32 count, u32 events));
IMPORT(proc_raise, (u32 signal));
IMPORT(random_get, (u32 buf, u32 len));
IMPORT(sched_yield, (void));
IMPORT(sock_accept, (u32 fd, u32 flags, u32 out));
IMPORT(sock_recv, (u32 fd, u32 iovs, u32 count, u32 flags, u32 out, u32 out_flags));
IMPORT(sock_send, (u32 fd, u32 iovs, u32 count, u32 flags, u32 out));
IMPORT(sock_shutdown, (u32 fd, u32 how));
RAW(proc_exit) void raw_proc_exit(u32 code);

enum { kRw = 3, kRo = 4, kFirstFree = 5, kClosed = 99 };

#define E(name) __WASI_ERRNO_##name
#define R(name) ((u64)__WASI_RIGHTS_##name)

#define FILE_RIGHTS                                                                                            \
  (R(FD_DATASYNC) | R(FD_READ) | R(FD_SEEK) | R(FD_FDSTAT_SET_FLAGS) | R(FD_SYNC) | R(FD_TELL) | R(FD_WRITE) | \
   R(FD_ADVISE) | R(FD_ALLOCATE) | R(FD_FILESTAT_GET) | R(FD_FILESTAT_SET_SIZE) | R(FD_FILESTAT_SET_TIMES) |   \
   R(POLL_FD_READWRITE))
#define DIRECTORY_RIGHTS                                                                                   \
  (R(FD_FDSTAT_SET_FLAGS) | R(FD_SYNC) | R(FD_DATASYNC) | R(PATH_CREATE_DIRECTORY) | R(PATH_CREATE_FILE) | \
   R(PATH_LINK_SOURCE) | R(PATH_LINK_TARGET) | R(PATH_OPEN) | R(FD_READDIR) | R(PATH_READLINK) |           \
   R(PATH_RENAME_SOURCE) | R(PATH_RENAME_TARGET) | R(PATH_FILESTAT_GET) | R(PATH_FILESTAT_SET_SIZE) |      \
   R(PATH_FILESTAT_SET_TIMES) | R(FD_FILESTAT_GET) | R(FD_FILESTAT_SET_TIMES) | R(PATH_SYMLINK) |          \
   R(PATH_REMOVE_DIRECTORY) | R(PATH_UNLINK_FILE))

static inline u32 at(const void* p) { return (u32)p; }
// A text as the two arguments that a path is.
#define PATH(text) at(text), (u32)strlen(text)

// The first address outside memory. The last page before it is nobody's: see run_section().
static inline u32 memory_end(void) { return (u32)__builtin_wasm_memory_size(0) * 65536; }

// Addresses at which `size` bytes are not, not wholly, in memory.
enum { kBadPointers = 5 };
static inline u32 bad_pointer(u32 size, int i) {
  const u32 end = memory_end();
  const u32 bads[kBadPointers] = {end - size + 1, end, 0x80000000u, 0u - size, 0xffffffffu};
  return bads[i];
}
// The call, with `p` for a pointer to `size` bytes, is a fault wherever they are not in memory...
#define EXPECT_FAULTS(size, call)               \
  for (int i_ = 0; i_ < kBadPointers; ++i_) {   \
    const u32 p = bad_pointer((u32)(size), i_); \
    EXPECT(call, E(FAULT));                     \
  }
// ...and is none where they end with the last byte.
#define EXPECT_LAST_BYTES(size, call)         \
  do {                                        \
    const u32 p = memory_end() - (u32)(size); \
    EXPECT(call, E(SUCCESS));                 \
  } while (0)

// Opens with these rights; the descriptor, or -1 with the error reported.
static inline int open_rights(int directory, const char* path, u32 oflags, u64 rights, u64 inheriting) {
  u32 fd = 0;
  const u32 error = raw_path_open((u32)directory, 1, PATH(path), oflags, rights, inheriting, 0, at(&fd));
  if (error == 0) return (int)fd;
  ++failures;
  fprintf(stderr, "opening %s: error %u\n", path, error);
  return -1;
}
static inline int open_file(const char* path, u64 rights) {
  return open_rights(kRw, path, __WASI_OFLAGS_CREAT, rights, 0);
}
static inline int open_directory(const char* path, u64 rights) {
  return open_rights(kRw, path, __WASI_OFLAGS_DIRECTORY, rights, FILE_RIGHTS | DIRECTORY_RIGHTS);
}
static inline void make_file(const char* path, const char* text) {
  const int fd = open_rights(kRw, path, __WASI_OFLAGS_CREAT | __WASI_OFLAGS_TRUNC, FILE_RIGHTS, 0);
  const __wasi_ciovec_t vector = {(const uint8_t*)text, strlen(text)};
  __wasi_size_t done = 0;
  EXPECT_OK(__wasi_fd_write(fd, &vector, 1, &done));
  EXPECT(done, strlen(text));
  EXPECT_OK(raw_fd_close((u32)fd));
}
// Whether the file holds exactly this text (of less than 4096 bytes).
static inline int holds(int directory, const char* path, const char* text) {
  static uint8_t buffer[4096];
  const __wasi_iovec_t vector = {buffer, sizeof(buffer)};
  __wasi_size_t done = 0;
  u32 fd = 0;
  if (raw_path_open((u32)directory, 1, PATH(path), 0, R(FD_READ), 0, 0, at(&fd))) return 0;
  const u32 error = __wasi_fd_read((int)fd, &vector, 1, &done);
  EXPECT_OK(raw_fd_close(fd));
  return !error && done == strlen(text) && memcmp(buffer, text, done) == 0;
}
static inline int exists(int directory, const char* path) {
  __wasi_filestat_t stat;
  return raw_path_filestat_get((u32)directory, 0, PATH(path), at(&stat)) == 0;
}
static inline u64 size_of(int fd) {
  __wasi_filestat_t stat = {0};
  EXPECT_OK(raw_fd_filestat_get((u32)fd, at(&stat)));
  return stat.size;
}

// The call, on a descriptor `fd`, is refused as soon as that right is missing, and only then.
#define EXPECT_FILE_RIGHT(path, right, wanted, call)   \
  do {                                                 \
    int fd = open_file(path, FILE_RIGHTS & ~R(right)); \
    EXPECT(call, E(NOTCAPABLE));                       \
    EXPECT_OK(raw_fd_close((u32)fd));                  \
    fd = open_file(path, FILE_RIGHTS);                 \
    EXPECT(call, wanted);                              \
    EXPECT_OK(raw_fd_close((u32)fd));                  \
  } while (0)
#define EXPECT_DIRECTORY_RIGHT(right, wanted, call)             \
  do {                                                          \
    int fd = open_directory(".", DIRECTORY_RIGHTS & ~R(right)); \
    EXPECT(call, E(NOTCAPABLE));                                \
    EXPECT_OK(raw_fd_close((u32)fd));                           \
    fd = open_directory(".", DIRECTORY_RIGHTS);                 \
    EXPECT(call, wanted);                                       \
    EXPECT_OK(raw_fd_close((u32)fd));                           \
  } while (0)

struct Section {
  const char* name;
  void (*run)(void);
};
#define SECTION(name) static void section_##name(void)
#define LISTED(name) {#name, section_##name}

static inline int run_section(const struct Section* sections, unsigned count, int argc, char** argv) {
  // A page that no allocator has, for what stands at the last bytes of memory.
  if (__builtin_wasm_memory_grow(0, 1) == (__SIZE_TYPE__)-1) return 101;
  for (unsigned i = 0; i < count; ++i) {
    if (argc == 2 && strcmp(argv[1], sections[i].name) == 0) {
      sections[i].run();
      return finish();
    }
  }
  fprintf(stderr, "no section of that name\n");
  return 102;
}
#define MAIN(...)                                                                        \
  int main(int argc, char** argv) {                                                      \
    static const struct Section kSections[] = {__VA_ARGS__};                             \
    return run_section(kSections, sizeof(kSections) / sizeof(kSections[0]), argc, argv); \
  }
