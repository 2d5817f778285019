#include "host/streams.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/fd.h"

namespace spore::host {
namespace {

struct Pair {
  UniqueFd reader;
  UniqueFd writer;
};

Pair make_pipe() {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

IoResult read_some(int fd, std::vector<char>& to) {
  const iovec part{to.data(), to.size()};
  return read_without_blocking(fd, {&part, 1});
}

IoResult write_some(int fd, std::vector<char>& from) {
  const iovec part{from.data(), from.size()};
  return write_without_blocking(fd, {&part, 1});
}

TEST(Streams, ReadOfAnEmptyPipeWouldBlockAndOfAClosedOneEnds) {
  Pair pipe = make_pipe();
  std::vector<char> buffer(16);
  EXPECT_EQ(read_some(pipe.reader.get(), buffer).error, EAGAIN);
  ASSERT_EQ(::write(pipe.writer.get(), "abc", 3), 3);
  EXPECT_EQ(read_some(pipe.reader.get(), buffer).count, 3u);
  pipe.writer.reset();
  const IoResult end = read_some(pipe.reader.get(), buffer);
  EXPECT_EQ(end.error, 0);
  EXPECT_EQ(end.count, 0u);
}

// Writes until it would block, then reads all: nothing is lost, and the descriptor is as blocking as before.
void fill_and_drain(int reader, int writer) {
  std::vector<char> chunk(100'000, 'x');
  size_t written = 0;
  while (true) {
    const IoResult result = write_some(writer, chunk);
    if (result.error == EAGAIN) break;
    ASSERT_EQ(result.error, 0);
    written += result.count;
    ASSERT_LT(written, 64u << 20);
  }
  EXPECT_GT(written, 0u);
  EXPECT_FALSE(is_ready(writer, POLLOUT));
  EXPECT_EQ(::fcntl(writer, F_GETFL) & O_NONBLOCK, 0);
  size_t read = 0;
  while (true) {
    const IoResult result = read_some(reader, chunk);
    if (result.error == EAGAIN) break;
    ASSERT_EQ(result.error, 0);
    read += result.count;
  }
  EXPECT_EQ(read, written);
}

TEST(Streams, WriteToAFullPipeWouldBlock) {
  Pair pipe = make_pipe();
  EXPECT_EQ(stream_type(pipe.writer.get()), StreamType::kPipe);
  fill_and_drain(pipe.reader.get(), pipe.writer.get());
}

TEST(Streams, WriteToAFullSocketWouldBlock) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  Pair pair{UniqueFd(fds[0]), UniqueFd(fds[1])};
  EXPECT_EQ(stream_type(fds[0]), StreamType::kSocket);
  fill_and_drain(pair.reader.get(), pair.writer.get());
}

TEST(Streams, RegularFileIsReadAndWrittenWhereItStands) {
  auto file = make_memfd("streams", {});
  ASSERT_TRUE(file);
  EXPECT_EQ(stream_type(file->get()), StreamType::kRegularFile);
  std::vector<char> bytes(300'000, 'y');
  EXPECT_EQ(write_some(file->get(), bytes).count, bytes.size());
  ASSERT_EQ(::lseek(file->get(), 299'000, SEEK_SET), 299'000);
  EXPECT_EQ(read_some(file->get(), bytes).count, 1000u);
  EXPECT_EQ(read_some(file->get(), bytes).count, 0u);
}

TEST(Streams, DeviceIsWritten) {
  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  std::vector<char> bytes(100, 'z');
  EXPECT_GT(write_some(null.get(), bytes).count, 0u);
}

TEST(Streams, ClosedDescriptorIsAnError) {
  Pair pipe = make_pipe();
  const int closed = pipe.reader.get();
  pipe.reader.reset();
  std::vector<char> bytes(1);
  EXPECT_EQ(read_some(closed, bytes).error, EBADF);
  EXPECT_EQ(write_some(closed, bytes).error, EBADF);
}

}  // namespace
}  // namespace spore::host
