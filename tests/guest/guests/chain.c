// Calls of other functions from a guest's side, by imports and by files: each command is a section of checks, or does
// one wrong thing. The functions are those of chain_test.cc.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../sdk/c/spore.h"
#include "check.h"

#define CALLS "/spore/call/"
#define EXPECT_ERRNO(expression, wanted) EXPECT((expression) < 0 ? errno : 0, wanted)

static int64_t begin(const char* name, const char* input) {
  return spore_call(name, (uint32_t)strlen(name), input, (uint32_t)strlen(input));
}

static int own_entry(void) { return 0; }

static int imports(void) {
  char text[100] = {0};
  const uint32_t echo = (uint32_t)begin("echo", "hello");
  EXPECT(echo, 1);
  EXPECT(spore_call_await(echo, SPORE_AWAIT_FOREVER), 0);
  EXPECT(spore_call_await(echo, 0), 0);  // again
  EXPECT(spore_call_output_size(echo), 5);
  EXPECT(spore_call_output_read(echo, 1, text, 100), 4);
  EXPECT(strcmp(text, "ello"), 0);
  EXPECT(spore_call_output_read(echo, 5, text, 100), 0);
  EXPECT(spore_call_output_read(echo, UINT64_MAX, text, 100), 0);
  EXPECT(spore_call_message(echo, text, 100), 0);
  const uint32_t fails = (uint32_t)begin("fail@7", "");
  EXPECT(spore_call_await(fails, 0), 3);
  EXPECT(spore_call_output_size(fails), 7);
  EXPECT(spore_call_message(fails, text, 2), 2);
  EXPECT(memcmp(text, "it", 2), 0);
  EXPECT(spore_call_await((uint32_t)begin("trap", ""), 0), -ECHILD);
  const uint32_t own = (uint32_t)spore_call_self(own_entry, "x", 1);
  EXPECT(spore_call_await(own, 0), 0);
  EXPECT(spore_call_output_read(own, 0, text, 100), 4);  // its entry, as the test has it
  EXPECT(memcmp(text, &(int (*)(void)){own_entry}, 4), 0);

  // One that does not end.
  const uint32_t never = (uint32_t)begin("never", "");
  EXPECT(spore_call_await(never, 0), -EAGAIN);
  EXPECT(spore_call_await(never, 5), -EAGAIN);
  EXPECT(spore_call_output_size(never), -EAGAIN);
  EXPECT(spore_call_output_read(never, 0, text, 100), -EAGAIN);
  EXPECT(spore_call_message(never, text, 100), -EAGAIN);
  const uint32_t both[] = {never, echo};
  EXPECT(spore_call_await_any(both, 2, SPORE_AWAIT_FOREVER), 1);
  EXPECT(spore_call_await_any(both, 1, 5), -EAGAIN);
  EXPECT(spore_call_await((uint32_t)begin("later", "x"), SPORE_AWAIT_FOREVER), 0);
  EXPECT(spore_call_cancel(never), 0);
  EXPECT(spore_call_await(never, 0), -ECANCELED);
  EXPECT(spore_call_close(never), 0);

  char id[SPORE_CALL_ID_BYTES];
  EXPECT(spore_call_detached("echo", 4, "hello", 5, id), 0);
  for (int i = 0; i < SPORE_CALL_ID_BYTES; ++i) EXPECT(id[i], 'd');
  EXPECT(spore_call_detached("nobody", 6, "", 0, id), -ENOENT);

  // Handles that are none.
  const uint32_t none[] = {0, never, 1000, UINT32_MAX};
  for (int i = 0; i < 4; ++i) {
    EXPECT(spore_call_await(none[i], 0), -EBADF);
    EXPECT(spore_call_await_any(none + i, 1, 0), -EBADF);
    EXPECT(spore_call_output_size(none[i]), -EBADF);
    EXPECT(spore_call_output_read(none[i], 0, text, 1), -EBADF);
    EXPECT(spore_call_message(none[i], text, 1), -EBADF);
    EXPECT(spore_call_cancel(none[i]), -EBADF);
    EXPECT(spore_call_close(none[i]), -EBADF);
  }
  EXPECT(spore_call_await_any(none, 0, 0), -EINVAL);
  EXPECT(spore_call_await_any(none, 100000, 0), -EINVAL);

  // Names that are none.
  EXPECT(begin("nobody", ""), -ENOENT);
  EXPECT(begin("full", ""), -EAGAIN);
  EXPECT(begin("", ""), -EINVAL);
  EXPECT(begin("../echo", ""), -EINVAL);
  EXPECT(begin("\xff\x01", ""), -EINVAL);
  EXPECT(spore_call("echo\0x", 6, "", 0), -EINVAL);
  static char large[200];
  memset(large, 'n', sizeof(large));
  EXPECT(spore_call(large, 129, "", 0), -EINVAL);
  EXPECT(spore_call(large, UINT32_MAX, "", 0), -EINVAL);
  EXPECT(spore_call("echo", 4, large, 101), -E2BIG);  // more than this host takes
  EXPECT(spore_call("echo", 4, 0, 0) > 0, 1);
  return finish();
}

static int files(void) {
  char text[100] = {0};
  struct stat info;
  int fd = open(CALLS "echo", O_RDWR);
  EXPECT_TRUE(fd >= 0);
  EXPECT(write(fd, "hel", 3), 3);
  EXPECT(write(fd, "lo", 2), 2);
  EXPECT(fstat(fd, &info), 0);
  EXPECT(info.st_size, 0);
  EXPECT(read(fd, text, 0), 0);
  EXPECT(write(fd, "!", 1), 1);
  EXPECT(read(fd, text, 4), 4);
  EXPECT(memcmp(text, "hell", 4), 0);
  EXPECT(read(fd, text, 100), 2);
  EXPECT(memcmp(text, "o!", 2), 0);
  EXPECT(read(fd, text, 100), 0);
  EXPECT_ERRNO(write(fd, "x", 1), EPIPE);
  EXPECT(fstat(fd, &info), 0);
  EXPECT(info.st_size, 6);
  EXPECT_TRUE(S_ISREG(info.st_mode));
  EXPECT_ERRNO(lseek(fd, 0, SEEK_SET), ESPIPE);
  EXPECT_ERRNO(pread(fd, text, 1, 0), ESPIPE);
  EXPECT_TRUE(ftruncate(fd, 0) < 0);
  EXPECT_ERRNO(spore_call_await(1, 0), 0);
  EXPECT(close(fd), 0);
  EXPECT(spore_call_await(1, 0), -EBADF);  // closed with it

  // Each descriptor is a call of its own; opened as they like.
  FILE* stream = fopen(CALLS "./echo", "r+");
  EXPECT_TRUE(stream != 0);
  fputs("line\n", stream);
  fflush(stream);
  EXPECT_TRUE(fgets(text, sizeof(text), stream) && !strcmp(text, "line\n"));
  EXPECT(fclose(stream), 0);
  fd = open(CALLS "echo", O_RDONLY);
  EXPECT(read(fd, text, 100), 0);  // no input
  EXPECT_TRUE(write(fd, "x", 1) < 0);
  close(fd);
  fd = open(CALLS "echo", O_WRONLY | O_CREAT | O_TRUNC, 0666);
  EXPECT(write(fd, "x", 1), 1);
  EXPECT(fsync(fd), 0);
  EXPECT(fsync(fd), 0);
  EXPECT_TRUE(read(fd, text, 1) < 0);
  close(fd);

  // Those that fail.
  fd = open(CALLS "fail", O_RDWR);
  EXPECT_ERRNO(read(fd, text, 100), EIO);
  EXPECT(read(fd, text, 100), 11);
  EXPECT(memcmp(text, "exit code 3", 11), 0);
  EXPECT(read(fd, text, 100), 0);
  close(fd);
  fd = open(CALLS "trap", O_RDWR);
  EXPECT(fdatasync(fd), 0);
  EXPECT_ERRNO(read(fd, text, 100), ECHILD);
  EXPECT(read(fd, text, 10), 10);
  EXPECT(memcmp(text, "it trapped", 10), 0);
  close(fd);
  static const struct {
    const char* path;
    int error;
  } refused[] = {{CALLS "nobody", ENOENT}, {CALLS "full", EBUSY}, {CALLS "%2e", EINVAL}, {CALLS "\xff", EINVAL}};
  for (int i = 0; i < 4; ++i) {
    fd = open(refused[i].path, O_RDWR);
    EXPECT_TRUE(fd >= 0);
    EXPECT_ERRNO(fsync(fd), refused[i].error);
    EXPECT_ERRNO(fsync(fd), refused[i].error);
    EXPECT_ERRNO(write(fd, "x", 1), EPIPE);
    EXPECT_ERRNO(read(fd, text, 100), refused[i].error);
    EXPECT_TRUE(read(fd, text, 100) > 0);
    EXPECT(close(fd), 0);
  }

  // Waiting.
  fd = open(CALLS "never", O_RDWR);
  struct pollfd entry = {fd, POLLRDNORM, 0};
  EXPECT(poll(&entry, 1, 0), 1);  // it has not begun
  EXPECT_TRUE(entry.revents & POLLERR);
  EXPECT(fsync(fd), 0);
  EXPECT(poll(&entry, 1, 5), 0);
  EXPECT(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  EXPECT_ERRNO(read(fd, text, 100), EAGAIN);
  const int later = open(CALLS "later", O_RDWR | O_NONBLOCK);
  EXPECT(write(later, "x", 1), 1);
  EXPECT(fsync(later), 0);
  EXPECT_ERRNO(read(later, text, 100), EAGAIN);
  struct pollfd both[] = {{fd, POLLRDNORM, 0}, {later, POLLRDNORM, 0}};
  EXPECT(poll(both, 2, 10000), 1);
  EXPECT_TRUE(both[1].revents & POLLRDNORM && !both[0].revents);
  EXPECT(read(later, text, 100), 1);
  close(later);
  const int waits = open(CALLS "later", O_RDWR);
  EXPECT(read(waits, text, 100), 0);
  EXPECT(close(fd), 0);
  // Its number for another: that one's call goes.
  const int goes = open(CALLS "never", O_RDWR);
  EXPECT(fsync(goes), 0);
  EXPECT_OK(__wasi_fd_renumber((__wasi_fd_t)waits, (__wasi_fd_t)goes));
  EXPECT(read(goes, text, 100), 0);
  EXPECT(close(goes), 0);

  // Input is bounded, in all descriptors together.
  static char large[60];
  fd = open(CALLS "echo", O_RDWR);
  const int other = open(CALLS "echo", O_RDWR);
  EXPECT(write(fd, large, 60), 60);
  EXPECT_ERRNO(write(other, large, 60), EFBIG);
  EXPECT(write(other, large, 40), 40);
  EXPECT_ERRNO(write(fd, large, 1), EFBIG);
  EXPECT(fsync(fd), 0);
  EXPECT(write(other, large, 60), 60);
  close(fd);
  close(other);

  // Names.
  EXPECT_ERRNO(open(CALLS "..", O_RDONLY), EPERM);
  EXPECT_ERRNO(open(CALLS "../input", O_RDONLY), EPERM);
  EXPECT_ERRNO(open(CALLS "echo/x", O_RDWR), ENOTDIR);
  EXPECT_ERRNO(open(CALLS "echo/", O_RDWR), ENOTDIR);
  EXPECT_ERRNO(open(CALLS "echo", O_RDONLY | O_DIRECTORY), ENOTDIR);
  EXPECT_ERRNO(open(CALLS "echo", O_RDWR | O_CREAT | O_EXCL, 0666), EEXIST);
  static char path[200] = CALLS;
  memset(path + strlen(CALLS), 'n', 129);
  EXPECT_ERRNO(open(path, O_RDWR), ENAMETOOLONG);
  EXPECT(stat(CALLS "echo", &info), 0);
  EXPECT_TRUE(S_ISREG(info.st_mode));
  EXPECT(stat(CALLS, &info), 0);
  EXPECT_TRUE(S_ISDIR(info.st_mode));
  EXPECT_ERRNO(unlink(CALLS "echo"), EPERM);
  EXPECT_ERRNO(mkdir(CALLS "echo", 0777), EEXIST);
  EXPECT_ERRNO(rmdir(CALLS "echo"), ENOTDIR);
  EXPECT_ERRNO(rename(CALLS "echo", CALLS "b"), ENOTSUP);
  EXPECT_ERRNO(rename(CALLS "echo", "/b"), EXDEV);
  EXPECT_ERRNO(link("/spore/input", CALLS "b"), EXDEV);
  EXPECT_ERRNO(symlink("a", CALLS "b"), ENOTSUP);
  EXPECT_ERRNO(readlink(CALLS "echo", text, 10), EINVAL);
  return finish();
}

// Without children: nothing is offered.
static int none(void) {
  EXPECT(begin("echo", ""), -ENOTSUP);
  EXPECT(spore_call_self(own_entry, "", 0), -ENOTSUP);
  EXPECT(spore_call_await(1, 0), -ENOTSUP);
  EXPECT(spore_call_await_any(&(uint32_t){1}, 1, 0), -ENOTSUP);
  EXPECT(spore_call_output_size(1), -ENOTSUP);
  EXPECT(spore_call_cancel(1), -ENOTSUP);
  EXPECT(spore_call_close(1), -ENOTSUP);
  EXPECT_ERRNO(open(CALLS "echo", O_RDWR), ENOENT);
  EXPECT(spore_state_delete("k", 1), -ENOTSUP);
  EXPECT(spore_state_pull("k", 1, 0, 0), -ENOTSUP);
  return finish();
}

// Pointers behind memory, one argument after the other.
static int wild(int which) {
  char* const outside = (char*)(__builtin_wasm_memory_size(0) * 65536 - 2);
  const uint32_t echo = (uint32_t)begin("echo", "hello");
  switch (which) {
    case 0: spore_call(outside, 4, "", 0); break;
    case 1: spore_call("echo", 4, outside, 3); break;
    case 2: spore_call_self(own_entry, outside, 3); break;
    case 3: spore_call_detached(outside, 4, "", 0, (char[SPORE_CALL_ID_BYTES]){0}); break;
    case 4: spore_call_detached("echo", 4, outside, 3, (char[SPORE_CALL_ID_BYTES]){0}); break;
    case 5: spore_call_detached("echo", 4, "", 0, outside); break;
    case 6: spore_call_await_any((const uint32_t*)outside, 1, 0); break;
    case 7: spore_call_output_read(echo, 0, outside, 3); break;
    case 8: spore_call_message(echo, outside, 3); break;
    case 9: spore_call("echo", 4, (char*)UINTPTR_MAX, 2); break;
    case 10: spore_call_output_read(echo, 0, (char*)UINTPTR_MAX, 2); break;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 2) return 98;
  if (!strcmp(argv[1], "imports")) return imports();
  if (!strcmp(argv[1], "files")) return files();
  if (!strcmp(argv[1], "none")) return none();
  return argc < 3 ? 98 : wild(atoi(argv[2]));
}
