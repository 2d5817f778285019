// Files, in a directory of its own that starts empty (descriptor 3) and in a read-only one (descriptor 4), which holds
// "file" ("read only") and the directory "dir".
#include <string.h>

#include "check.h"

enum { kRw = 3, kRo = 4 };
#define ALL_FILE                                                                                              \
  (__WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_TELL |           \
   __WASI_RIGHTS_FD_FILESTAT_GET | __WASI_RIGHTS_FD_FILESTAT_SET_SIZE | __WASI_RIGHTS_FD_FILESTAT_SET_TIMES | \
   __WASI_RIGHTS_FD_SYNC | __WASI_RIGHTS_FD_DATASYNC | __WASI_RIGHTS_FD_ADVISE | __WASI_RIGHTS_FD_ALLOCATE |  \
   __WASI_RIGHTS_FD_FDSTAT_SET_FLAGS)
#define DIR_RIGHTS (__WASI_RIGHTS_FD_READDIR | __WASI_RIGHTS_PATH_OPEN | __WASI_RIGHTS_PATH_FILESTAT_GET)

static __wasi_errno_t open_at(int dir, const char* path, int oflags, __wasi_rights_t rights, int fdflags, int* fd) {
  return __wasi_path_open(dir, 0, path, (__wasi_oflags_t)oflags, rights, 0, (__wasi_fdflags_t)fdflags, fd);
}

static size_t put(int fd, const char* text) {
  const __wasi_ciovec_t vector = {(const uint8_t*)text, strlen(text)};
  __wasi_size_t done = 0;
  const __wasi_errno_t error = __wasi_fd_write(fd, &vector, 1, &done);
  return error ? 1000 + error : done;
}

// Whether the file holds exactly this text.
static int holds(int dir, const char* path, const char* text) {
  static uint8_t buffer[4096];
  const __wasi_iovec_t vector = {buffer, sizeof(buffer)};
  __wasi_size_t done = 0;
  int fd = -1;
  if (open_at(dir, path, 0, __WASI_RIGHTS_FD_READ, 0, &fd)) return 0;
  const __wasi_errno_t error = __wasi_fd_read(fd, &vector, 1, &done);
  EXPECT_OK(__wasi_fd_close(fd));
  return !error && done == strlen(text) && memcmp(buffer, text, done) == 0;
}

static void reading_and_writing(void) {
  int fd = -1, second = -1;
  __wasi_size_t done;
  __wasi_filesize_t position;
  EXPECT(open_at(kRw, "a", 0, ALL_FILE, 0, &fd), __WASI_ERRNO_NOENT);
  EXPECT_OK(open_at(kRw, "a", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, ALL_FILE, 0, &fd));
  EXPECT(fd, 5);
  EXPECT(open_at(kRw, "a", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, ALL_FILE, 0, &second), __WASI_ERRNO_EXIST);
  EXPECT(put(fd, "hello, world"), 12);
  EXPECT_OK(__wasi_fd_tell(fd, &position));
  EXPECT(position, 12);
  EXPECT_OK(__wasi_fd_seek(fd, -5, __WASI_WHENCE_END, &position));
  EXPECT(position, 7);
  EXPECT(put(fd, "W"), 1);
  EXPECT_OK(__wasi_fd_seek(fd, 2, __WASI_WHENCE_CUR, &position));
  EXPECT(position, 10);
  EXPECT(__wasi_fd_seek(fd, -1, __WASI_WHENCE_SET, &position), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_fd_seek(fd, INT64_MIN, __WASI_WHENCE_CUR, &position), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_fd_seek(fd, INT64_MAX, __WASI_WHENCE_CUR, &position), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_fd_seek(fd, 0, 3, &position), __WASI_ERRNO_INVAL);
  EXPECT_TRUE(holds(kRw, "a", "hello, World"));

  // Positions are each descriptor's own, pread and pwrite do not move them.
  EXPECT_OK(open_at(kRw, "a", 0, ALL_FILE, 0, &second));
  EXPECT_OK(__wasi_fd_tell(second, &position));
  EXPECT(position, 0);
  uint8_t buffer[32];
  __wasi_iovec_t vectors[2] = {{buffer, 3}, {buffer + 16, 3}};
  EXPECT_OK(__wasi_fd_pread(second, vectors, 2, 7, &done));
  EXPECT(done, 5);
  EXPECT(memcmp(buffer, "Wor", 3), 0);
  EXPECT(memcmp(buffer + 16, "ld", 2), 0);
  const __wasi_ciovec_t jump = {(const uint8_t*)"J", 1};
  EXPECT_OK(__wasi_fd_pwrite(second, &jump, 1, 0, &done));
  EXPECT_OK(__wasi_fd_tell(second, &position));
  EXPECT(position, 0);
  EXPECT_TRUE(holds(kRw, "a", "Jello, World"));
  EXPECT_OK(__wasi_fd_close(second));
  EXPECT(__wasi_fd_close(second), __WASI_ERRNO_BADF);

  // Appending: from the start, and switched on later.
  EXPECT_OK(open_at(kRw, "a", 0, ALL_FILE, __WASI_FDFLAGS_APPEND, &second));
  EXPECT(put(second, "!"), 1);
  EXPECT_OK(__wasi_fd_tell(second, &position));
  EXPECT(position, 13);
  EXPECT_OK(__wasi_fd_fdstat_set_flags(second, 0));
  EXPECT_OK(__wasi_fd_seek(second, 0, __WASI_WHENCE_SET, &position));
  EXPECT(put(second, "H"), 1);
  EXPECT_OK(__wasi_fd_fdstat_set_flags(second, __WASI_FDFLAGS_APPEND));
  EXPECT(put(second, "?"), 1);
  EXPECT_TRUE(holds(kRw, "a", "Hello, World!?"));
  EXPECT(__wasi_fd_fdstat_set_flags(second, __WASI_FDFLAGS_SYNC), __WASI_ERRNO_NOTSUP);
  EXPECT(__wasi_fd_fdstat_set_flags(second, 0x8000), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_fd_close(second));

  // Size, space, truncation at open.
  __wasi_filestat_t stat;
  EXPECT_OK(__wasi_fd_filestat_set_size(fd, 5));
  EXPECT_OK(__wasi_fd_filestat_get(fd, &stat));
  EXPECT(stat.size, 5);
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT(stat.nlink, 1);
  EXPECT_OK(__wasi_fd_allocate(fd, 0, 4096));
  EXPECT_OK(__wasi_fd_filestat_get(fd, &stat));
  EXPECT(stat.size, 4096);
  EXPECT(__wasi_fd_allocate(fd, UINT64_MAX, 1), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_fd_filestat_set_size(fd, UINT64_MAX), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_fd_advise(fd, 0, 0, __WASI_ADVICE_SEQUENTIAL));
  EXPECT(__wasi_fd_advise(fd, 0, 0, 6), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_fd_sync(fd));
  EXPECT_OK(__wasi_fd_datasync(fd));
  EXPECT_OK(open_at(kRw, "a", __WASI_OFLAGS_TRUNC, ALL_FILE, 0, &second));
  EXPECT_OK(__wasi_fd_filestat_get(fd, &stat));
  EXPECT(stat.size, 0);

  // Times.
  EXPECT_OK(__wasi_fd_filestat_set_times(fd, 1000000001, 2000000002, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM));
  EXPECT_OK(__wasi_fd_filestat_get(fd, &stat));
  EXPECT(stat.atim, 1000000001);
  EXPECT(stat.mtim, 2000000002);
  EXPECT(__wasi_fd_filestat_set_times(fd, 1, 1, __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_ATIM_NOW), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_path_filestat_set_times(kRw, 0, "a", 0, 3000000003, __WASI_FSTFLAGS_MTIM));
  EXPECT_OK(__wasi_path_filestat_get(kRw, 0, "a", &stat));
  EXPECT(stat.atim, 1000000001);
  EXPECT(stat.mtim, 3000000003);

  // Renumbering moves one onto the other.
  EXPECT_OK(__wasi_fd_renumber(fd, second));
  EXPECT(__wasi_fd_filestat_get(fd, &stat), __WASI_ERRNO_BADF);
  EXPECT_OK(__wasi_fd_filestat_get(second, &stat));
  EXPECT(__wasi_fd_renumber(second, 900), __WASI_ERRNO_BADF);
  EXPECT_OK(__wasi_fd_renumber(second, second));
  EXPECT_OK(__wasi_fd_close(second));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "a"));
}

static void rights(void) {
  int fd = -1, second = -1;
  __wasi_size_t done;
  __wasi_fdstat_t stat;
  EXPECT_OK(open_at(kRw, "r", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_SEEK, 0, &fd));
  uint8_t byte;
  const __wasi_iovec_t in = {&byte, 1};
  EXPECT(__wasi_fd_read(fd, &in, 1, &done), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(__wasi_fd_sync(fd), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(put(fd, "x"), 1);
  EXPECT_OK(__wasi_fd_fdstat_get(fd, &stat));
  EXPECT(stat.fs_rights_base, __WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_SEEK);
  EXPECT(stat.fs_filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT_OK(__wasi_fd_fdstat_set_rights(fd, __WASI_RIGHTS_FD_SEEK, 0));
  EXPECT(put(fd, "x"), 1000 + __WASI_ERRNO_NOTCAPABLE);
  EXPECT(__wasi_fd_fdstat_set_rights(fd, __WASI_RIGHTS_FD_WRITE, 0), __WASI_ERRNO_NOTCAPABLE);
  EXPECT_OK(__wasi_fd_close(fd));

  // A directory hands on no more than it inherits.
  EXPECT_OK(__wasi_path_create_directory(kRw, "d"));
  EXPECT_OK(__wasi_path_open(kRw, 0, "d", __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, __WASI_RIGHTS_FD_READ, 0, &fd));
  EXPECT(open_at(fd, "x", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_READ, 0, &second), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(open_at(fd, "x", 0, __WASI_RIGHTS_FD_WRITE, 0, &second), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(open_at(fd, "x", 0, __WASI_RIGHTS_FD_READ, 0, &second), __WASI_ERRNO_NOENT);
  EXPECT(__wasi_path_create_directory(fd, "y"), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(__wasi_path_unlink_file(fd, "y"), __WASI_ERRNO_NOTCAPABLE);
  EXPECT_OK(__wasi_fd_close(fd));
  EXPECT_OK(__wasi_path_remove_directory(kRw, "d"));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "r"));

  // Standard streams go one way and do not seek.
  __wasi_filesize_t position;
  EXPECT(__wasi_fd_read(1, &in, 1, &done), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(put(1, ""), 0);
  EXPECT(put(0, "x"), 1000 + __WASI_ERRNO_NOTCAPABLE);
  EXPECT(__wasi_fd_seek(0, 0, __WASI_WHENCE_SET, &position), __WASI_ERRNO_SPIPE);
  EXPECT(__wasi_fd_seek(kRw, 0, __WASI_WHENCE_SET, &position), __WASI_ERRNO_BADF);
  EXPECT(__wasi_fd_read(kRw, &in, 1, &done), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(open_at(1, "x", 0, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_NOTDIR);
  EXPECT(open_at(77, "x", 0, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_BADF);
}

static void names(void) {
  int fd = -1;
  __wasi_size_t done;
  __wasi_filestat_t stat;
  EXPECT_OK(open_at(kRw, "one", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, &fd));
  EXPECT(put(fd, "1"), 1);
  EXPECT_OK(__wasi_fd_close(fd));
  EXPECT_OK(__wasi_path_create_directory(kRw, "sub/"));
  EXPECT(__wasi_path_create_directory(kRw, "sub"), __WASI_ERRNO_EXIST);
  EXPECT(__wasi_path_create_directory(kRw, "."), __WASI_ERRNO_EXIST);
  EXPECT(__wasi_path_create_directory(kRw, "none/sub"), __WASI_ERRNO_NOENT);
  EXPECT_OK(__wasi_path_link(kRw, 0, "one", kRw, "sub/two"));
  EXPECT_OK(__wasi_path_filestat_get(kRw, 0, "sub/two", &stat));
  EXPECT(stat.nlink, 2);
  EXPECT(__wasi_path_link(kRw, 0, "one", kRw, "sub/two"), __WASI_ERRNO_EXIST);
  EXPECT(__wasi_path_link(kRw, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, "one", kRw, "x"), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_path_link(kRw, 0, "sub", kRw, "x"), __WASI_ERRNO_PERM);
  EXPECT_OK(__wasi_path_rename(kRw, "one", kRw, "sub/three"));
  EXPECT(__wasi_path_filestat_get(kRw, 0, "one", &stat), __WASI_ERRNO_NOENT);
  EXPECT_TRUE(holds(kRw, "sub/three", "1"));
  EXPECT(__wasi_path_rename(kRw, "sub", kRw, "sub/in"), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_path_rename(kRw, ".", kRw, "x"), __WASI_ERRNO_BUSY);
  EXPECT(__wasi_path_unlink_file(kRw, "sub"), __WASI_ERRNO_ISDIR);
  EXPECT(__wasi_path_remove_directory(kRw, "sub"), __WASI_ERRNO_NOTEMPTY);
  EXPECT(__wasi_path_remove_directory(kRw, "sub/two"), __WASI_ERRNO_NOTDIR);
  EXPECT(__wasi_path_unlink_file(kRw, "sub/two/"), __WASI_ERRNO_NOTDIR);
  EXPECT(__wasi_path_open(kRw, 0, "sub", 0, __WASI_RIGHTS_FD_WRITE, 0, 0, &fd), __WASI_ERRNO_ISDIR);
  EXPECT(open_at(kRw, "sub/two", __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_FD_READDIR, 0, &fd), __WASI_ERRNO_NOTDIR);
  EXPECT(open_at(kRw, "x", __WASI_OFLAGS_DIRECTORY | __WASI_OFLAGS_CREAT, 0, 0, &fd), __WASI_ERRNO_INVAL);
  EXPECT(open_at(kRw, "x", 0x100, 0, 0, &fd), __WASI_ERRNO_INVAL);

  // Symbolic links.
  uint8_t text[32];
  EXPECT_OK(__wasi_path_symlink("sub/two", kRw, "link"));
  EXPECT(__wasi_path_symlink("sub/two", kRw, "link"), __WASI_ERRNO_EXIST);
  EXPECT_OK(__wasi_path_readlink(kRw, "link", text, sizeof(text), &done));
  EXPECT(done, 7);
  EXPECT(memcmp(text, "sub/two", 7), 0);
  EXPECT_OK(__wasi_path_readlink(kRw, "link", text, 3, &done));
  EXPECT(done, 3);
  EXPECT(__wasi_path_readlink(kRw, "sub/two", text, sizeof(text), &done), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_path_filestat_get(kRw, 0, "link", &stat));
  EXPECT(stat.filetype, __WASI_FILETYPE_SYMBOLIC_LINK);
  EXPECT_OK(__wasi_path_filestat_get(kRw, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, "link", &stat));
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT(open_at(kRw, "link", 0, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_LOOP);
  EXPECT_OK(__wasi_path_open(kRw, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, "link", 0, __WASI_RIGHTS_FD_READ, 0, 0, &fd));
  EXPECT_OK(__wasi_fd_close(fd));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "link"));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "sub/two"));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "sub/three"));
  EXPECT_OK(__wasi_path_remove_directory(kRw, "sub"));
}

// The directory above holds "secret", and "escape" -> ".." and "etc" -> "/etc" lie in here, made by the host.
static void escapes(void) {
  static const char* const kPaths[] = {
      "..",        "../secret",   "escape/secret",           "escape",         "etc/passwd", "etc", "/etc/passwd", "/",
      "a/../../x", "./../secret", "escape/rw/escape/secret", "../rw/../secret"};
  int fd = -1;
  __wasi_size_t done;
  __wasi_filestat_t stat;
  uint8_t text[32];
  EXPECT_OK(__wasi_path_create_directory(kRw, "a"));
  EXPECT_OK(open_at(kRw, "mine", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, &fd));
  EXPECT_OK(__wasi_fd_close(fd));
  for (unsigned i = 0; i < sizeof(kPaths) / sizeof(kPaths[0]); ++i) {
    const char* path = kPaths[i];
    EXPECT(__wasi_path_open(kRw, 1, path, 0, __WASI_RIGHTS_FD_READ, 0, 0, &fd), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_filestat_get(kRw, 1, path, &stat), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_filestat_set_times(kRw, 1, path, 1, 1, 5), __WASI_ERRNO_PERM);
    // What names the link itself is inside; what goes through it is not.
    if (strcmp(path, "escape") == 0 || strcmp(path, "etc") == 0) continue;
    EXPECT(__wasi_path_filestat_get(kRw, 0, path, &stat), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_create_directory(kRw, path), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_unlink_file(kRw, path), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_remove_directory(kRw, path), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_readlink(kRw, path, text, sizeof(text), &done), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_rename(kRw, path, kRw, "stolen"), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_rename(kRw, "mine", kRw, path), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_link(kRw, 0, path, kRw, "stolen"), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_link(kRw, 0, "mine", kRw, path), __WASI_ERRNO_PERM);
    EXPECT(__wasi_path_symlink("mine", kRw, path), __WASI_ERRNO_PERM);
  }
  // A slash behind a link must not lead through it.
  EXPECT(__wasi_path_link(kRw, 0, "escape/", kRw, "stolen"), __WASI_ERRNO_NOTDIR);
  EXPECT(__wasi_path_remove_directory(kRw, "escape/"), __WASI_ERRNO_NOTDIR);
  EXPECT(__wasi_path_symlink("/etc", kRw, "absolute"), __WASI_ERRNO_PERM);
  EXPECT(open_at(kRw, "", 0, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_NOENT);
  EXPECT(__wasi_path_create_directory(kRw, ""), __WASI_ERRNO_NOENT);
  // A link that the guest makes itself leads nowhere either.
  EXPECT_OK(__wasi_path_symlink("../../../../etc", kRw, "own"));
  EXPECT(__wasi_path_open(kRw, 1, "own/passwd", 0, __WASI_RIGHTS_FD_READ, 0, 0, &fd), __WASI_ERRNO_PERM);
  EXPECT_OK(__wasi_path_unlink_file(kRw, "own"));
  EXPECT_OK(__wasi_path_unlink_file(kRw, "mine"));
  EXPECT_OK(__wasi_path_remove_directory(kRw, "a"));
}

static void read_only(void) {
  int fd = -1;
  __wasi_size_t done;
  __wasi_filestat_t stat;
  EXPECT_TRUE(holds(kRo, "file", "read only"));
  EXPECT(open_at(kRo, "file", 0, __WASI_RIGHTS_FD_WRITE, 0, &fd), __WASI_ERRNO_ROFS);
  EXPECT(open_at(kRo, "file", __WASI_OFLAGS_TRUNC, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_ROFS);
  EXPECT(open_at(kRo, "new", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_READ, 0, &fd), __WASI_ERRNO_ROFS);
  EXPECT(open_at(kRo, "new", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, &fd), __WASI_ERRNO_ROFS);
  EXPECT(open_at(kRo, "none", 0, __WASI_RIGHTS_FD_WRITE, 0, &fd), __WASI_ERRNO_NOENT);
  EXPECT_OK(open_at(kRo, "file", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_READ, 0, &fd));
  EXPECT_OK(__wasi_fd_close(fd));
  EXPECT(open_at(kRo, "file", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, __WASI_RIGHTS_FD_READ, 0, &fd),
         __WASI_ERRNO_EXIST);
  EXPECT(__wasi_path_create_directory(kRo, "new"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_unlink_file(kRo, "file"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_remove_directory(kRo, "dir"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_rename(kRo, "file", kRw, "moved"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_symlink("file", kRo, "link"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_filestat_set_times(kRo, 0, "file", 1, 1, 5), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_link(kRo, 0, "file", kRo, "again"), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_path_link(kRo, 0, "file", kRw, "writable"), __WASI_ERRNO_XDEV);
  EXPECT_OK(open_at(kRo, "file", 0, ALL_FILE & ~(__WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_ALLOCATE), 0, &fd));
  EXPECT(__wasi_fd_filestat_set_times(fd, 1, 1, 5), __WASI_ERRNO_ROFS);
  EXPECT(__wasi_fd_filestat_set_size(fd, 0), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_fd_filestat_get(fd, &stat));
  EXPECT(stat.size, 9);
  EXPECT_OK(__wasi_fd_close(fd));
  // A directory opened below stays read-only.
  EXPECT_OK(__wasi_path_open(kRo, 0, "dir", __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS | __WASI_RIGHTS_PATH_CREATE_FILE,
                             __WASI_RIGHTS_FD_WRITE, 0, &fd));
  int inside = -1;
  EXPECT(open_at(fd, "x", __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, &inside), __WASI_ERRNO_ROFS);
  EXPECT_OK(__wasi_fd_close(fd));
  (void)done;
}

// 500 files, read through a buffer that holds a few entries: each comes once.
static void listing(void) {
  static uint8_t seen[500];
  char name[32];
  int fd = -1;
  EXPECT_OK(__wasi_path_create_directory(kRw, "many"));
  for (int i = 0; i < 500; ++i) {
    snprintf(name, sizeof(name), "many/file-%d", i);
    EXPECT_OK(open_at(kRw, name, __WASI_OFLAGS_CREAT, __WASI_RIGHTS_FD_WRITE, 0, &fd));
    EXPECT_OK(__wasi_fd_close(fd));
  }
  int directory = -1, dots = 0, rounds = 0;
  EXPECT_OK(__wasi_path_open(kRw, 0, "many", __WASI_OFLAGS_DIRECTORY, DIR_RIGHTS, 0, 0, &directory));
  __wasi_dircookie_t cookie = __WASI_DIRCOOKIE_START;
  while (++rounds < 1000) {
    uint8_t buffer[200];
    __wasi_size_t used = 0;
    EXPECT_OK(__wasi_fd_readdir(directory, buffer, sizeof(buffer), cookie, &used));
    EXPECT_TRUE(used <= sizeof(buffer));
    __wasi_size_t at = 0;
    while (at + sizeof(__wasi_dirent_t) <= used) {
      __wasi_dirent_t entry;
      memcpy(&entry, buffer + at, sizeof(entry));
      if (at + sizeof(entry) + entry.d_namlen > used) break;
      memcpy(name, buffer + at + sizeof(entry), entry.d_namlen);
      name[entry.d_namlen] = 0;
      int index = -1;
      if (name[0] == '.') {
        ++dots;
        EXPECT(entry.d_type, __WASI_FILETYPE_DIRECTORY);
      } else if (sscanf(name, "file-%d", &index) == 1 && index >= 0 && index < 500) {
        ++seen[index];
        EXPECT(entry.d_type, __WASI_FILETYPE_REGULAR_FILE);
      }
      cookie = entry.d_next;
      at += sizeof(entry) + entry.d_namlen;
    }
    if (used < sizeof(buffer)) break;
  }
  EXPECT(dots, 2);
  for (int i = 0; i < 500; ++i) EXPECT(seen[i], 1);
  uint8_t small[1];
  __wasi_size_t used = 9;
  EXPECT_OK(__wasi_fd_readdir(directory, small, 1, 0, &used));
  EXPECT(used, 1);
  EXPECT_OK(__wasi_fd_readdir(directory, small, 0, 0, &used));
  EXPECT(used, 0);
  EXPECT(__wasi_fd_readdir(directory, small, 1, UINT64_MAX, &used), __WASI_ERRNO_INVAL);
  EXPECT_OK(__wasi_fd_close(directory));
  for (int i = 0; i < 500; ++i) {
    snprintf(name, sizeof(name), "many/file-%d", i);
    EXPECT_OK(__wasi_path_unlink_file(kRw, name));
  }
  EXPECT_OK(__wasi_path_remove_directory(kRw, "many"));
}

static void bounds(void) {
  int fds[1100], count = 0, fd = -1;
  __wasi_errno_t error = 0;
  while (count < 1100 && !(error = open_at(kRo, "file", 0, __WASI_RIGHTS_FD_READ, 0, &fd))) fds[count++] = fd;
  EXPECT(error, __WASI_ERRNO_MFILE);
  EXPECT(count, 1024 - 5);
  for (int i = 0; i < count; ++i) EXPECT_OK(__wasi_fd_close(fds[i]));
  EXPECT(__wasi_sock_shutdown(0, __WASI_SDFLAGS_RD), __WASI_ERRNO_NOTSOCK);
  EXPECT(__wasi_sock_shutdown(99, __WASI_SDFLAGS_RD), __WASI_ERRNO_BADF);
  __wasi_prestat_t prestat;
  EXPECT_OK(__wasi_fd_prestat_get(kRo, &prestat));
  EXPECT(prestat.u.dir.pr_name_len, 3);
  uint8_t name[3];
  EXPECT_OK(__wasi_fd_prestat_dir_name(kRo, name, 3));
  EXPECT(memcmp(name, "/ro", 3), 0);
  EXPECT(__wasi_fd_prestat_dir_name(kRo, name, 2), __WASI_ERRNO_NAMETOOLONG);
  EXPECT(__wasi_fd_prestat_get(5, &prestat), __WASI_ERRNO_BADF);
  EXPECT(__wasi_fd_prestat_get(0, &prestat), __WASI_ERRNO_BADF);
}

int main(void) {
  reading_and_writing();
  rights();
  names();
  escapes();
  read_only();
  listing();
  bounds();
  return finish();
}
