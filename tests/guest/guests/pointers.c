// Hands every function of WASI pointers outside memory: each says EFAULT (or refuses for another reason before it
// looks), and nothing happens to the guest.
#include <string.h>

#include "check.h"

typedef uint32_t u32;
typedef uint64_t u64;

RAW(args_get) u32 args_get(u32, u32);
RAW(args_sizes_get) u32 args_sizes_get(u32, u32);
RAW(environ_get) u32 environ_get(u32, u32);
RAW(environ_sizes_get) u32 environ_sizes_get(u32, u32);
RAW(clock_res_get) u32 clock_res_get(u32, u32);
RAW(clock_time_get) u32 clock_time_get(u32, u64, u32);
RAW(random_get) u32 random_get(u32, u32);
RAW(fd_fdstat_get) u32 fd_fdstat_get(u32, u32);
RAW(fd_filestat_get) u32 fd_filestat_get(u32, u32);
RAW(fd_pread) u32 fd_pread(u32, u32, u32, u64, u32);
RAW(fd_prestat_get) u32 fd_prestat_get(u32, u32);
RAW(fd_prestat_dir_name) u32 fd_prestat_dir_name(u32, u32, u32);
RAW(fd_read) u32 fd_read(u32, u32, u32, u32);
RAW(fd_readdir) u32 fd_readdir(u32, u32, u32, u64, u32);
RAW(fd_seek) u32 fd_seek(u32, u64, u32, u32);
RAW(fd_write) u32 fd_write(u32, u32, u32, u32);
RAW(fd_pwrite) u32 fd_pwrite(u32, u32, u32, u64, u32);
RAW(path_create_directory) u32 path_create_directory(u32, u32, u32);
RAW(path_filestat_get) u32 path_filestat_get(u32, u32, u32, u32, u32);
RAW(path_open) u32 path_open(u32, u32, u32, u32, u32, u64, u64, u32, u32);
RAW(path_readlink) u32 path_readlink(u32, u32, u32, u32, u32, u32);
RAW(path_rename) u32 path_rename(u32, u32, u32, u32, u32, u32);
RAW(path_symlink) u32 path_symlink(u32, u32, u32, u32, u32);
RAW(path_unlink_file) u32 path_unlink_file(u32, u32, u32);
RAW(poll_oneoff) u32 poll_oneoff(u32, u32, u32, u32);

enum { kFault = __WASI_ERRNO_FAULT, kDir = 3 };

static u32 at(const void* p) { return (u32)p; }

static void iovecs(u32 bad) {
  static char buffer[16];
  static __wasi_iovec_t good[2], wild[2];
  static u32 count;
  good[0].buf = (void*)buffer;
  good[0].buf_len = 4;
  wild[0] = good[0];
  wild[1].buf = (void*)bad;
  wild[1].buf_len = 2;
  EXPECT(fd_read(0, bad, 1, at(&count)), kFault);
  EXPECT(fd_read(0, at(wild), 2, at(&count)), kFault);
  EXPECT(fd_write(1, bad, 1, at(&count)), kFault);
  EXPECT(fd_write(1, at(wild), 2, at(&count)), kFault);
  EXPECT(fd_write(2, at(wild), 2, at(&count)), kFault);
  EXPECT(fd_write(1, at(good), 0xffffffffu, at(&count)), __WASI_ERRNO_INVAL);
  EXPECT(fd_write(1, at(good), 1025, at(&count)), __WASI_ERRNO_INVAL);
  EXPECT(fd_write(1, at(good), 1, bad), kFault);
}

static void files(u32 bad) {
  static u32 opened, count;
  static __wasi_iovec_t vector;
  static char buffer[64];
  vector.buf = (void*)buffer;
  vector.buf_len = sizeof(buffer);
  EXPECT(path_open(kDir, 0, bad, 4, 0, __WASI_RIGHTS_FD_READ, 0, 0, at(&opened)), kFault);
  EXPECT(path_open(kDir, 0, at("file"), 0xffffffffu, 0, __WASI_RIGHTS_FD_READ, 0, 0, at(&opened)),
         __WASI_ERRNO_NAMETOOLONG);
  EXPECT(path_open(kDir, 0, at("file"), 4, 0, __WASI_RIGHTS_FD_READ, 0, 0, bad), kFault);
  EXPECT(path_open(kDir, 0, at("file"), 4, 0,
                   __WASI_RIGHTS_FD_READ | __WASI_RIGHTS_FD_SEEK | __WASI_RIGHTS_FD_FILESTAT_GET, 0, 0, at(&opened)),
         0);
  EXPECT(opened, 4);  // the call before left no descriptor behind
  EXPECT(fd_pread(opened, bad, 1, 0, at(&count)), kFault);
  EXPECT(fd_pread(opened, at(&vector), 1, 0, bad), kFault);
  EXPECT(fd_pread(opened, at(&vector), 1, UINT64_MAX, at(&count)), __WASI_ERRNO_INVAL);
  EXPECT(fd_read(opened, bad, 1, at(&count)), kFault);
  EXPECT(fd_seek(opened, 0, 0, bad), kFault);
  EXPECT(fd_filestat_get(opened, bad), kFault);
  EXPECT(fd_fdstat_get(opened, bad), kFault);
  EXPECT_OK(__wasi_fd_close((int)opened));
  EXPECT(fd_readdir(kDir, bad, 64, 0, at(&count)), kFault);
  EXPECT(fd_readdir(kDir, at(buffer), 0xffffffffu, 0, at(&count)), kFault);
  EXPECT(fd_readdir(kDir, at(buffer), sizeof(buffer), 0, bad), kFault);
  EXPECT(fd_prestat_get(kDir, bad), kFault);
  EXPECT(fd_prestat_dir_name(kDir, bad, 64), kFault);
  EXPECT(path_filestat_get(kDir, 0, bad, 4, at(buffer)), kFault);
  EXPECT(path_filestat_get(kDir, 0, at("file"), 4, bad), kFault);
  EXPECT(path_create_directory(kDir, bad, 4), kFault);
  EXPECT(path_unlink_file(kDir, bad, 4), kFault);
  EXPECT(path_rename(kDir, bad, 4, kDir, at("x"), 1), kFault);
  EXPECT(path_rename(kDir, at("file"), 4, kDir, bad, 4), kFault);
  EXPECT(path_symlink(bad, 4, kDir, at("x"), 1), kFault);
  EXPECT(path_readlink(kDir, bad, 4, at(buffer), 4, at(&count)), kFault);
}

int main(void) {
  const u32 end = (u32)__builtin_wasm_memory_size(0) * 65536;
  const u32 bads[] = {end - 1, end, end + 1, 0x80000000u, 0xfffffff8u, 0xffffffffu};
  for (unsigned i = 0; i < sizeof(bads) / sizeof(bads[0]); ++i) {
    const u32 bad = bads[i];
    static u32 good[64];
    EXPECT(args_get(bad, at(good)), kFault);
    EXPECT(args_get(at(good), bad), kFault);
    EXPECT(args_sizes_get(bad, at(good)), kFault);
    EXPECT(args_sizes_get(at(good), bad), kFault);
    EXPECT(environ_get(bad, at(good)), kFault);
    EXPECT(environ_get(at(good), bad), kFault);
    EXPECT(environ_sizes_get(bad, at(good)), kFault);
    EXPECT(clock_res_get(0, bad), kFault);
    EXPECT(clock_time_get(1, 0, bad), kFault);
    EXPECT(random_get(bad, 16), kFault);
    EXPECT(random_get(16, 0xffffffffu), kFault);
    EXPECT(fd_fdstat_get(0, bad), kFault);
    EXPECT(fd_filestat_get(0, bad), kFault);
    EXPECT(poll_oneoff(bad, at(good), 1, at(good)), kFault);
    EXPECT(poll_oneoff(at(good), bad, 1, at(good)), kFault);
    iovecs(bad);
    files(bad);
  }
  return finish();
}
