// Bytes through a descriptor: fd_read, fd_write, fd_pread, fd_pwrite.
#include "spec.h"

enum { kVectors = 1025 };
static const u64 kMax = INT64_MAX;
static __wasi_iovec_t vectors[kVectors];
static uint8_t bytes[4096];
static u32 done;

// One of the four, by a position that the two without one do not look at.
typedef u32 (*Transfer)(u32 fd, u32 iovs, u32 count, u32 out);
static u32 pread_start(u32 fd, u32 iovs, u32 count, u32 out) { return raw_fd_pread(fd, iovs, count, 0, out); }
static u32 pwrite_start(u32 fd, u32 iovs, u32 count, u32 out) { return raw_fd_pwrite(fd, iovs, count, 0, out); }
static u32 read_on(u32 fd, u32 iovs, u32 count, u32 out) { return raw_fd_read(fd, iovs, count, out); }
static u32 write_on(u32 fd, u32 iovs, u32 count, u32 out) { return raw_fd_write(fd, iovs, count, out); }

// What a list of buffers can be, the same for the four. The file "a" has 4096 bytes.
static void lists(Transfer transfer) {
  const u32 fd = (u32)open_file("a", FILE_RIGHTS);
  for (u32 i = 0; i < kVectors; ++i) vectors[i] = (__wasi_iovec_t){bytes + i, 1};
  // None: nothing is done, wherever the list is said to be; not outside memory, though.
  done = 9;
  EXPECT_OK(transfer(fd, at(vectors), 0, at(&done)));
  EXPECT(done, 0);
  EXPECT_OK(transfer(fd, memory_end(), 0, at(&done)));
  EXPECT_OK(transfer(fd, at(vectors), 1, at(&done)));
  EXPECT(done, 1);
  EXPECT_OK(transfer(fd, at(vectors), 1024, at(&done)));
  EXPECT(done, 1024);
  EXPECT(transfer(fd, at(vectors), 1025, at(&done)), E(INVAL));
  EXPECT(transfer(fd, at(vectors), 0x20000000u, at(&done)), E(INVAL));  // times 8 is 0 in 32 bits
  EXPECT(transfer(fd, at(vectors), 0x80000000u, at(&done)), E(INVAL));
  EXPECT(transfer(fd, at(vectors), 0xffffffffu, at(&done)), E(INVAL));
  // Empty buffers, also many of them, may be anywhere.
  for (u32 i = 0; i < 1024; ++i) vectors[i] = (__wasi_iovec_t){(uint8_t*)0xffffffffu, 0};
  EXPECT_OK(transfer(fd, at(vectors), 1024, at(&done)));
  EXPECT(done, 0);
  // The list and the count at the last bytes of memory, and over them.
  vectors[0] = (__wasi_iovec_t){bytes, 2};
  memcpy((void*)(memory_end() - 8), vectors, 8);
  EXPECT_FAULTS(8, transfer(fd, p, 1, at(&done)));
  EXPECT_LAST_BYTES(8, transfer(fd, p, 1, at(&done)));
  EXPECT(transfer(fd, memory_end() - 8, 2, at(&done)), E(FAULT));
  EXPECT_FAULTS(4, transfer(fd, at(vectors), 1, p));
  EXPECT_LAST_BYTES(4, transfer(fd, at(vectors), 1, p));
  // A buffer at the last bytes, and over them; a bad one behind good ones: nothing is transferred.
  const u32 probe = (u32)open_file("a", FILE_RIGHTS);
  u64 position = 0;
  for (int i = 0; i < kBadPointers; ++i) {
    vectors[1] = (__wasi_iovec_t){(uint8_t*)bad_pointer(4, i), 4};
    done = 77;
    EXPECT(transfer(probe, at(vectors), 2, at(&done)), E(FAULT));
    EXPECT(done, 77);
    EXPECT_OK(raw_fd_tell(probe, at(&position)));
    EXPECT(position, 0);
  }
  vectors[1] = (__wasi_iovec_t){(uint8_t*)(memory_end() - 4), 4};
  EXPECT_OK(transfer(fd, at(vectors), 2, at(&done)));
  EXPECT(done, 6);
  // Lengths whose sum wraps in 32 bits.
  vectors[0] = (__wasi_iovec_t){bytes, 0xfffffff0u};
  vectors[1] = (__wasi_iovec_t){bytes, 0x20};
  EXPECT(transfer(fd, at(vectors), 2, at(&done)), E(FAULT));
  vectors[0] = (__wasi_iovec_t){0, 0xffffffffu};
  EXPECT(transfer(fd, at(vectors), 1, at(&done)), E(FAULT));
  EXPECT_OK(raw_fd_close(fd));
  EXPECT_OK(raw_fd_close(probe));
}

static void fill(void) {
  for (u32 i = 0; i < sizeof(bytes); ++i) bytes[i] = (uint8_t)('a' + i % 26);
  const u32 fd = (u32)open_rights(kRw, "a", __WASI_OFLAGS_CREAT | __WASI_OFLAGS_TRUNC, FILE_RIGHTS, 0);
  vectors[0] = (__wasi_iovec_t){bytes, sizeof(bytes)};
  EXPECT_OK(raw_fd_write(fd, at(vectors), 1, at(&done)));
  EXPECT(done, sizeof(bytes));
  EXPECT_OK(raw_fd_close(fd));
}

// Descriptors that cannot.
static void descriptors(Transfer transfer, u32 stream, u64 right) {
  static const u32 kNumbers[] = {kClosed, 1023, 1024, 0x80000000u, 0xffffffffu};
  vectors[0] = (__wasi_iovec_t){bytes, 1};
  for (int i = 0; i < 5; ++i) EXPECT(transfer(kNumbers[i], at(vectors), 1, at(&done)), E(BADF));
  EXPECT(transfer(stream, at(vectors), 1, at(&done)), E(NOTCAPABLE));
  EXPECT(transfer(kRw, at(vectors), 1, at(&done)), E(NOTCAPABLE));
  const u32 fd = (u32)open_file("a", FILE_RIGHTS & ~right);
  EXPECT(transfer(fd, at(vectors), 1, at(&done)), E(NOTCAPABLE));
  EXPECT_OK(raw_fd_close(fd));
}

SECTION(fd_read) {
  fill();
  lists(read_on);
  descriptors(read_on, 1, R(FD_READ));
  // Buffers are filled in order, each wholly; the end is 0 bytes, not an error.
  make_file("b", "hello, world");
  const u32 fd = (u32)open_file("b", FILE_RIGHTS);
  uint8_t part[3][8] = {{0}};
  for (int i = 0; i < 3; ++i) vectors[i] = (__wasi_iovec_t){part[i], 5};
  EXPECT_OK(raw_fd_read(fd, at(vectors), 3, at(&done)));
  EXPECT(done, 12);
  EXPECT(memcmp(part[0], "hello\0\0\0, wor\0\0\0ld\0\0\0\0\0\0", 24), 0);
  EXPECT_OK(raw_fd_read(fd, at(vectors), 3, at(&done)));
  EXPECT(done, 0);
  // Beyond the end there is nothing either.
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(fd, 1u << 30, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_read(fd, at(vectors), 3, at(&done)));
  EXPECT(done, 0);
  // Where position and size pass the largest offset.
  EXPECT_OK(raw_fd_seek(fd, kMax, __WASI_WHENCE_SET, at(&position)));
  EXPECT(raw_fd_read(fd, at(vectors), 1, at(&done)), E(INVAL));
  // The list, the count and the buffers may overlap: the list is read first, the count is written last.
  union {
    __wasi_iovec_t list[2];
    uint8_t raw[16];
    u32 words[4];
  } shared;
  shared.list[0] = (__wasi_iovec_t){shared.raw, 10};
  shared.list[1] = (__wasi_iovec_t){shared.raw + 10, 2};
  EXPECT_OK(raw_fd_seek(fd, 0, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_read(fd, at(&shared), 2, at(&shared.words[1])));
  EXPECT(shared.words[1], 12);
  EXPECT(memcmp(shared.raw, "hell", 4), 0);
  EXPECT(memcmp(shared.raw + 8, "orld", 4), 0);
  // Two buffers that overlap: the later one is written later.
  vectors[0] = (__wasi_iovec_t){part[0], 6};
  vectors[1] = (__wasi_iovec_t){part[0] + 2, 6};
  EXPECT_OK(raw_fd_seek(fd, 0, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_read(fd, at(vectors), 2, at(&done)));
  EXPECT(done, 12);
  EXPECT(memcmp(part[0], "he world", 8), 0);
  // The standard input gives what there is, and then its end.
  vectors[0] = (__wasi_iovec_t){part[1], 3};
  vectors[1] = (__wasi_iovec_t){part[2], 8};
  memset(part, 0, sizeof(part));
  EXPECT_OK(raw_fd_read(0, at(vectors), 2, at(&done)));
  EXPECT(done, 5);
  EXPECT(memcmp(part[1], "inp\0\0\0\0\0ut", 10), 0);
  EXPECT_OK(raw_fd_read(0, at(vectors), 2, at(&done)));
  EXPECT(done, 0);
}

SECTION(fd_pread) {
  fill();
  lists(pread_start);
  descriptors(pread_start, 1, R(FD_READ));
  make_file("b", "hello, world");
  const u32 fd = (u32)open_file("b", FILE_RIGHTS);
  uint8_t part[2][8] = {{0}};
  vectors[0] = (__wasi_iovec_t){part[0], 3};
  vectors[1] = (__wasi_iovec_t){part[1], 8};
  u64 position = 0;
  EXPECT_OK(raw_fd_seek(fd, 2, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_pread(fd, at(vectors), 2, 7, at(&done)));
  EXPECT(done, 5);
  EXPECT(memcmp(part[0], "wor\0\0\0\0\0ld", 10), 0);
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 2);
  EXPECT_OK(raw_fd_pread(fd, at(vectors), 2, 12, at(&done)));
  EXPECT(done, 0);
  EXPECT_OK(raw_fd_pread(fd, at(vectors), 2, 1ull << 40, at(&done)));
  EXPECT(done, 0);
  EXPECT_OK(raw_fd_pread(fd, at(vectors), 1, kMax - 3, at(&done)));  // ends at the largest offset
  EXPECT(done, 0);
  EXPECT(raw_fd_pread(fd, at(vectors), 1, kMax - 2, at(&done)), E(INVAL));
  EXPECT(raw_fd_pread(fd, at(vectors), 1, kMax, at(&done)), E(INVAL));
  EXPECT(raw_fd_pread(fd, at(vectors), 1, kMax + 1, at(&done)), E(INVAL));
  EXPECT(raw_fd_pread(fd, at(vectors), 1, UINT64_MAX, at(&done)), E(INVAL));
  EXPECT(raw_fd_pread(0, at(vectors), 1, 0, at(&done)), E(SPIPE));
}

SECTION(fd_write) {
  fill();
  lists(write_on);
  descriptors(write_on, 0, R(FD_WRITE));
  u32 fd = (u32)open_file("b", FILE_RIGHTS);
  vectors[0] = (__wasi_iovec_t){(uint8_t*)"hello", 5};
  vectors[1] = (__wasi_iovec_t){(uint8_t*)"", 0};
  vectors[2] = (__wasi_iovec_t){(uint8_t*)", world", 7};
  EXPECT_OK(raw_fd_write(fd, at(vectors), 3, at(&done)));
  EXPECT(done, 12);
  EXPECT_TRUE(holds(kRw, "b", "hello, world"));
  u64 position = 0;
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 12);
  // Behind the end: what lies between reads as zeros.
  EXPECT_OK(raw_fd_seek(fd, 15, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_write(fd, at(vectors), 1, at(&done)));
  EXPECT(size_of((int)fd), 20);
  // A file cannot be so long.
  EXPECT_OK(raw_fd_seek(fd, kMax - 5, __WASI_WHENCE_SET, at(&position)));
  EXPECT(raw_fd_write(fd, at(vectors), 1, at(&done)), E(FBIG));
  EXPECT_OK(raw_fd_seek(fd, kMax, __WASI_WHENCE_SET, at(&position)));
  EXPECT(raw_fd_write(fd, at(vectors), 1, at(&done)), E(INVAL));
  EXPECT(size_of((int)fd), 20);
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, kMax);
  // Appending goes to the end, wherever the position is; each of two writers finds it.
  u32 first = 0, second = 0;
  EXPECT_OK(raw_path_open(kRw, 0, PATH("log"), __WASI_OFLAGS_CREAT, FILE_RIGHTS, 0, __WASI_FDFLAGS_APPEND, at(&first)));
  EXPECT_OK(raw_path_open(kRw, 0, PATH("log"), 0, FILE_RIGHTS, 0, __WASI_FDFLAGS_APPEND, at(&second)));
  EXPECT_OK(raw_fd_write(first, at(vectors), 1, at(&done)));
  EXPECT_OK(raw_fd_write(second, at(vectors + 2), 1, at(&done)));
  EXPECT_OK(raw_fd_seek(first, 0, __WASI_WHENCE_SET, at(&position)));
  EXPECT_OK(raw_fd_write(first, at(vectors), 1, at(&done)));
  EXPECT_TRUE(holds(kRw, "log", "hello, worldhello"));
  EXPECT_OK(raw_fd_tell(first, at(&position)));
  EXPECT(position, 17);
  // The output takes all that is written at once.
  EXPECT_OK(raw_fd_write(1, at(vectors), 3, at(&done)));
  EXPECT(done, 12);
  // The list and what it names may be the same bytes.
  __wasi_ciovec_t self = {(const uint8_t*)&self, sizeof(self)};
  EXPECT_OK(raw_fd_write(second, at(&self), 1, at(&done)));
  EXPECT(done, sizeof(self));
}

SECTION(fd_pwrite) {
  fill();
  lists(pwrite_start);
  descriptors(pwrite_start, 0, R(FD_WRITE));
  const u32 fd = (u32)open_file("b", FILE_RIGHTS);
  vectors[0] = (__wasi_iovec_t){(uint8_t*)"ab", 2};
  vectors[1] = (__wasi_iovec_t){(uint8_t*)"cd", 2};
  EXPECT_OK(raw_fd_pwrite(fd, at(vectors), 2, 0, at(&done)));
  EXPECT(done, 4);
  EXPECT_OK(raw_fd_pwrite(fd, at(vectors), 1, 3, at(&done)));
  EXPECT_TRUE(holds(kRw, "b", "abcab"));
  u64 position = 0;
  EXPECT_OK(raw_fd_tell(fd, at(&position)));
  EXPECT(position, 0);
  EXPECT(raw_fd_pwrite(fd, at(vectors), 1, kMax - 2, at(&done)), E(FBIG));
  EXPECT(raw_fd_pwrite(fd, at(vectors), 1, kMax, at(&done)), E(INVAL));
  EXPECT(raw_fd_pwrite(fd, at(vectors), 1, kMax + 1, at(&done)), E(INVAL));
  EXPECT(raw_fd_pwrite(fd, at(vectors), 1, UINT64_MAX, at(&done)), E(INVAL));
  EXPECT(size_of((int)fd), 5);
  EXPECT(raw_fd_pwrite(1, at(vectors), 1, 0, at(&done)), E(SPIPE));
  // In append mode data goes to the end of the file, as on Linux.
  EXPECT_OK(raw_fd_fdstat_set_flags(fd, __WASI_FDFLAGS_APPEND));
  EXPECT_OK(raw_fd_pwrite(fd, at(vectors), 2, 0, at(&done)));
  EXPECT_TRUE(holds(kRw, "b", "abcababcd"));
}

MAIN(LISTED(fd_read), LISTED(fd_pread), LISTED(fd_write), LISTED(fd_pwrite))
