// The functions on an open descriptor.
#include "spec.h"

static const u64 kMax = INT64_MAX;  // the last offset that a file can have

// Every function that takes a descriptor says so of a number that none has.
#define EXPECT_NO_DESCRIPTOR(call)                                                              \
  do {                                                                                          \
    static const u32 kNumbers[] = {kClosed, 1023, 1024, 0x7fffffffu, 0x80000000u, 0xffffffffu}; \
    for (int n_ = 0; n_ < 6; ++n_) {                                                            \
      const u32 fd = kNumbers[n_];                                                              \
      EXPECT(call, E(BADF));                                                                    \
    }                                                                                           \
  } while (0)

SECTION(fd_advise) {
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  for (u32 advice = 0; advice <= 5; ++advice) EXPECT_OK(raw_fd_advise(fd, 0, 0, advice));
  EXPECT_OK(raw_fd_advise(fd, kMax, 0, 0));
  EXPECT_OK(raw_fd_advise(fd, 0, kMax, 0));
  EXPECT_OK(raw_fd_advise(fd, kMax, kMax, 0));
  EXPECT(raw_fd_advise(fd, 0, 0, 6), E(INVAL));
  EXPECT(raw_fd_advise(fd, 0, 0, 256), E(INVAL));
  EXPECT(raw_fd_advise(fd, kMax + 1, 0, 0), E(INVAL));
  EXPECT(raw_fd_advise(fd, 0, UINT64_MAX, 0), E(INVAL));
  EXPECT(raw_fd_advise(kRw, 0, 0, 0), E(BADF));  // a directory is not read by its descriptor
  EXPECT(raw_fd_advise(0, 0, 0, 0), E(NOTCAPABLE));
  EXPECT_FILE_RIGHT("a", FD_ADVISE, 0, raw_fd_advise((u32)fd, 0, 0, 0));
  EXPECT_NO_DESCRIPTOR(raw_fd_advise(fd, 0, 0, 0));
}

SECTION(fd_allocate) {
  make_file("a", "text");
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  EXPECT_OK(raw_fd_allocate(fd, 0, 2));  // never shorter
  EXPECT(size_of((int)fd), 4);
  EXPECT_OK(raw_fd_allocate(fd, 4, 4));
  EXPECT(size_of((int)fd), 8);
  EXPECT_OK(raw_fd_allocate(fd, 100, 28));
  EXPECT(size_of((int)fd), 128);
  uint8_t bytes[8] = {0};
  const __wasi_iovec_t vector = {bytes, 8};
  u32 done = 0;
  EXPECT_OK(raw_fd_read(fd, at(&vector), 1, at(&done)));
  EXPECT(done, 8);
  EXPECT(memcmp(bytes, "text\0\0\0\0", 8), 0);
  EXPECT(raw_fd_allocate(fd, 0, 0), E(INVAL));
  EXPECT(raw_fd_allocate(fd, kMax + 1, 1), E(INVAL));
  EXPECT(raw_fd_allocate(fd, 0, kMax + 1), E(INVAL));
  EXPECT(raw_fd_allocate(fd, kMax, 1), E(FBIG));
  EXPECT(raw_fd_allocate(fd, 1, kMax), E(FBIG));
  EXPECT(size_of((int)fd), 128);
  EXPECT(raw_fd_allocate(kRw, 0, 1), E(NOTCAPABLE));
  EXPECT(raw_fd_allocate(1, 0, 1), E(NOTCAPABLE));
  EXPECT_FILE_RIGHT("a", FD_ALLOCATE, 0, raw_fd_allocate((u32)fd, 0, 1));
  EXPECT_NO_DESCRIPTOR(raw_fd_allocate(fd, 0, 1));
}

SECTION(fd_close) {
  // The lowest free number is the next, also among those of the standard streams and preopened directories.
  const int first = open_file("a", FILE_RIGHTS), second = open_file("b", FILE_RIGHTS);
  EXPECT(first, kFirstFree);
  EXPECT(second, kFirstFree + 1);
  EXPECT_OK(raw_fd_close((u32)first));
  EXPECT(raw_fd_close((u32)first), E(BADF));
  EXPECT(open_file("c", FILE_RIGHTS), first);
  EXPECT_OK(raw_fd_close(0));
  EXPECT(raw_fd_close(0), E(BADF));
  EXPECT(open_file("d", FILE_RIGHTS), 0);
  EXPECT_OK(raw_fd_close(0));
  EXPECT_OK(raw_fd_close(kRo));
  __wasi_prestat_t prestat;
  EXPECT(raw_fd_prestat_get(kRo, at(&prestat)), E(BADF));
  EXPECT(open_file("e", FILE_RIGHTS), 0);
  EXPECT(open_file("e", FILE_RIGHTS), kRo);
  EXPECT(raw_fd_prestat_get(kRo, at(&prestat)), E(BADF));  // a number, not a directory, was free
  // A file lives on without its name, and the number without a file is nobody's.
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("b")));
  EXPECT(size_of(second), 0);
  EXPECT_OK(raw_fd_close((u32)second));
  EXPECT_NO_DESCRIPTOR(raw_fd_close(fd));
}

SECTION(fd_datasync) {
  EXPECT_OK(raw_fd_datasync(kRw));
  EXPECT(raw_fd_datasync(0), E(NOTCAPABLE));
  EXPECT_FILE_RIGHT("a", FD_DATASYNC, 0, raw_fd_datasync((u32)fd));
  EXPECT_DIRECTORY_RIGHT(FD_DATASYNC, 0, raw_fd_datasync((u32)fd));
  EXPECT_NO_DESCRIPTOR(raw_fd_datasync(fd));
}

SECTION(fd_sync) {
  EXPECT_OK(raw_fd_sync(kRw));
  EXPECT(raw_fd_sync(1), E(NOTCAPABLE));
  EXPECT_FILE_RIGHT("a", FD_SYNC, 0, raw_fd_sync((u32)fd));
  EXPECT_DIRECTORY_RIGHT(FD_SYNC, 0, raw_fd_sync((u32)fd));
  EXPECT_NO_DESCRIPTOR(raw_fd_sync(fd));
}

SECTION(fd_fdstat_get) {
  __wasi_fdstat_t stat;
  u32 fd = 0;
  EXPECT_OK(raw_path_open(kRw, 0, PATH("a"), __WASI_OFLAGS_CREAT, R(FD_READ) | R(FD_WRITE), 0, __WASI_FDFLAGS_APPEND,
                          at(&fd)));
  memset(&stat, 0xff, sizeof(stat));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT(stat.fs_flags, __WASI_FDFLAGS_APPEND);
  EXPECT(stat.fs_rights_base, R(FD_READ) | R(FD_WRITE));
  EXPECT(stat.fs_rights_inheriting, 0);
  EXPECT_OK(raw_fd_fdstat_get(kRw, at(&stat)));
  EXPECT(stat.fs_filetype, __WASI_FILETYPE_DIRECTORY);
  EXPECT(stat.fs_rights_base & DIRECTORY_RIGHTS, DIRECTORY_RIGHTS);
  EXPECT(stat.fs_rights_inheriting & (FILE_RIGHTS | DIRECTORY_RIGHTS), FILE_RIGHTS | DIRECTORY_RIGHTS);
  EXPECT(stat.fs_rights_base & (R(FD_READ) | R(FD_WRITE) | R(FD_SEEK)), 0);
  // What a terminal is not: seekable streams that are no character device.
  EXPECT_OK(raw_fd_fdstat_get(0, at(&stat)));
  EXPECT(stat.fs_rights_base & (R(FD_READ) | R(FD_WRITE)), R(FD_READ));
  EXPECT_OK(raw_fd_fdstat_get(1, at(&stat)));
  EXPECT(stat.fs_rights_base & (R(FD_READ) | R(FD_WRITE)), R(FD_WRITE));
  EXPECT_FAULTS(sizeof(stat), raw_fd_fdstat_get(fd, p));
  EXPECT_LAST_BYTES(sizeof(stat), raw_fd_fdstat_get(fd, p));
  EXPECT_NO_DESCRIPTOR(raw_fd_fdstat_get(fd, at(&stat)));
}

SECTION(fd_fdstat_set_flags) {
  __wasi_fdstat_t stat;
  make_file("a", "12");
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  EXPECT_OK(raw_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_APPEND | __WASI_FDFLAGS_NONBLOCK));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_flags, __WASI_FDFLAGS_APPEND | __WASI_FDFLAGS_NONBLOCK);
  const __wasi_ciovec_t vector = {(const uint8_t*)"3", 1};
  u32 done = 0;
  EXPECT_OK(raw_fd_write(fd, at(&vector), 1, at(&done)));
  EXPECT_OK(raw_fd_fdstat_set_flags(fd, 0));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_flags, 0);
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(fd, 0, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_write(fd, at(&vector), 1, at(&done)));
  EXPECT_TRUE(holds(kRw, "a", "323"));
  EXPECT(raw_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_DSYNC), E(NOTSUP));
  EXPECT(raw_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_RSYNC), E(NOTSUP));
  EXPECT(raw_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_SYNC), E(NOTSUP));
  EXPECT(raw_fd_fdstat_set_flags(fd, 32), E(INVAL));
  EXPECT(raw_fd_fdstat_set_flags(fd, 0x10000), E(INVAL));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_flags, 0);
  EXPECT_FILE_RIGHT("a", FD_FDSTAT_SET_FLAGS, 0, raw_fd_fdstat_set_flags((u32)fd, __WASI_FDFLAGS_APPEND));
  EXPECT_NO_DESCRIPTOR(raw_fd_fdstat_set_flags(fd, 0));
}

SECTION(fd_fdstat_set_rights) {
  __wasi_fdstat_t stat;
  const u32 fd = (u32)open_directory(".", DIRECTORY_RIGHTS);
  const u64 base = R(PATH_OPEN) | R(FD_READDIR), inheriting = R(FD_READ);
  EXPECT_OK(raw_fd_fdstat_set_rights(fd, DIRECTORY_RIGHTS, FILE_RIGHTS | DIRECTORY_RIGHTS));  // as they are
  EXPECT_OK(raw_fd_fdstat_set_rights(fd, base, inheriting));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_rights_base, base);
  EXPECT(stat.fs_rights_inheriting, inheriting);
  EXPECT(raw_fd_fdstat_set_rights(fd, base | R(PATH_SYMLINK), inheriting), E(NOTCAPABLE));
  EXPECT(raw_fd_fdstat_set_rights(fd, base, inheriting | R(FD_WRITE)), E(NOTCAPABLE));
  EXPECT(raw_fd_fdstat_set_rights(fd, 1ull << 63, 0), E(NOTCAPABLE));
  EXPECT_OK(raw_fd_fdstat_get(fd, at(&stat)));
  EXPECT(stat.fs_rights_base, base);
  // What is given up is not got back by opening the directory anew through it.
  u32 again = 0;
  EXPECT(raw_path_open(fd, 0, PATH("."), __WASI_OFLAGS_DIRECTORY, base, 0, 0, at(&again)), E(NOTCAPABLE));
  EXPECT_OK(raw_path_open(fd, 0, PATH("."), __WASI_OFLAGS_DIRECTORY, R(FD_READ), 0, 0, at(&again)));
  EXPECT_OK(raw_fd_fdstat_set_rights(fd, 0, 0));
  EXPECT(raw_path_open(fd, 0, PATH("."), 0, 0, 0, 0, at(&again)), E(NOTCAPABLE));
  EXPECT_NO_DESCRIPTOR(raw_fd_fdstat_set_rights(fd, 0, 0));
}

SECTION(fd_filestat_get) {
  __wasi_filestat_t stat, other;
  make_file("a", "12345");
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  memset(&stat, 0xff, sizeof(stat));
  EXPECT_OK(raw_fd_filestat_get(fd, at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT(stat.size, 5);
  EXPECT(stat.nlink, 1);
  EXPECT_TRUE(stat.ino != 0);
  u64 now = 0;
  EXPECT_OK(raw_clock_time_get(__WASI_CLOCKID_REALTIME, 0, at(&now)));
  // The clock of a file system may be a tick behind, not an hour off.
  const u64 hour = 3600ull * 1000000000;
  EXPECT_TRUE(stat.mtim > now - hour && stat.mtim < now + hour && stat.ctim > now - hour && stat.atim > now - hour);
  // Two names, one file; another file is another.
  EXPECT_OK(raw_path_link(kRw, 0, PATH("a"), kRw, PATH("b")));
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("b"), at(&other)));
  EXPECT(other.ino, stat.ino);
  EXPECT(other.dev, stat.dev);
  EXPECT(other.nlink, 2);
  EXPECT_OK(raw_fd_filestat_get(kRw, at(&other)));
  EXPECT(other.filetype, __WASI_FILETYPE_DIRECTORY);
  EXPECT_TRUE(other.ino != stat.ino);
  EXPECT_OK(raw_fd_filestat_get(1, at(&other)));
  EXPECT_FAULTS(sizeof(stat), raw_fd_filestat_get(fd, p));
  EXPECT_LAST_BYTES(sizeof(stat), raw_fd_filestat_get(fd, p));
  EXPECT_FILE_RIGHT("a", FD_FILESTAT_GET, 0, raw_fd_filestat_get((u32)fd, at(&stat)));
  EXPECT_NO_DESCRIPTOR(raw_fd_filestat_get(fd, at(&stat)));
}

SECTION(fd_filestat_set_size) {
  make_file("a", "12345");
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(fd, 4, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_filestat_set_size(fd, 2));
  EXPECT_TRUE(holds(kRw, "a", "12"));
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 4);                                  // stays where it is
  EXPECT_OK(raw_fd_filestat_set_size(fd, 1ull << 33));  // a hole, longer than a 32 bit size can tell
  EXPECT(size_of((int)fd), 1ull << 33);
  EXPECT_OK(raw_fd_filestat_set_size(fd, 0));
  EXPECT(size_of((int)fd), 0);
  EXPECT(raw_fd_filestat_set_size(fd, kMax + 1), E(INVAL));
  EXPECT(raw_fd_filestat_set_size(fd, UINT64_MAX), E(INVAL));
  EXPECT(raw_fd_filestat_set_size(kRw, 0), E(NOTCAPABLE));
  EXPECT(raw_fd_filestat_set_size(1, 0), E(NOTCAPABLE));
  // The right alone does not open a file for writing.
  const u32 reader = (u32)open_file("a", R(FD_READ) | R(FD_FILESTAT_SET_SIZE));
  EXPECT(raw_fd_filestat_set_size(reader, 1), E(INVAL));
  EXPECT_FILE_RIGHT("a", FD_FILESTAT_SET_SIZE, 0, raw_fd_filestat_set_size((u32)fd, 1));
  EXPECT_NO_DESCRIPTOR(raw_fd_filestat_set_size(fd, 0));
}

SECTION(fd_filestat_set_times) {
  enum {
    kA = __WASI_FSTFLAGS_ATIM,
    kAN = __WASI_FSTFLAGS_ATIM_NOW,
    kM = __WASI_FSTFLAGS_MTIM,
    kMN = __WASI_FSTFLAGS_MTIM_NOW
  };
  __wasi_filestat_t stat;
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  const u64 late = 4000000000ull * 1000000000 + 999999999;  // in 2096
  EXPECT_OK(raw_fd_filestat_set_times(fd, 1, late, kA | kM));
  EXPECT_OK(raw_fd_filestat_get(fd, at(&stat)));
  EXPECT(stat.atim, 1);
  EXPECT(stat.mtim, late);
  EXPECT_OK(raw_fd_filestat_set_times(fd, 2, 2, 0));  // nothing to change
  EXPECT_OK(raw_fd_filestat_set_times(fd, 2, 2, kA));
  EXPECT_OK(raw_fd_filestat_get(fd, at(&stat)));
  EXPECT(stat.atim, 2);
  EXPECT(stat.mtim, late);
  EXPECT_OK(raw_fd_filestat_set_times(fd, 3, 3, kAN | kM));
  EXPECT_OK(raw_fd_filestat_get(fd, at(&stat)));
  EXPECT_TRUE(stat.atim > 1600000000ull * 1000000000);
  EXPECT(stat.mtim, 3);
  EXPECT_OK(raw_fd_filestat_set_times(fd, 0, 0, kMN));
  EXPECT_OK(raw_fd_filestat_get(fd, at(&stat)));
  EXPECT_TRUE(stat.mtim > 1600000000ull * 1000000000);
  EXPECT_OK(raw_fd_filestat_set_times(kRw, 5, 6, kA | kM));
  EXPECT(raw_fd_filestat_set_times(fd, 1, 1, kA | kAN), E(INVAL));
  EXPECT(raw_fd_filestat_set_times(fd, 1, 1, kM | kMN), E(INVAL));
  EXPECT(raw_fd_filestat_set_times(fd, 1, 1, 16), E(INVAL));
  EXPECT(raw_fd_filestat_set_times(fd, 1, 1, 0x10000), E(INVAL));
  EXPECT(raw_fd_filestat_set_times(kRo, 1, 1, kA | kM), E(ROFS));
  EXPECT(raw_fd_filestat_set_times(0, 1, 1, kA), E(NOTCAPABLE));
  EXPECT_FILE_RIGHT("a", FD_FILESTAT_SET_TIMES, 0, raw_fd_filestat_set_times((u32)fd, 1, 1, kA));
  EXPECT_DIRECTORY_RIGHT(FD_FILESTAT_SET_TIMES, 0, raw_fd_filestat_set_times((u32)fd, 1, 1, kA));
  EXPECT_NO_DESCRIPTOR(raw_fd_filestat_set_times(fd, 1, 1, kA));
}

SECTION(fd_prestat_get) {
  __wasi_prestat_t prestat;
  memset(&prestat, 0xff, sizeof(prestat));
  EXPECT_OK(raw_fd_prestat_get(kRw, at(&prestat)));
  EXPECT(prestat.tag, __WASI_PREOPENTYPE_DIR);
  EXPECT(prestat.u.dir.pr_name_len, 3);
  EXPECT_OK(raw_fd_prestat_get(kRo, at(&prestat)));
  EXPECT(prestat.u.dir.pr_name_len, 9);
  // The end of the preopened directories: that is how a program finds them all.
  EXPECT(raw_fd_prestat_get(kFirstFree, at(&prestat)), E(BADF));
  for (u32 stream = 0; stream < 3; ++stream) EXPECT(raw_fd_prestat_get(stream, at(&prestat)), E(BADF));
  const u32 fd = (u32)open_directory(".", DIRECTORY_RIGHTS);
  EXPECT(raw_fd_prestat_get(fd, at(&prestat)), E(BADF));
  EXPECT_FAULTS(sizeof(prestat), raw_fd_prestat_get(kRw, p));
  EXPECT_LAST_BYTES(sizeof(prestat), raw_fd_prestat_get(kRw, p));
  EXPECT_NO_DESCRIPTOR(raw_fd_prestat_get(fd, at(&prestat)));
}

SECTION(fd_prestat_dir_name) {
  char name[16];
  memset(name, '#', sizeof(name));
  EXPECT_OK(raw_fd_prestat_dir_name(kRo, at(name), 9));
  EXPECT(memcmp(name, "/readonly#######", 16), 0);  // and no NUL
  EXPECT_OK(raw_fd_prestat_dir_name(kRw, at(name), 16));
  EXPECT(memcmp(name, "/rwadonly#######", 16), 0);
  EXPECT(raw_fd_prestat_dir_name(kRw, at(name), 2), E(NAMETOOLONG));
  EXPECT(raw_fd_prestat_dir_name(kRw, at(name), 0), E(NAMETOOLONG));
  EXPECT(raw_fd_prestat_dir_name(0, at(name), 16), E(BADF));
  const u32 fd = (u32)open_directory(".", DIRECTORY_RIGHTS);
  EXPECT(raw_fd_prestat_dir_name(fd, at(name), 16), E(BADF));
  EXPECT_FAULTS(3, raw_fd_prestat_dir_name(kRw, p, 3));
  EXPECT_LAST_BYTES(3, raw_fd_prestat_dir_name(kRw, p, 3));
  EXPECT_NO_DESCRIPTOR(raw_fd_prestat_dir_name(fd, at(name), 16));
}

// Counts the entries that are whole in a buffer of this size, going on with the cookie of the last; `seen` by the digit
// that each name is.
static void list(u32 fd, u32 size, int* seen) {
  static uint8_t buffer[4096];
  u64 cookie = __WASI_DIRCOOKIE_START;
  for (int round = 0; round < 100; ++round) {
    u32 used = 0, here = 0;
    memset(buffer, 0xee, sizeof(buffer));
    EXPECT_OK(raw_fd_readdir(fd, at(buffer), size, cookie, at(&used)));
    EXPECT_TRUE(used <= size);
    for (u32 i = size; i < sizeof(buffer); ++i) EXPECT(buffer[i], 0xee);
    while (here + sizeof(__wasi_dirent_t) <= used) {
      __wasi_dirent_t entry;
      memcpy(&entry, buffer + here, sizeof(entry));
      const uint8_t* name = buffer + here + sizeof(entry);
      here += sizeof(entry) + entry.d_namlen;
      if (here > used) break;
      cookie = entry.d_next;
      if (name[0] == '.') {
        EXPECT(entry.d_type, __WASI_FILETYPE_DIRECTORY);
        ++seen[entry.d_namlen == 1 ? 10 : 11];
        continue;
      }
      EXPECT(entry.d_namlen, 1);
      EXPECT_TRUE(name[0] >= '0' && name[0] <= '9' && entry.d_ino != 0);
      ++seen[name[0] - '0'];
    }
    if (used < size) return;
  }
  EXPECT_TRUE(!"the list has no end");
}

SECTION(fd_readdir) {
  EXPECT_OK(raw_path_create_directory(kRw, PATH("d")));
  for (int i = 0; i < 10; ++i) {
    const char name[] = {'d', '/', (char)('0' + i), 0};
    make_file(name, "");
  }
  const u32 fd = (u32)open_directory("d", DIRECTORY_RIGHTS);
  // With every size of buffer from that of one entry on, each entry comes once.
  for (u32 size = 26; size < 330; size += 7) {
    int seen[12] = {0};
    list(fd, size, seen);
    for (int i = 0; i < 12; ++i) EXPECT(seen[i], 1);
  }
  // Smaller buffers are filled with the beginning of an entry, which says that there is more.
  uint8_t buffer[64];
  u32 used = 0;
  for (u32 size = 0; size < 25; ++size) {
    EXPECT_OK(raw_fd_readdir(fd, at(buffer), size, 0, at(&used)));
    EXPECT(used, size);
  }
  // A cookie is good for as long as the descriptor: what follows the first entry is the same each time.
  __wasi_dirent_t first, second, again;
  EXPECT_OK(raw_fd_readdir(fd, at(&first), sizeof(first), 0, at(&used)));
  EXPECT_OK(raw_fd_readdir(fd, at(&second), sizeof(second), first.d_next, at(&used)));
  EXPECT_OK(raw_fd_readdir(fd, at(&again), sizeof(again), first.d_next, at(&used)));
  EXPECT(memcmp(&second, &again, sizeof(again)), 0);
  EXPECT_TRUE(first.d_next != second.d_next);
  // An entry that is made is listed from the beginning on, one that is removed no more.
  EXPECT_OK(raw_path_unlink_file(fd, PATH("3")));
  int seen[12] = {0};
  list(fd, 4096, seen);
  EXPECT(seen[3], 0);
  EXPECT(seen[4], 1);
  EXPECT(raw_fd_readdir(fd, at(buffer), 64, UINT64_MAX, at(&used)), E(INVAL));
  EXPECT_FAULTS(64, raw_fd_readdir(fd, p, 64, 0, at(&used)));
  EXPECT_LAST_BYTES(64, raw_fd_readdir(fd, p, 64, 0, at(&used)));
  EXPECT_FAULTS(4, raw_fd_readdir(fd, at(buffer), 64, 0, p));
  EXPECT_LAST_BYTES(4, raw_fd_readdir(fd, at(buffer), 64, 0, p));
  const u32 file = (u32)open_file("f", FILE_RIGHTS);
  EXPECT(raw_fd_readdir(file, at(buffer), 64, 0, at(&used)), E(NOTCAPABLE));  // a file has no such right
  EXPECT(raw_fd_readdir(0, at(buffer), 64, 0, at(&used)), E(NOTCAPABLE));
  // A directory that is gone while open.
  EXPECT_OK(raw_path_create_directory(kRw, PATH("gone")));
  const u32 gone = (u32)open_directory("gone", DIRECTORY_RIGHTS);
  EXPECT_OK(raw_path_remove_directory(kRw, PATH("gone")));
  EXPECT(raw_fd_readdir(gone, at(buffer), 64, 0, at(&used)), E(NOENT));
  EXPECT_DIRECTORY_RIGHT(FD_READDIR, 0, raw_fd_readdir((u32)fd, at(buffer), 64, 0, at(&used)));
  EXPECT_NO_DESCRIPTOR(raw_fd_readdir(fd, at(buffer), 64, 0, at(&used)));
}

SECTION(fd_renumber) {
  make_file("a", "a");
  make_file("b", "b");
  const u32 a = (u32)open_file("a", FILE_RIGHTS), b = (u32)open_file("b", FILE_RIGHTS);
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(a, 7, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_renumber(a, b));
  EXPECT(raw_fd_tell(a, at(&position)), E(BADF));
  EXPECT_OK(raw_fd_tell(b, at(&position)));  // with all that belongs to it
  EXPECT(position, 7);
  EXPECT(open_file("c", FILE_RIGHTS), a);  // its number is free
  EXPECT_OK(raw_fd_renumber(b, b));
  EXPECT_OK(raw_fd_tell(b, at(&position)));
  // The target is an open number, also that of a stream or a preopened directory.
  EXPECT(raw_fd_renumber(b, kClosed), E(BADF));
  EXPECT_OK(raw_fd_tell(b, at(&position)));
  EXPECT_OK(raw_fd_renumber(b, 0));
  EXPECT_OK(raw_fd_tell(0, at(&position)));
  EXPECT(position, 7);
  EXPECT_OK(raw_fd_renumber(kRw, kRo));
  __wasi_prestat_t prestat;
  EXPECT(raw_fd_prestat_get(kRw, at(&prestat)), E(BADF));
  EXPECT_OK(raw_fd_prestat_get(kRo, at(&prestat)));
  EXPECT(prestat.u.dir.pr_name_len, 3);
  EXPECT_TRUE(exists(kRo, "a"));
  EXPECT_NO_DESCRIPTOR(raw_fd_renumber(fd, kRo));
  EXPECT_NO_DESCRIPTOR(raw_fd_renumber(kRo, fd));
  EXPECT_NO_DESCRIPTOR(raw_fd_renumber(fd, fd));
}

SECTION(fd_seek) {
  make_file("a", "0123456789");
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  u64 position = 0;
  static const struct {
    int64_t offset;
    u32 whence, error;
    u64 position;
  } kSteps[] = {{4, 0, 0, 4},
                {-1, 1, 0, 3},
                {2, 1, 0, 5},
                {0, 1, 0, 5},
                {-10, 2, 0, 0},
                {0, 2, 0, 10},
                {5, 2, 0, 15},
                {-1, 0, E(INVAL), 15},
                {-16, 1, E(INVAL), 15},
                {-11, 2, E(INVAL), 15},
                {INT64_MAX, 1, E(INVAL), 15},
                {INT64_MAX, 2, E(INVAL), 15},
                {INT64_MIN, 0, E(INVAL), 15},
                {INT64_MIN, 1, E(INVAL), 15},
                {0, 3, E(INVAL), 15},
                {0, 256, E(INVAL), 15},
                {INT64_MAX, 0, 0, INT64_MAX},
                {0, 1, 0, INT64_MAX},
                {1, 1, E(INVAL), INT64_MAX},
                {-INT64_MAX, 1, 0, 0}};
  for (unsigned i = 0; i < sizeof(kSteps) / sizeof(kSteps[0]); ++i) {
    EXPECT(raw_fd_seek(fd, (u64)kSteps[i].offset, kSteps[i].whence, at(&position)), kSteps[i].error);
    EXPECT_OK(raw_fd_tell(fd, at(&position)));
    EXPECT(position, kSteps[i].position);
  }
  EXPECT(size_of((int)fd), 10);  // to seek beyond the end changes nothing
  EXPECT(raw_fd_seek(0, 0, __WASI_WHENCE_SET, at(&position)), E(SPIPE));
  EXPECT(raw_fd_seek(1, 0, __WASI_WHENCE_CUR, at(&position)), E(SPIPE));
  EXPECT(raw_fd_seek(kRw, 0, __WASI_WHENCE_SET, at(&position)), E(BADF));
  EXPECT_FAULTS(8, raw_fd_seek(fd, 3, __WASI_WHENCE_SET, p));
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 0);  // what failed did not move it
  EXPECT_LAST_BYTES(8, raw_fd_seek(fd, 3, __WASI_WHENCE_SET, p));
  EXPECT_FILE_RIGHT("a", FD_SEEK, 0, raw_fd_seek((u32)fd, 0, __WASI_WHENCE_SET, at(&position)));
  EXPECT_NO_DESCRIPTOR(raw_fd_seek(fd, 0, __WASI_WHENCE_SET, at(&position)));
}

SECTION(fd_tell) {
  make_file("a", "0123456789");
  u32 fd = (u32)open_file("a", FILE_RIGHTS);
  u64 position = 9;
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 0);
  EXPECT_OK(raw_fd_seek(fd, 6, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 6);
  EXPECT(raw_fd_tell(0, at(&position)), E(SPIPE));
  EXPECT(raw_fd_tell(kRw, at(&position)), E(BADF));
  EXPECT_FAULTS(8, raw_fd_tell(fd, p));
  EXPECT_LAST_BYTES(8, raw_fd_tell(fd, p));
  // The right to seek includes it, and it alone is enough to ask by fd_seek.
  fd = (u32)open_file("a", R(FD_TELL));
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT_OK(raw_fd_seek(fd, 0, __WASI_WHENCE_CUR, at(&position)));
  EXPECT(raw_fd_seek(fd, 1, __WASI_WHENCE_CUR, at(&position)), E(NOTCAPABLE));
  fd = (u32)open_file("a", R(FD_SEEK));
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  fd = (u32)open_file("a", R(FD_READ));
  EXPECT(raw_fd_tell(fd, at(&position)), E(NOTCAPABLE));
  EXPECT_NO_DESCRIPTOR(raw_fd_tell(fd, at(&position)));
}

MAIN(LISTED(fd_advise), LISTED(fd_allocate), LISTED(fd_close), LISTED(fd_datasync), LISTED(fd_sync),
     LISTED(fd_fdstat_get), LISTED(fd_fdstat_set_flags), LISTED(fd_fdstat_set_rights), LISTED(fd_filestat_get),
     LISTED(fd_filestat_set_size), LISTED(fd_filestat_set_times), LISTED(fd_prestat_get), LISTED(fd_prestat_dir_name),
     LISTED(fd_readdir), LISTED(fd_renumber), LISTED(fd_seek), LISTED(fd_tell))
