// State as files, from a guest's side: each command is a section of checks, or does one thing and says what it saw.
// Commands of one thing end with the errno.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../../../sdk/c/spore.h"
#include "check.h"

#define STATE "/spore/state/"
static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
#define EXPECT_ERRNO(expression, wanted) EXPECT((expression) < 0 ? errno : 0, wanted)

static long long size_of(const char* path) {
  struct stat info;
  return stat(path, &info) ? -errno : info.st_size;
}

static void expect_bytes(int line, int fd, long long offset, const char* wanted, size_t size) {
  static char got[1 << 16];
  const ssize_t count = pread(fd, got, sizeof(got), offset);
  if (count == (ssize_t)size && !memcmp(got, wanted, size)) return;
  ++failures;
  fprintf(stderr, "line %d: %lld bytes at %lld: '%.*s'\n", line, (long long)count, offset,
          (int)(count > 60 ? 60 : count), got);
}
#define EXPECT_BYTES(fd, offset, wanted, size) expect_bytes(__LINE__, fd, offset, wanted, size)

static int file(void) {
  struct stat info, again;
  int fd = open(STATE "file", O_RDWR);
  EXPECT(fd < 0 ? errno : 0, ENOENT);
  EXPECT(size_of(STATE "file"), -ENOENT);
  fd = open(STATE "file", O_RDWR | O_CREAT | O_EXCL, 0666);
  EXPECT_TRUE(fd >= 0);
  EXPECT_ERRNO(open(STATE "file", O_RDWR | O_CREAT | O_EXCL, 0666), EEXIST);
  EXPECT(size_of(STATE "file"), 0);
  EXPECT(write(fd, letters, 26), 26);
  EXPECT(lseek(fd, 0, SEEK_CUR), 26);
  EXPECT(lseek(fd, 3, SEEK_SET), 3);
  char text[64] = {0};
  EXPECT(read(fd, text, 5), 5);
  EXPECT(memcmp(text, "defgh", 5), 0);
  EXPECT(lseek(fd, -2, SEEK_END), 24);
  EXPECT(read(fd, text, 64), 2);
  EXPECT(read(fd, text, 64), 0);
  EXPECT_ERRNO(lseek(fd, -100, SEEK_CUR), EINVAL);
  EXPECT(pwrite(fd, "XY", 2, 1), 2);
  EXPECT(lseek(fd, 0, SEEK_CUR), 26);
  EXPECT_BYTES(fd, 0, "aXYdefghijklmnopqrstuvwxyz", 26);
  EXPECT_BYTES(fd, 26, "", 0);
  EXPECT_BYTES(fd, 1ll << 40, "", 0);
  // Several buffers, some empty.
  struct iovec parts[] = {{"one", 3}, {0, 0}, {"two", 3}};
  EXPECT(lseek(fd, 20, SEEK_SET), 20);
  EXPECT(writev(fd, parts, 3), 6);
  EXPECT(write(fd, "", 0), 0);
  EXPECT_BYTES(fd, 18, "stonetwo", 8);

  EXPECT(fstat(fd, &info), 0);
  EXPECT(info.st_size, 26);
  EXPECT(S_ISREG(info.st_mode), 1);
  EXPECT(info.st_mtim.tv_sec, 0);
  EXPECT(stat(STATE "file", &again), 0);
  EXPECT_TRUE(info.st_ino == again.st_ino && info.st_dev == again.st_dev && info.st_ino != 0);
  EXPECT(lstat("/spore/./state/fil%65", &again), 0);
  EXPECT_TRUE(info.st_ino == again.st_ino);

  // Behind the end: zeros between, also where something was before.
  EXPECT(ftruncate(fd, 4), 0);
  EXPECT_BYTES(fd, 0, "aXYd", 4);
  EXPECT(pwrite(fd, "z", 1, 9), 1);
  EXPECT_BYTES(fd, 0, "aXYd\0\0\0\0\0z", 10);
  EXPECT(ftruncate(fd, 1 << 20), 0);
  EXPECT(size_of(STATE "file"), 1 << 20);
  EXPECT_BYTES(fd, (1 << 20) - 3, "\0\0", 3);
  EXPECT(posix_fallocate(fd, 0, 10), 0);
  EXPECT(size_of(STATE "file"), 1 << 20);
  EXPECT(posix_fallocate(fd, 1 << 20, 10), 0);
  EXPECT(size_of(STATE "file"), (1 << 20) + 10);
  EXPECT(posix_fadvise(fd, 0, 10, POSIX_FADV_WILLNEED), 0);
  EXPECT_ERRNO(pwrite(fd, "z", 1, 4ll << 30), EFBIG);
  EXPECT_ERRNO(ftruncate(fd, 4ll << 30), EFBIG);
  EXPECT_ERRNO(pwrite(fd, "z", 1, INT64_MAX), EFBIG);
  EXPECT(size_of(STATE "file"), (1 << 20) + 10);

  int appends = open(STATE "file", O_WRONLY | O_APPEND | O_TRUNC);
  EXPECT_TRUE(appends >= 0);
  EXPECT(size_of(STATE "file"), 0);
  EXPECT(write(appends, "12", 2), 2);
  EXPECT(pwrite(fd, "45", 2, 3), 2);
  EXPECT(write(appends, "6", 1), 1);
  EXPECT(lseek(appends, 0, SEEK_CUR), 6);
  EXPECT(pwrite(appends, "7", 1, 0), 1);  // as Linux does
  EXPECT_BYTES(fd, 0,
               "12\0"
               "4567",
               7);
  char byte;
  EXPECT_ERRNO(read(appends, &byte, 1), EBADF);  // wasi-libc's word for ENOTCAPABLE
  EXPECT(fcntl(appends, F_SETFL, 0), 0);
  EXPECT(pwrite(appends, "8", 1, 0), 1);
  EXPECT_BYTES(fd, 0,
               "82\0"
               "4567",
               7);
  EXPECT(close(appends), 0);

  int reads = open(STATE "file", O_RDONLY);
  EXPECT_ERRNO(write(reads, "x", 1), EBADF);
  EXPECT_TRUE(ftruncate(reads, 0) < 0);
  EXPECT(size_of(STATE "file"), 7);
  EXPECT(close(reads), 0);

  // The C library's own buffers.
  FILE* stream = fopen(STATE "lines", "w");
  for (int i = 0; i < 10000; ++i) fprintf(stream, "line %d\n", i);
  EXPECT(fclose(stream), 0);
  stream = fopen(STATE "lines", "r");
  int lines = 0;
  char line[64];
  while (fgets(line, sizeof(line), stream)) ++lines;
  EXPECT(lines, 10000);
  EXPECT(strcmp(line, "line 9999\n"), 0);
  fclose(stream);

  // Away, but open.
  EXPECT(unlink(STATE "file"), 0);
  EXPECT(size_of(STATE "file"), -ENOENT);
  EXPECT_ERRNO(unlink(STATE "file"), ENOENT);
  EXPECT_BYTES(fd, 0,
               "82\0"
               "4567",
               7);
  EXPECT_ERRNO(pwrite(fd, "x", 1, 0), ESTALE);
  EXPECT_ERRNO(pwrite(fd, "x", 1, 100), ESTALE);
  EXPECT_ERRNO(ftruncate(fd, 100), ESTALE);
  EXPECT_ERRNO(ftruncate(fd, 1), ESTALE);
  EXPECT_ERRNO(fsync(fd), ESTALE);
  int other = open(STATE "file", O_RDWR | O_CREAT, 0666);
  EXPECT(fstat(other, &again), 0);
  EXPECT(again.st_size, 0);
  EXPECT_ERRNO(pwrite(fd, "x", 1, 0), ESTALE);
  EXPECT(close(fd), 0);
  EXPECT(close(other), 0);
  EXPECT_ERRNO(fsync(other), EBADF);
  return finish();
}

// What is no file of state, and what files of state are not.
static int refused(void) {
  const int fd = open(STATE "value", O_RDWR | O_CREAT, 0666);
  EXPECT(write(fd, letters, 26), 26);
  static char key[520];
  static char path[5000];
  memset(key, 'k', sizeof(key) - 1);
  key[512] = 0;
  snprintf(path, sizeof(path), STATE "%s", key);
  EXPECT(size_of(path), -ENOENT);
  key[512] = 'k';
  snprintf(path, sizeof(path), STATE "%s", key);
  EXPECT(size_of(path), -ENAMETOOLONG);
  for (int i = 0; i < 512; ++i) strcpy(path + strlen(STATE) + 3 * i, "%6B");
  EXPECT(size_of(path), -ENOENT);
  static const struct {
    const char* path;
    int error;
  } kPaths[] = {
      {STATE "%", EINVAL},         {STATE "%4", EINVAL},     {STATE "%zz", EINVAL},
      {STATE "%00", EINVAL},       {STATE "a%00b", EINVAL},  {STATE "\xff", EINVAL},
      {STATE "%FF", EINVAL},       {STATE "%C0%80", EINVAL}, {STATE "a//b", EINVAL},
      {STATE "a/./b", EINVAL},     {STATE "./a/", ENOTDIR},  {STATE "value/", ENOTDIR},
      {STATE "a//", EINVAL},       {STATE "..", EPERM},      {STATE "../input", EPERM},
      {STATE "../state/a", EPERM}, {STATE "a/../b", EPERM},  {STATE "a/..", EPERM},
      {STATE "../../etc", EPERM},  {STATE "../", EPERM},     {STATE "value/x", ENOENT},
      {STATE "/value", EINVAL},    {"/spore/stat", ENOENT},  {"/spore/statefull", ENOENT},
      {"/spore/input/a", ENOTDIR}, {"/spore/../x", EPERM},   {"/spore/state%2Fvalue", ENOENT},
  };
  for (size_t i = 0; i < sizeof(kPaths) / sizeof(kPaths[0]); ++i) {
    // libc takes a leading "./" and nothing else away, but only of relative paths.
    const int wanted = strcmp(kPaths[i].path, STATE "./a/") ? kPaths[i].error : EINVAL;
    const int before = failures;
    EXPECT_ERRNO(open(kPaths[i].path, O_RDONLY), wanted);
    if (failures == before) EXPECT(size_of(kPaths[i].path), -wanted);
    if (failures != before) fprintf(stderr, "  for %s\n", kPaths[i].path);
  }
  // Keys that look like ways out are keys.
  static const char* kOdd[] = {
      "%2E%2E", "%2E%2E%2Finput", "a%2F..%2F..%2Fb", "{x}",           "%25",  "%2F", "a%2F%2Fb", "%2E", "a b", "...",
      "..a",    "a/b/c",          "\xc3\xa9",        "%C3%A9t%C3%A9", "a\nb", "%01", "x%2F"};
  for (size_t i = 0; i < sizeof(kOdd) / sizeof(kOdd[0]); ++i) {
    snprintf(path, sizeof(path), STATE "%s", kOdd[i]);
    const int odd = open(path, O_RDWR | O_CREAT | O_EXCL, 0666);
    EXPECT_TRUE(odd >= 0);
    EXPECT(write(odd, kOdd[i], strlen(kOdd[i])), strlen(kOdd[i]));
    EXPECT(close(odd), 0);
    EXPECT(size_of(path), strlen(kOdd[i]));
  }
  EXPECT(size_of(STATE "a%2Fb%2Fc"), 5);
  EXPECT(spore_state_size("../input", 8), strlen("%2E%2E%2Finput"));
  EXPECT(spore_state_size("\xc3\xa9t\xc3\xa9", 5), strlen("%C3%A9t%C3%A9"));

  EXPECT_ERRNO(open(STATE "value", O_RDONLY | O_DIRECTORY), ENOTDIR);
  EXPECT_ERRNO(open(STATE "none", O_RDONLY | O_DIRECTORY), ENOENT);
  EXPECT_ERRNO(open("/spore/state", O_WRONLY), EISDIR);
  EXPECT_ERRNO(open("/spore/state", O_RDONLY | O_CREAT | O_EXCL, 0666), EEXIST);
  EXPECT_ERRNO(open("/spore/new", O_WRONLY | O_CREAT, 0666), EROFS);
  EXPECT_ERRNO(unlink("/spore/state"), EROFS);
  EXPECT_ERRNO(rmdir("/spore/state"), EROFS);
  EXPECT_ERRNO(rename("/spore/state", "/spore/other"), EROFS);
  EXPECT_ERRNO(mkdir("/spore/state", 0777), EROFS);
  EXPECT_ERRNO(unlink(STATE "value/"), ENOTDIR);

  // os.makedirs() and open() of what is below do, with no directory there.
  EXPECT(mkdir(STATE "d", 0777), 0);
  EXPECT(mkdir(STATE "d/e/", 0777), 0);
  EXPECT(size_of(STATE "d"), -ENOENT);
  EXPECT_ERRNO(mkdir(STATE "value", 0777), EEXIST);
  EXPECT_ERRNO(mkdir(STATE "a/../x", 0777), EPERM);
  EXPECT_ERRNO(rmdir(STATE "d"), ENOTDIR);
  EXPECT_ERRNO(rename(STATE "value", STATE "other"), ENOTSUP);
  EXPECT_ERRNO(rename(STATE "value", "/here"), EXDEV);
  EXPECT_ERRNO(rename("/here", STATE "value"), EXDEV);
  EXPECT_ERRNO(rename(STATE "value", "/spore/other"), EXDEV);
  EXPECT_ERRNO(link(STATE "value", STATE "other"), ENOTSUP);
  EXPECT_ERRNO(link(STATE "value", "/here"), EXDEV);
  EXPECT_ERRNO(symlink("value", STATE "other"), ENOTSUP);
  EXPECT_ERRNO(readlink(STATE "value", path, sizeof(path)), EINVAL);
  const struct timespec times[2] = {{1, 0}, {2, 0}};
  EXPECT_ERRNO(utimensat(AT_FDCWD, STATE "value", times, 0), ENOTSUP);
  EXPECT_TRUE(futimens(fd, times) < 0);
  EXPECT(size_of(STATE "value"), 26);
  EXPECT(size_of("/here"), -ENOENT);

  // From the directory's own descriptor.
  const int directory = open("/spore/state", O_RDONLY | O_DIRECTORY);
  struct stat info;
  EXPECT(fstat(directory, &info), 0);
  EXPECT(S_ISDIR(info.st_mode), 1);
  EXPECT(fsync(directory), 0);
  EXPECT(fstatat(directory, "value", &info, 0), 0);
  EXPECT(info.st_size, 26);
  EXPECT(fstatat(directory, ".", &info, 0), 0);
  EXPECT(S_ISDIR(info.st_mode), 1);
  EXPECT_ERRNO(openat(directory, "..", O_RDONLY), EPERM);
  EXPECT_ERRNO(openat(directory, "../input", O_RDONLY), EPERM);
  EXPECT_ERRNO(openat(directory, "", O_RDONLY), ENOENT);
  const int again = openat(directory, "./", O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(again >= 0);
  EXPECT(fstatat(again, "a%2Fb%2Fc", &info, 0), 0);
  EXPECT(fstatat(again, "a/b/c", &info, 0), 0);
  char byte;
  EXPECT_ERRNO(read(directory, &byte, 1), EBADF);  // a directory has no right to read
  EXPECT(unlinkat(again, "value", 0), 0);
  EXPECT(size_of(STATE "value"), -ENOENT);

  // Pointers outside memory change nothing.
  __wasi_iovec_t outside = {(uint8_t*)0xfffffff0u, 8};
  __wasi_size_t count;
  const int last = open(STATE "last", O_RDWR | O_CREAT, 0666);
  EXPECT(__wasi_fd_read(last, &outside, 1, &count), __WASI_ERRNO_FAULT);
  EXPECT(__wasi_fd_write(last, (const __wasi_ciovec_t*)&outside, 1, &count), __WASI_ERRNO_FAULT);
  EXPECT(__wasi_fd_readdir(directory, (uint8_t*)0xfffffff0u, 8, 0, &count), __WASI_ERRNO_FAULT);
  EXPECT(size_of(STATE "last"), 0);
  return finish();
}

static int seen_before;
static char last_name[2000];
// Lists with buffers of that size; how many names.
static int list_with(uint32_t bytes, int from) {
  static uint8_t buffer[65536];
  const int fd = open("/spore/state", O_RDONLY | O_DIRECTORY);
  uint64_t cookie = (uint64_t)from;
  int names = 0;
  seen_before = 0;
  for (;;) {
    __wasi_size_t used = 0;
    EXPECT_OK(__wasi_fd_readdir(fd, buffer, bytes, cookie, &used));
    uint32_t at = 0;
    for (;;) {
      __wasi_dirent_t head;
      if (at + sizeof(head) > used) break;
      memcpy(&head, buffer + at, sizeof(head));
      if (at + sizeof(head) + head.d_namlen > used) break;
      const char* name = (const char*)buffer + at + sizeof(head);
      cookie = head.d_next;
      at += sizeof(head) + head.d_namlen;
      if (head.d_type != __WASI_FILETYPE_REGULAR_FILE) continue;
      // Sorted, so none comes twice.
      char text[2000];
      memcpy(text, name, head.d_namlen);
      text[head.d_namlen] = 0;
      if (names > 0 && strcmp(last_name, text) >= 0) ++seen_before;
      strcpy(last_name, text);
      ++names;
    }
    if (used < bytes) break;
    EXPECT_TRUE(at > 0);
    if (at == 0) break;
  }
  close(fd);
  EXPECT(seen_before, 0);
  return names;
}

static int list(void) {
  char path[64];
  for (int i = 0; i < 1500; ++i) {
    snprintf(path, sizeof(path), STATE "k%04d%%2F", i);
    const int fd = open(path, O_WRONLY | O_CREAT, 0666);
    EXPECT_TRUE(fd >= 0);
    if (i % 3 == 0) EXPECT(fsync(fd), 0);
    EXPECT(close(fd), 0);
  }
  EXPECT(list_with(64, 0), 1500);
  EXPECT(strcmp(last_name, "k1499%2F"), 0);
  EXPECT(list_with(100, 0), 1500);
  EXPECT(list_with(4096, 0), 1500);
  EXPECT(list_with(65536, 0), 1500);
  EXPECT(list_with(4096, 1400), 102);
  EXPECT(list_with(4096, 1501), 1);
  EXPECT(list_with(4096, 1502), 0);
  EXPECT(list_with(4096, 100000), 0);

  // With readdir(), forwards and back.
  DIR* directory = opendir("/spore/state");
  struct dirent* entry;
  int count = 0, dots = 0;
  long middle = 0;
  while ((entry = readdir(directory))) {
    if (entry->d_name[0] == '.') {
      ++dots;
      continue;
    }
    snprintf(path, sizeof(path), "k%04d%%2F", count++);
    EXPECT(strcmp(entry->d_name, path), 0);
    struct stat info;
    if (count % 100 == 0) {
      EXPECT(fstatat(dirfd(directory), entry->d_name, &info, 0), 0);
      EXPECT_TRUE(info.st_ino == entry->d_ino);
    }
    if (count == 700) middle = telldir(directory);
  }
  EXPECT(count, 1500);
  EXPECT(dots, 2);
  seekdir(directory, middle);
  entry = readdir(directory);
  EXPECT(entry ? strcmp(entry->d_name, "k0700%2F") : -1, 0);
  // While it is read, everything goes.
  rewinddir(directory);
  count = 0;
  while ((entry = readdir(directory))) {
    if (entry->d_name[0] == '.') continue;
    EXPECT(unlinkat(dirfd(directory), entry->d_name, 0), 0);
    ++count;
  }
  EXPECT(count, 1500);
  EXPECT(closedir(directory), 0);
  EXPECT(list_with(4096, 0), 0);
  // A name longer than the C library's buffer for names.
  char key[512], name[2000] = STATE;
  memset(key, '/', sizeof(key));
  EXPECT_TRUE(spore_state_map_(key, 512, 10, 0) > 0);
  EXPECT(list_with(4096, 0), 1);
  EXPECT(strlen(last_name), 3 * 512);
  strcat(name, last_name);
  EXPECT(size_of(name), 10);
  return finish();
}

// A window and a file of the same value.
static int window(void) {
  const int fd = open(STATE "shared", O_RDWR | O_CREAT, 0666);
  EXPECT(ftruncate(fd, 100000), 0);
  char* bytes = spore_state_map("shared", 0, 0, 0);
  EXPECT_TRUE(bytes);
  if (!bytes) return finish();
  EXPECT(pwrite(fd, "by the file", 11, 70000), 11);
  EXPECT(memcmp(bytes + 70000, "by the file", 11), 0);
  memcpy(bytes + 5, "by the window", 13);
  char text[16] = {0};
  EXPECT(pread(fd, text, 13, 5), 13);
  EXPECT(memcmp(text, "by the window", 13), 0);
  // From the value into itself, and from one into another; growing meanwhile.
  EXPECT(pwrite(fd, bytes, 1000, 99500), 1000);
  EXPECT(size_of(STATE "shared"), 100500);
  EXPECT(memcmp(bytes + 99500, bytes, 500), 0);
  EXPECT(pread(fd, bytes + 20, 5, 70000), 5);
  EXPECT(memcmp(bytes + 20, "by th", 5), 0);
  // Into a window for reading only: nothing is there to write to.
  const char* read_only = spore_state_map("shared", 0, SPORE_STATE_READ_ONLY, 0);
  EXPECT_ERRNO(pread(fd, (void*)read_only, 5, 0), EFAULT);
  return finish();
}

static int one(int argc, char** argv) {
  const char* command = argv[1];
  char path[2000];
  snprintf(path, sizeof(path), STATE "%s", argc > 2 ? argv[2] : "");
  errno = 0;
  if (!strcmp(command, "put")) {  // KEY TEXT [MODE]
    const char* mode = argc > 4 ? argv[4] : "";
    const int fd = open(path,
                        O_WRONLY | O_CREAT | (strchr(mode, 'a') ? O_APPEND : 0) | (strchr(mode, 't') ? O_TRUNC : 0) |
                            (strchr(mode, 's') ? O_SYNC : 0) | (strchr(mode, 'd') ? O_DSYNC : 0) |
                            (strchr(mode, 'r') ? O_RSYNC : 0),
                        0666);
    if (fd < 0) return errno;
    if (write(fd, argv[3], strlen(argv[3])) != (ssize_t)strlen(argv[3])) return errno;
    if (strchr(mode, 'f') && fsync(fd)) return errno;
    if (strchr(mode, 'F') && fdatasync(fd)) return errno;
    return close(fd) ? errno : 0;
  }
  if (!strcmp(command, "get")) {  // KEY [r]
    static char bytes[1 << 20];
    const int fd = open(path, O_RDONLY | (argc > 3 ? O_RSYNC : 0));
    if (fd < 0) return errno;
    ssize_t count;
    while ((count = read(fd, bytes, sizeof(bytes))) > 0)
      if (write(1, bytes, (size_t)count) != count) return 101;
    return count < 0 ? errno : 0;
  }
  if (!strcmp(command, "stat")) {
    const long long size = size_of(path);
    if (size >= 0) printf("%lld", size);
    return size < 0 ? (int)-size : 0;
  }
  if (!strcmp(command, "at")) {  // KEY OFFSET: one byte there
    const int fd = open(path, O_RDONLY);
    if (fd < 0) return errno;
    char byte;
    if (pread(fd, &byte, 1, atoll(argv[3])) != 1) return errno ? errno : 102;
    return write(1, &byte, 1) < 0;
  }
  if (!strcmp(command, "create")) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    return fd < 0 ? errno : 0;
  }
  if (!strcmp(command, "remove")) return unlink(path) ? errno : 0;
  if (!strcmp(command, "mkdir")) return mkdir(path, 0777) ? errno : 0;
  if (!strcmp(command, "sync")) {
    const int fd = open(path, O_RDONLY);
    if (fd < 0) return errno;
    return fsync(fd) ? errno : 0;
  }
  if (!strcmp(command, "size")) {  // KEY BYTES [a]: sets it, or allocates
    const int fd = open(path, O_WRONLY | O_CREAT, 0666);
    if (fd < 0) return errno;
    if (argc > 4) return posix_fallocate(fd, 0, atoll(argv[3]));
    return ftruncate(fd, atoll(argv[3])) ? errno : 0;
  }
  if (!strcmp(command, "appends")) {  // KEY COUNT
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0) return errno;
    for (int i = 0; i < atoi(argv[3]); ++i)
      if (write(fd, "0123456789\n", 11) != 11) return errno;
    return 0;
  }
  if (!strcmp(command, "ls")) {  // DIRECTORY
    DIR* directory = opendir(argv[2]);
    if (!directory) return errno;
    struct dirent* entry;
    while ((entry = readdir(directory)))
      if (entry->d_name[0] != '.') printf("%s%s\n", entry->d_name, entry->d_type == DT_DIR ? "/" : "");
    return 0;
  }
  return 98;
}

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "";
  if (!strcmp(command, "file")) return file();
  if (!strcmp(command, "refused")) return refused();
  if (!strcmp(command, "list")) return list();
  if (!strcmp(command, "window")) return window();
  return one(argc, argv);
}
