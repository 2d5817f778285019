// The functions on names. Each section begins with the file "f" ("text"), the directory "d", and the links "loop" (to
// itself), "tod" (to "d"), "tof" (to "f") and "nowhere" (to a name that is not there).
#include "spec.h"

typedef u32 (*ByPath)(u32 fd, u32 path, u32 len);

static char names[8192];
static __wasi_filestat_t stat;
static u32 opened, done;
enum { kFollow = __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW };

static void symlink_to(const char* target, const char* path) {
  EXPECT_OK(raw_path_symlink(PATH(target), kRw, PATH(path)));
}

static void begin(void) {
  make_file("f", "text");
  EXPECT_OK(raw_path_create_directory(kRw, PATH("d")));
  symlink_to("loop", "loop");
  symlink_to("d", "tod");
  symlink_to("f", "tof");
  symlink_to("none", "nowhere");
}

// A path of exactly `len` bytes that names "f".
static u32 long_path(u32 len) {
  for (u32 i = 0; i < len - 1; ++i) names[i] = i % 2 ? '/' : '.';
  if (len % 2 == 0) names[len - 3] = names[len - 2] = '/';
  names[len - 1] = 'f';
  return at(names);
}

// What is the same for every function that takes a directory and a path below it, with that right.
static void any_path(ByPath call, u64 right) {
  static const u32 kNumbers[] = {kClosed, 1024, 0x80000000u, 0xffffffffu};
  for (int i = 0; i < 4; ++i) EXPECT(call(kNumbers[i], PATH("f")), E(BADF));
  EXPECT(call(0, PATH("f")), E(NOTDIR));
  const u32 file = (u32)open_file("f", FILE_RIGHTS);
  EXPECT(call(file, PATH("f")), E(NOTDIR));
  EXPECT_OK(raw_fd_close(file));
  const u32 weak = (u32)open_directory(".", DIRECTORY_RIGHTS & ~right);
  EXPECT(call(weak, PATH("f")), E(NOTCAPABLE));
  EXPECT_OK(raw_fd_close(weak));

  EXPECT_FAULTS(4, call(kRw, p, 4));
  EXPECT(call(kRw, at("f"), 0xffffffffu), E(NAMETOOLONG));
  EXPECT(call(kRw, memory_end() - 8, 4097), E(NAMETOOLONG));
  EXPECT(call(kRw, long_path(4097), 4097), E(NAMETOOLONG));
  EXPECT(call(kRw, long_path(4096), 4096), E(NAMETOOLONG));
  memset(names, 'n', sizeof(names));
  EXPECT(call(kRw, at(names), 4096), E(NAMETOOLONG));
  EXPECT(call(kRw, at(names), 256), E(NAMETOOLONG));
  names[256] = '/';
  EXPECT(call(kRw, at(names), 258), E(NAMETOOLONG));
  EXPECT(call(kRw, at("f\0f"), 3), E(INVAL));
  EXPECT(call(kRw, at("\0"), 1), E(INVAL));
  EXPECT(call(kRw, at("f"), 0), E(NOENT));
  EXPECT(call(kRw, PATH("missing/x")), E(NOENT));
  EXPECT(call(kRw, PATH("nowhere/x")), E(NOENT));
  EXPECT(call(kRw, PATH("f/x")), E(NOTDIR));
  EXPECT(call(kRw, PATH("tof/x")), E(NOTDIR));
  EXPECT(call(kRw, PATH("f/../f")), E(NOTDIR));
  EXPECT(call(kRw, PATH("loop/x")), E(LOOP));

  static const char* const kOutside[] = {
      "..",       "../",           "../secret",   "../rw/f",         "/",
      "//f",      "/etc/passwd",   "/rw/f",       "d/../../secret",  "./../secret",
      "up/x",     "up/secret",     "up/rw/f",     "etc/passwd",      "etc/x",
      "outside/", "outside/file",  "outside/new", "tod/../../x",     "d/./../../rw/f",
      "up/..",    "outside/../rw", "d/../up/x",   "tod/../outside/x"};
  for (unsigned i = 0; i < sizeof(kOutside) / sizeof(kOutside[0]); ++i) {
    const u32 error = call(kRw, PATH(kOutside[i]));
    // A slash behind a link that leads out: the function may as well not follow it at all.
    if (strcmp(kOutside[i], "outside/") == 0 && (error == E(NOTDIR) || error == E(EXIST) || error == E(ISDIR))) {
      continue;
    }
    if (error != E(PERM)) fprintf(stderr, "%s: ", kOutside[i]);
    EXPECT(error, E(PERM));
  }
  // Below a directory that was opened below, too: it is a root of its own.
  const u32 below = (u32)open_directory("d", DIRECTORY_RIGHTS);
  EXPECT(call(below, PATH("../f")), E(PERM));
  EXPECT(call(below, PATH("..")), E(PERM));
  EXPECT_OK(raw_fd_close(below));
}

static u32 create_directory(u32 fd, u32 path, u32 len) { return raw_path_create_directory(fd, path, len); }

SECTION(path_create_directory) {
  begin();
  any_path(create_directory, R(PATH_CREATE_DIRECTORY));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("d/in")));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("d/in/deep///")));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("tod/../d/./other")));
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("d/in/deep"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_DIRECTORY);
  EXPECT_TRUE(exists(kRw, "d/other"));
  EXPECT(raw_path_create_directory(kRw, PATH("d")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("f")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("tod")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("nowhere")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("nowhere/")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("up")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH(".")), E(EXIST));
  EXPECT(raw_path_create_directory(kRw, PATH("d/..")), E(EXIST));
  EXPECT(raw_path_create_directory(kRo, PATH("new")), E(ROFS));
  // A name of 255 bytes, and one that is no UTF-8: bytes are bytes.
  memset(names, 'n', 255);
  EXPECT_OK(raw_path_create_directory(kRw, at(names), 255));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("\xff\xc0\x80\xed\xa0\x80")));
  EXPECT_TRUE(exists(kRw, "\xff\xc0\x80\xed\xa0\x80"));
}

static u32 filestat(u32 fd, u32 path, u32 len) { return raw_path_filestat_get(fd, 0, path, len, at(&stat)); }
static u32 filestat_follow(u32 fd, u32 path, u32 len) {
  return raw_path_filestat_get(fd, kFollow, path, len, at(&stat));
}

SECTION(path_filestat_get) {
  begin();
  any_path(filestat, R(PATH_FILESTAT_GET));
  any_path(filestat_follow, R(PATH_FILESTAT_GET));
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("f"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT(stat.size, 4);
  EXPECT_OK(filestat(kRw, long_path(4095), 4095));
  EXPECT(stat.size, 4);
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("tof"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_SYMBOLIC_LINK);
  EXPECT(stat.size, 1);
  EXPECT_OK(raw_path_filestat_get(kRw, kFollow, PATH("tof"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("tod/"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_DIRECTORY);
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("."), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_DIRECTORY);
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("d/.."), at(&stat)));
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("pipe"), at(&stat)));
  EXPECT(stat.filetype, __WASI_FILETYPE_UNKNOWN);
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("loop"), at(&stat)));
  EXPECT_OK(raw_path_filestat_get(kRw, 0, PATH("up"), at(&stat)));
  EXPECT(raw_path_filestat_get(kRw, kFollow, PATH("loop"), at(&stat)), E(LOOP));
  EXPECT(raw_path_filestat_get(kRw, kFollow, PATH("nowhere"), at(&stat)), E(NOENT));
  EXPECT(raw_path_filestat_get(kRw, kFollow, PATH("up"), at(&stat)), E(PERM));
  EXPECT(raw_path_filestat_get(kRw, kFollow, PATH("etc"), at(&stat)), E(PERM));
  EXPECT(raw_path_filestat_get(kRw, 0, PATH("f/"), at(&stat)), E(NOTDIR));
  EXPECT(raw_path_filestat_get(kRw, 0, PATH("missing"), at(&stat)), E(NOENT));
  EXPECT(raw_path_filestat_get(kRw, 2, PATH("f"), at(&stat)), E(INVAL));
  EXPECT(raw_path_filestat_get(kRw, 0xffffffffu, PATH("f"), at(&stat)), E(INVAL));
  EXPECT_FAULTS(sizeof(stat), raw_path_filestat_get(kRw, 0, PATH("f"), p));
  EXPECT_LAST_BYTES(sizeof(stat), raw_path_filestat_get(kRw, 0, PATH("f"), p));
}

enum { kTimes = __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM };
static u32 set_times(u32 fd, u32 path, u32 len) { return raw_path_filestat_set_times(fd, 0, path, len, 1, 2, kTimes); }
static u32 set_times_follow(u32 fd, u32 path, u32 len) {
  return raw_path_filestat_set_times(fd, kFollow, path, len, 1, 2, kTimes);
}

SECTION(path_filestat_set_times) {
  begin();
  any_path(set_times, R(PATH_FILESTAT_SET_TIMES));
  any_path(set_times_follow, R(PATH_FILESTAT_SET_TIMES));
  EXPECT_OK(raw_path_filestat_set_times(kRw, 0, PATH("f"), 3, 4, kTimes));
  EXPECT_OK(filestat(kRw, PATH("f")));
  EXPECT(stat.atim, 3);
  EXPECT(stat.mtim, 4);
  // The link's own times, or those of what it names.
  EXPECT_OK(raw_path_filestat_set_times(kRw, 0, PATH("tof"), 5, 6, kTimes));
  EXPECT_OK(filestat(kRw, PATH("tof")));
  EXPECT(stat.mtim, 6);
  EXPECT_OK(filestat(kRw, PATH("f")));
  EXPECT(stat.mtim, 4);
  EXPECT_OK(raw_path_filestat_set_times(kRw, kFollow, PATH("tof"), 7, 8, kTimes));
  EXPECT_OK(filestat(kRw, PATH("f")));
  EXPECT(stat.mtim, 8);
  EXPECT_OK(raw_path_filestat_set_times(kRw, 0, PATH("f"), 0, 0, __WASI_FSTFLAGS_MTIM_NOW));
  EXPECT_OK(filestat(kRw, PATH("f")));
  EXPECT(stat.atim, 7);
  EXPECT_TRUE(stat.mtim > 1600000000ull * 1000000000);
  EXPECT_OK(raw_path_filestat_set_times(kRw, 0, PATH("d"), 9, 9, kTimes));
  EXPECT(raw_path_filestat_set_times(kRw, 0, PATH("f"), 1, 1, 3), E(INVAL));
  EXPECT(raw_path_filestat_set_times(kRw, 0, PATH("f"), 1, 1, 12), E(INVAL));
  EXPECT(raw_path_filestat_set_times(kRw, 0, PATH("f"), 1, 1, 16), E(INVAL));
  EXPECT(raw_path_filestat_set_times(kRw, 2, PATH("f"), 1, 1, kTimes), E(INVAL));
  EXPECT(raw_path_filestat_set_times(kRw, kFollow, PATH("loop"), 1, 1, kTimes), E(LOOP));
  EXPECT(raw_path_filestat_set_times(kRw, kFollow, PATH("up"), 1, 1, kTimes), E(PERM));
  EXPECT(raw_path_filestat_set_times(kRw, 0, PATH("missing"), 1, 1, kTimes), E(NOENT));
  EXPECT(raw_path_filestat_set_times(kRo, 0, PATH("file"), 1, 1, kTimes), E(ROFS));
  EXPECT(raw_path_filestat_set_times(kRo, 0, PATH("missing"), 1, 1, kTimes), E(NOENT));
}

static u32 link_from(u32 fd, u32 path, u32 len) { return raw_path_link(fd, 0, path, len, kRw, PATH("new")); }
static u32 link_to(u32 fd, u32 path, u32 len) { return raw_path_link(kRw, 0, PATH("f"), fd, path, len); }

SECTION(path_link) {
  begin();
  any_path(link_from, R(PATH_LINK_SOURCE));
  any_path(link_to, R(PATH_LINK_TARGET));
  EXPECT_TRUE(!exists(kRw, "new"));
  EXPECT_OK(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("d/g")));
  EXPECT_TRUE(holds(kRw, "d/g", "text"));
  EXPECT_OK(filestat(kRw, PATH("f")));
  EXPECT(stat.nlink, 2);
  // One file: what is written by one name is read by the other, and it lives as long as it has a name.
  make_file("d/g", "other");
  EXPECT_TRUE(holds(kRw, "f", "other"));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("f")));
  EXPECT_TRUE(holds(kRw, "d/g", "other"));
  make_file("f", "text");
  // A symbolic link itself.
  EXPECT_OK(raw_path_link(kRw, 0, PATH("up"), kRw, PATH("up2")));
  EXPECT_OK(filestat(kRw, PATH("up2")));
  EXPECT(stat.filetype, __WASI_FILETYPE_SYMBOLIC_LINK);
  EXPECT(raw_path_link(kRw, kFollow, PATH("tof"), kRw, PATH("new")), E(INVAL));
  EXPECT(raw_path_link(kRw, 2, PATH("f"), kRw, PATH("new")), E(INVAL));
  EXPECT(raw_path_link(kRw, 0, PATH("d"), kRw, PATH("new")), E(PERM));
  EXPECT(raw_path_link(kRw, 0, PATH("."), kRw, PATH("new")), E(PERM));
  EXPECT(raw_path_link(kRw, 0, PATH("f/"), kRw, PATH("new")), E(NOTDIR));
  EXPECT(raw_path_link(kRw, 0, PATH("missing"), kRw, PATH("new")), E(NOENT));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("d/g")), E(EXIST));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("d")), E(EXIST));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("nowhere")), E(EXIST));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("f")), E(EXIST));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH(".")), E(EXIST));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRw, PATH("new/")), E(NOENT));
  EXPECT(raw_path_link(kRw, 0, PATH("f"), kRo, PATH("new")), E(ROFS));
  EXPECT(raw_path_link(kRo, 0, PATH("file"), kRo, PATH("new")), E(ROFS));
  EXPECT(raw_path_link(kRo, 0, PATH("file"), kRw, PATH("new")), E(XDEV));
  EXPECT_TRUE(!exists(kRw, "new"));
}

static u32 readlink_at(u32 fd, u32 path, u32 len) {
  static char text[16];
  return raw_path_readlink(fd, path, len, at(text), sizeof(text), at(&done));
}

SECTION(path_readlink) {
  begin();
  any_path(readlink_at, R(PATH_READLINK));
  char text[16];
  memset(text, '#', sizeof(text));
  EXPECT_OK(raw_path_readlink(kRw, PATH("nowhere"), at(text), sizeof(text), at(&done)));
  EXPECT(done, 4);
  EXPECT(memcmp(text, "none#", 5), 0);
  EXPECT_OK(raw_path_readlink(kRw, PATH("nowhere"), at(text), 2, at(&done)));
  EXPECT(done, 2);
  EXPECT_OK(raw_path_readlink(kRw, PATH("nowhere"), at(text), 0, at(&done)));
  EXPECT(done, 0);
  // Also of one that leads out, or nowhere; and in the read-only directory.
  EXPECT_OK(raw_path_readlink(kRw, PATH("loop"), at(text), sizeof(text), at(&done)));
  EXPECT_OK(raw_path_readlink(kRw, PATH("tod/../up"), at(text), sizeof(text), at(&done)));
  EXPECT(done, 2);
  EXPECT_OK(raw_path_readlink(kRo, PATH("link"), at(text), sizeof(text), at(&done)));
  EXPECT(raw_path_readlink(kRw, PATH("f"), at(text), sizeof(text), at(&done)), E(INVAL));
  EXPECT(raw_path_readlink(kRw, PATH("d"), at(text), sizeof(text), at(&done)), E(INVAL));
  EXPECT(raw_path_readlink(kRw, PATH("."), at(text), sizeof(text), at(&done)), E(INVAL));
  EXPECT(raw_path_readlink(kRw, PATH("tod/"), at(text), sizeof(text), at(&done)), E(INVAL));
  EXPECT(raw_path_readlink(kRw, PATH("missing"), at(text), sizeof(text), at(&done)), E(NOENT));
  EXPECT_FAULTS(4, raw_path_readlink(kRw, PATH("nowhere"), p, 4, at(&done)));
  EXPECT_FAULTS(4, raw_path_readlink(kRw, PATH("nowhere"), at(text), 4, p));
  EXPECT_LAST_BYTES(4, raw_path_readlink(kRw, PATH("nowhere"), p, 4, at(&done)));
  EXPECT_LAST_BYTES(4, raw_path_readlink(kRw, PATH("nowhere"), at(text), 4, p));
}

static u32 remove_directory(u32 fd, u32 path, u32 len) { return raw_path_remove_directory(fd, path, len); }

SECTION(path_remove_directory) {
  begin();
  any_path(remove_directory, R(PATH_REMOVE_DIRECTORY));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("d/in")));
  EXPECT(raw_path_remove_directory(kRw, PATH("d")), E(NOTEMPTY));
  EXPECT_OK(raw_path_remove_directory(kRw, PATH("tod/in/")));
  EXPECT(raw_path_remove_directory(kRw, PATH("d/in")), E(NOENT));
  EXPECT(raw_path_remove_directory(kRw, PATH("tod")), E(NOTDIR));
  EXPECT(raw_path_remove_directory(kRw, PATH("tod/")), E(NOTDIR));
  EXPECT(raw_path_remove_directory(kRw, PATH("up/")), E(NOTDIR));
  EXPECT(raw_path_remove_directory(kRw, PATH("f")), E(NOTDIR));
  EXPECT(raw_path_remove_directory(kRw, PATH("f/")), E(NOTDIR));
  EXPECT(raw_path_remove_directory(kRw, PATH(".")), E(INVAL));
  EXPECT(raw_path_remove_directory(kRw, PATH("d/.")), E(INVAL));
  EXPECT(raw_path_remove_directory(kRw, PATH("d/..")), E(INVAL));
  EXPECT(raw_path_remove_directory(kRo, PATH("dir")), E(ROFS));
  EXPECT_OK(raw_path_remove_directory(kRw, PATH("d")));
  EXPECT_TRUE(!exists(kRw, "d"));
}

static u32 rename_from(u32 fd, u32 path, u32 len) { return raw_path_rename(fd, path, len, kRw, PATH("new")); }
static u32 rename_to(u32 fd, u32 path, u32 len) { return raw_path_rename(kRw, PATH("f"), fd, path, len); }

SECTION(path_rename) {
  begin();
  any_path(rename_to, R(PATH_RENAME_TARGET));
  EXPECT_TRUE(holds(kRw, "f", "text"));
  any_path(rename_from, R(PATH_RENAME_SOURCE));
  EXPECT_TRUE(!exists(kRw, "new"));
  // Files over names that are free, or files', or links'; directories over empty ones.
  EXPECT_OK(raw_path_rename(kRw, PATH("f"), kRw, PATH("d/g")));
  EXPECT_TRUE(!exists(kRw, "f") && holds(kRw, "d/g", "text"));
  make_file("f", "new");
  EXPECT_OK(raw_path_rename(kRw, PATH("f"), kRw, PATH("d/g")));
  EXPECT_TRUE(holds(kRw, "d/g", "new"));
  make_file("f", "text");
  EXPECT_OK(raw_path_rename(kRw, PATH("f"), kRw, PATH("f")));
  EXPECT_OK(raw_path_rename(kRw, PATH("f"), kRw, PATH("nowhere")));
  EXPECT_OK(filestat(kRw, PATH("nowhere")));
  EXPECT(stat.filetype, __WASI_FILETYPE_REGULAR_FILE);
  make_file("f", "text");
  EXPECT_OK(raw_path_create_directory(kRw, PATH("empty")));
  EXPECT_OK(raw_path_rename(kRw, PATH("d/"), kRw, PATH("empty/")));
  EXPECT_TRUE(holds(kRw, "empty/g", "new"));
  EXPECT_OK(raw_path_rename(kRw, PATH("empty"), kRw, PATH("d")));
  EXPECT_OK(raw_path_create_directory(kRw, PATH("empty")));
  EXPECT(raw_path_rename(kRw, PATH("empty"), kRw, PATH("d")), E(NOTEMPTY));
  EXPECT(raw_path_rename(kRw, PATH("empty"), kRw, PATH("f")), E(NOTDIR));
  EXPECT(raw_path_rename(kRw, PATH("f"), kRw, PATH("empty")), E(ISDIR));
  EXPECT(raw_path_rename(kRw, PATH("f"), kRw, PATH("free/")), E(NOTDIR));
  EXPECT(raw_path_rename(kRw, PATH("f/"), kRw, PATH("free")), E(NOTDIR));
  EXPECT(raw_path_rename(kRw, PATH("tod/"), kRw, PATH("free")), E(NOTDIR));
  EXPECT(raw_path_rename(kRw, PATH("d"), kRw, PATH("d/in")), E(INVAL));
  EXPECT(raw_path_rename(kRw, PATH("missing"), kRw, PATH("free")), E(NOENT));
  EXPECT(raw_path_rename(kRw, PATH("."), kRw, PATH("free")), E(BUSY));
  EXPECT(raw_path_rename(kRw, PATH("d/.."), kRw, PATH("free")), E(BUSY));
  EXPECT(raw_path_rename(kRw, PATH("d"), kRw, PATH(".")), E(BUSY));
  EXPECT(raw_path_rename(kRo, PATH("file"), kRw, PATH("free")), E(ROFS));
  EXPECT(raw_path_rename(kRw, PATH("f"), kRo, PATH("free")), E(ROFS));
  EXPECT(raw_path_rename(kRo, PATH("file"), kRo, PATH("free")), E(ROFS));
  EXPECT_TRUE(!exists(kRw, "free") && holds(kRw, "f", "text"));
  // A link, not what it names; an open file keeps its descriptor.
  EXPECT_OK(raw_path_rename(kRw, PATH("tof"), kRw, PATH("moved")));
  EXPECT_TRUE(holds(kRw, "moved", "text") && exists(kRw, "f"));
  const u32 fd = (u32)open_file("f", FILE_RIGHTS);
  EXPECT_OK(raw_path_rename(kRw, PATH("d/g"), kRw, PATH("f")));
  EXPECT(size_of((int)fd), 4);
}

static u32 symlink_at(u32 fd, u32 path, u32 len) { return raw_path_symlink(PATH("f"), fd, path, len); }

SECTION(path_symlink) {
  begin();
  any_path(symlink_at, R(PATH_SYMLINK));
  EXPECT_OK(raw_path_symlink(PATH("../f"), kRw, PATH("d/link")));
  EXPECT_TRUE(holds(kRw, "d/link", "text"));
  EXPECT(raw_path_symlink(PATH("f"), kRw, PATH("d/link")), E(EXIST));
  EXPECT(raw_path_symlink(PATH("f"), kRw, PATH("d")), E(EXIST));
  EXPECT(raw_path_symlink(PATH("f"), kRw, PATH("nowhere")), E(EXIST));
  EXPECT(raw_path_symlink(PATH("f"), kRw, PATH(".")), E(EXIST));
  EXPECT(raw_path_symlink(PATH("f"), kRw, PATH("new/")), E(NOENT));
  EXPECT(raw_path_symlink(at("f"), 0, kRw, PATH("new")), E(NOENT));
  EXPECT(raw_path_symlink(at("f\0f"), 3, kRw, PATH("new")), E(INVAL));
  EXPECT(raw_path_symlink(PATH("/"), kRw, PATH("new")), E(PERM));
  EXPECT(raw_path_symlink(PATH("/etc/passwd"), kRw, PATH("new")), E(PERM));
  EXPECT(raw_path_symlink(PATH("f"), kRo, PATH("new")), E(ROFS));
  EXPECT_FAULTS(4, raw_path_symlink(p, 4, kRw, PATH("new")));
  memset(names, 'n', sizeof(names));
  EXPECT(raw_path_symlink(at(names), 4096, kRw, PATH("new")), E(NAMETOOLONG));
  EXPECT(raw_path_symlink(at(names), 0xffffffffu, kRw, PATH("new")), E(NAMETOOLONG));
  EXPECT_TRUE(!exists(kRw, "new"));
  // A target may be anything relative: it is looked at when it is followed, and then leads nowhere outside.
  EXPECT_OK(raw_path_symlink(PATH("../secret"), kRw, PATH("new")));
  EXPECT(raw_path_open(kRw, kFollow, PATH("new"), 0, R(FD_READ), 0, 0, at(&opened)), E(PERM));
  EXPECT_OK(raw_path_symlink(PATH("d/../../secret"), kRw, PATH("new2")));
  EXPECT(raw_path_open(kRw, kFollow, PATH("new2"), 0, R(FD_READ), 0, 0, at(&opened)), E(PERM));
  EXPECT_OK(raw_path_symlink(PATH("../readonly/file"), kRw, PATH("across")));  // into the other preopened directory
  EXPECT(raw_path_open(kRw, kFollow, PATH("across"), 0, R(FD_READ), 0, 0, at(&opened)), E(PERM));
}

static u32 unlink_file(u32 fd, u32 path, u32 len) { return raw_path_unlink_file(fd, path, len); }

SECTION(path_unlink_file) {
  begin();
  any_path(unlink_file, R(PATH_UNLINK_FILE));
  EXPECT(raw_path_unlink_file(kRw, PATH("d")), E(ISDIR));
  EXPECT(raw_path_unlink_file(kRw, PATH("d/")), E(ISDIR));
  EXPECT(raw_path_unlink_file(kRw, PATH(".")), E(ISDIR));
  EXPECT(raw_path_unlink_file(kRw, PATH("f/")), E(NOTDIR));
  EXPECT(raw_path_unlink_file(kRw, PATH("tod/")), E(NOTDIR));
  EXPECT(raw_path_unlink_file(kRw, PATH("missing")), E(NOENT));
  EXPECT(raw_path_unlink_file(kRo, PATH("file")), E(ROFS));
  EXPECT(raw_path_unlink_file(kRo, PATH("missing")), E(ROFS));
  // The link goes, what it names stays.
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("tof")));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("tod")));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("up")));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("loop")));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("pipe")));
  EXPECT_TRUE(exists(kRw, "d") && holds(kRw, "f", "text"));
  EXPECT_OK(raw_path_unlink_file(kRw, PATH("d/../f")));
  EXPECT(raw_path_unlink_file(kRw, PATH("f")), E(NOENT));
}

static u32 open_read(u32 fd, u32 path, u32 len) {
  return raw_path_open(fd, kFollow, path, len, 0, R(FD_READ), 0, 0, at(&opened));
}
static u32 open_stay(u32 fd, u32 path, u32 len) {
  return raw_path_open(fd, 0, path, len, 0, R(FD_READ), 0, 0, at(&opened));
}
static u32 open_create(u32 fd, u32 path, u32 len) {
  return raw_path_open(fd, kFollow, path, len, __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened));
}

static u32 open_flags(u32 lookup, const char* path, u32 oflags, u64 rights) {
  const u32 error = raw_path_open(kRw, lookup, PATH(path), oflags, rights, 0, 0, at(&opened));
  if (error == 0) EXPECT_OK(raw_fd_close(opened));
  return error;
}

// All sets of oflags on a name that is free, a file's, a directory's.
static void open_by_flags(void) {
  for (u32 oflags = 0; oflags < 16; ++oflags) {
    const int create = oflags & __WASI_OFLAGS_CREAT, directory = oflags & __WASI_OFLAGS_DIRECTORY;
    const int exclusive = oflags & __WASI_OFLAGS_EXCL, truncate = oflags & __WASI_OFLAGS_TRUNC;
    const int senseless = directory && (create || exclusive || truncate);
    make_file("f", "text");
    EXPECT(open_flags(0, "f", oflags, R(FD_READ)), senseless             ? E(INVAL)
                                                   : directory           ? E(NOTDIR)
                                                   : create && exclusive ? E(EXIST)
                                                                         : 0);
    EXPECT_TRUE(holds(kRw, "f", truncate && !senseless && !(create && exclusive) ? "" : "text"));
    EXPECT(open_flags(0, "d", oflags, R(FD_READDIR)), senseless             ? E(INVAL)
                                                      : create && exclusive ? E(EXIST)
                                                      : create || truncate  ? E(ISDIR)
                                                                            : 0);
    EXPECT(open_flags(0, "free", oflags, R(FD_READ)), senseless ? E(INVAL) : create ? 0 : E(NOENT));
    EXPECT(exists(kRw, "free"), create && !senseless);
    if (exists(kRw, "free")) EXPECT_OK(raw_path_unlink_file(kRw, PATH("free")));
  }
  make_file("f", "text");
  EXPECT(open_flags(0, "f", 16, R(FD_READ)), E(INVAL));
  EXPECT(open_flags(0, "f", 0x10000, R(FD_READ)), E(INVAL));
  EXPECT(open_flags(2, "f", 0, R(FD_READ)), E(INVAL));
  EXPECT(open_flags(0, "d", 0, R(FD_WRITE)), E(ISDIR));
  EXPECT_OK(open_flags(0, "d", __WASI_OFLAGS_DIRECTORY, R(FD_WRITE) | R(FD_READDIR)));
  for (u32 fdflags = 0; fdflags < 32; ++fdflags) {
    __wasi_fdstat_t fdstat;
    EXPECT_OK(raw_path_open(kRw, 0, PATH("f"), 0, FILE_RIGHTS, 0, fdflags, at(&opened)));
    EXPECT_OK(raw_fd_fdstat_get(opened, at(&fdstat)));
    EXPECT(fdstat.fs_flags, fdflags);
    EXPECT_OK(raw_fd_close(opened));
  }
  EXPECT(raw_path_open(kRw, 0, PATH("f"), 0, FILE_RIGHTS, 0, 32, at(&opened)), E(INVAL));
  EXPECT(raw_path_open(kRw, 0, PATH("f"), 0, FILE_RIGHTS, 0, 0x10000, at(&opened)), E(INVAL));
}

static void open_by_rights(void) {
  EXPECT_DIRECTORY_RIGHT(PATH_CREATE_FILE, 0, open_create((u32)fd, PATH("made")));
  EXPECT_DIRECTORY_RIGHT(PATH_FILESTAT_SET_SIZE, 0,
                         raw_path_open((u32)fd, 0, PATH("made"), __WASI_OFLAGS_TRUNC, R(FD_READ), 0, 0, at(&opened)));
  // Whatever the directory can hand on, and no more; of it what the kind of file has.
  __wasi_fdstat_t fdstat;
  const u64 handed = R(FD_READ) | R(FD_SEEK) | R(PATH_SYMLINK);
  const u32 fd = (u32)open_rights(kRw, ".", __WASI_OFLAGS_DIRECTORY, R(PATH_OPEN), handed);
  EXPECT_OK(raw_path_open(fd, 0, PATH("f"), 0, handed, handed, 0, at(&opened)));
  EXPECT_OK(raw_fd_fdstat_get(opened, at(&fdstat)));
  EXPECT(fdstat.fs_rights_base, R(FD_READ) | R(FD_SEEK));
  EXPECT_OK(raw_path_open(fd, 0, PATH("d"), __WASI_OFLAGS_DIRECTORY, handed, handed, 0, at(&opened)));
  EXPECT_OK(raw_fd_fdstat_get(opened, at(&fdstat)));
  EXPECT(fdstat.fs_rights_base, R(PATH_SYMLINK));
  EXPECT(fdstat.fs_rights_inheriting, handed);
  EXPECT(raw_path_open(fd, 0, PATH("f"), 0, handed | R(FD_TELL), 0, 0, at(&opened)), E(NOTCAPABLE));
  EXPECT(raw_path_open(fd, 0, PATH("f"), 0, 0, R(FD_TELL), 0, at(&opened)), E(NOTCAPABLE));
  EXPECT(raw_path_open(fd, 0, PATH("f"), __WASI_OFLAGS_CREAT, 0, 0, 0, at(&opened)), E(NOTCAPABLE));
  // What the descriptor was not opened for is refused, whatever the file would allow.
  EXPECT_OK(raw_path_open(kRw, 0, PATH("f"), 0, 0, 0, 0, at(&opened)));
  EXPECT(raw_fd_filestat_get(opened, at(&stat)), E(NOTCAPABLE));
}

static void open_links(void) {
  EXPECT_OK(open_flags(kFollow, "tof", 0, R(FD_READ)));
  EXPECT(open_flags(0, "tof", 0, R(FD_READ)), E(LOOP));
  EXPECT(open_flags(0, "tof", __WASI_OFLAGS_CREAT, R(FD_READ)), E(LOOP));
  EXPECT(open_flags(kFollow, "tof", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, R(FD_READ)), E(EXIST));
  EXPECT(open_flags(0, "tod", __WASI_OFLAGS_DIRECTORY, R(FD_READDIR)), E(NOTDIR));
  EXPECT_OK(open_flags(kFollow, "tod", __WASI_OFLAGS_DIRECTORY, R(FD_READDIR)));
  EXPECT_OK(open_flags(0, "tod/../f", 0, R(FD_READ)));  // in the middle they are always followed
  EXPECT(open_flags(kFollow, "loop", 0, R(FD_READ)), E(LOOP));
  EXPECT(open_flags(0, "loop", 0, R(FD_READ)), E(LOOP));
  EXPECT(open_flags(kFollow, "nowhere", 0, R(FD_READ)), E(NOENT));
  EXPECT(open_flags(kFollow, "nowhere", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, R(FD_READ)), E(EXIST));
  EXPECT_OK(open_flags(kFollow, "nowhere", __WASI_OFLAGS_CREAT, R(FD_READ)));
  EXPECT_TRUE(exists(kRw, "none"));
  // To make what a link names outside makes nothing; the host counts.
  symlink_to("../made", "makes");
  symlink_to("d/../../made", "makes2");
  EXPECT(open_flags(kFollow, "makes", __WASI_OFLAGS_CREAT, R(FD_WRITE)), E(PERM));
  EXPECT(open_flags(kFollow, "makes2", __WASI_OFLAGS_CREAT, R(FD_WRITE)), E(PERM));
  EXPECT(open_flags(kFollow, "outside/made", __WASI_OFLAGS_CREAT, R(FD_WRITE)), E(PERM));
  EXPECT(open_flags(kFollow, "outside/file", __WASI_OFLAGS_TRUNC, R(FD_WRITE)), E(PERM));
  // A chain of 40 links is followed, one of 41 is a loop.
  symlink_to("f", "0");
  char from[8], to[8];
  for (int i = 1; i <= 40; ++i) {
    snprintf(to, sizeof(to), "%d", i - 1);
    snprintf(from, sizeof(from), "%d", i);
    symlink_to(to, from);
  }
  EXPECT_OK(open_flags(kFollow, "39", 0, R(FD_READ)));
  EXPECT(open_flags(kFollow, "40", 0, R(FD_READ)), E(LOOP));
}

static void open_read_only(void) {
  EXPECT_OK(raw_path_open(kRo, 0, PATH("file"), 0, R(FD_READ), 0, 0, at(&opened)));
  EXPECT_OK(raw_path_open(kRo, kFollow, PATH("link"), __WASI_OFLAGS_CREAT, R(FD_READ), 0, 0, at(&opened)));
  EXPECT(raw_path_open(kRo, 0, PATH("file"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("file"), 0, R(FD_ALLOCATE), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("file"), __WASI_OFLAGS_TRUNC, R(FD_READ), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("new"), __WASI_OFLAGS_CREAT, R(FD_READ), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("file"), __WASI_OFLAGS_CREAT | __WASI_OFLAGS_EXCL, R(FD_READ), 0, 0, at(&opened)),
         E(EXIST));
  EXPECT(raw_path_open(kRo, 0, PATH("dir"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(ISDIR));
  EXPECT(raw_path_open(kRo, 0, PATH("link"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(LOOP));
  EXPECT(raw_path_open(kRo, kFollow, PATH("link"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("new"), __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened)), E(ROFS));
  EXPECT(raw_path_open(kRo, 0, PATH("missing"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(NOENT));
  EXPECT(raw_path_open(kRo, 0, PATH("../secret"), 0, R(FD_WRITE), 0, 0, at(&opened)), E(PERM));
  EXPECT(raw_path_open(kRo, 0, PATH("../made"), __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened)), E(PERM));
  EXPECT(raw_path_open(kRo, 0, PATH("missing/new"), __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened)), E(NOENT));
  EXPECT(raw_path_open(kRo, 0, PATH("file/new"), __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened)), E(NOTDIR));
}

SECTION(path_open) {
  begin();
  any_path(open_read, R(PATH_OPEN));
  any_path(open_stay, R(PATH_OPEN));
  any_path(open_create, R(PATH_OPEN));
  EXPECT_OK(open_read(kRw, long_path(4095), 4095));
  EXPECT_OK(raw_fd_close(opened));
  open_by_flags();
  open_by_rights();
  open_links();
  open_read_only();
  // Slashes behind a name ask for a directory.
  EXPECT(open_flags(0, "f/", 0, R(FD_READ)), E(NOTDIR));
  EXPECT(open_flags(0, "free/", __WASI_OFLAGS_CREAT, R(FD_READ)), E(ISDIR));
  EXPECT_TRUE(!exists(kRw, "free"));
  EXPECT_OK(open_flags(0, "d///", 0, R(FD_READDIR)));
  // A FIFO never makes the guest wait to open it.
  EXPECT_OK(open_flags(0, "pipe", 0, R(FD_READ)));
  EXPECT(open_flags(0, "pipe", 0, R(FD_WRITE)), E(NXIO));
  // Names are bytes.
  EXPECT_OK(open_flags(0, "\xff\xfe name\n", __WASI_OFLAGS_CREAT, R(FD_WRITE)));
  EXPECT_TRUE(exists(kRw, "\xff\xfe name\n"));
  memset(names, 'n', 255);
  EXPECT_OK(raw_path_open(kRw, 0, at(names), 255, __WASI_OFLAGS_CREAT, R(FD_WRITE), 0, 0, at(&opened)));
  // What fails for the descriptor that it would give leaves no trace in the files, and no descriptor.
  const u32 next = (u32)open_file("f", FILE_RIGHTS);
  EXPECT_OK(raw_fd_close(next));
  EXPECT_FAULTS(4, raw_path_open(kRw, 0, PATH("f"), __WASI_OFLAGS_TRUNC, R(FD_READ), 0, 0, p));
  EXPECT_FAULTS(4, raw_path_open(kRw, 0, PATH("free"), __WASI_OFLAGS_CREAT, R(FD_READ), 0, 0, p));
  EXPECT_TRUE(!exists(kRw, "free") && holds(kRw, "f", "text"));
  EXPECT_LAST_BYTES(4, raw_path_open(kRw, 0, PATH("f"), 0, R(FD_READ), 0, 0, p));
  EXPECT(open_file("f", FILE_RIGHTS), next + 1);
  u32 error = 0;
  for (int i = 0; i < 1100 && error == 0; ++i) {
    error = raw_path_open(kRw, 0, PATH("f"), 0, R(FD_READ), 0, 0, at(&opened));
  }
  EXPECT(error, E(MFILE));
  EXPECT(opened, 1023);
  EXPECT(raw_path_open(kRw, 0, PATH("free"), __WASI_OFLAGS_CREAT, R(FD_READ), 0, 0, at(&opened)), E(MFILE));
  EXPECT(raw_path_open(kRw, 0, PATH("f"), __WASI_OFLAGS_TRUNC, R(FD_READ), 0, 0, at(&opened)), E(MFILE));
  EXPECT_OK(raw_fd_close(700));
  EXPECT_TRUE(!exists(kRw, "free") && holds(kRw, "f", "text"));
  EXPECT_OK(raw_path_open(kRw, 0, PATH("f"), 0, R(FD_READ), 0, 0, at(&opened)));
  EXPECT(opened, 700);
}

MAIN(LISTED(path_create_directory), LISTED(path_filestat_get), LISTED(path_filestat_set_times), LISTED(path_link),
     LISTED(path_open), LISTED(path_readlink), LISTED(path_remove_directory), LISTED(path_rename), LISTED(path_symlink),
     LISTED(path_unlink_file))
