#include "host/streams.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace spore::host {

namespace {

// A write of at most PIPE_BUF bytes does not block where poll() says POLLOUT.
constexpr size_t kAtomicBytes = 4096;

IoResult result_of(ssize_t count) {
  if (count >= 0) return {static_cast<size_t>(count), 0};
  return {0, errno == EINTR ? EAGAIN : errno};
}

}  // namespace

StreamType stream_type(int fd) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return StreamType::kPipe;
  if (S_ISREG(info.st_mode)) return StreamType::kRegularFile;
  if (S_ISSOCK(info.st_mode)) return StreamType::kSocket;
  return S_ISCHR(info.st_mode) && ::isatty(fd) ? StreamType::kTerminal : StreamType::kPipe;
}

std::span<iovec> behind(std::span<iovec> buffers, uint64_t bytes) {
  while (!buffers.empty() && bytes >= buffers.front().iov_len) {
    bytes -= buffers.front().iov_len;
    buffers = buffers.subspan(1);
  }
  if (buffers.empty()) return buffers;
  buffers.front().iov_base = static_cast<uint8_t*>(buffers.front().iov_base) + bytes;
  buffers.front().iov_len -= bytes;
  return buffers;
}

bool is_ready(int fd, short events) {
  pollfd entry{fd, events, 0};
  return ::poll(&entry, 1, 0) > 0;
}

IoResult read_without_blocking(int fd, std::span<const iovec> to) {
  if (stream_type(fd) != StreamType::kRegularFile && !is_ready(fd, POLLIN)) return {0, EAGAIN};
  return result_of(::readv(fd, to.data(), static_cast<int>(to.size())));
}

IoResult write_without_blocking(int fd, std::span<const iovec> from) {
  const int count = static_cast<int>(from.size());
  switch (stream_type(fd)) {
    case StreamType::kRegularFile: return result_of(::writev(fd, from.data(), count));
    case StreamType::kSocket: {
      msghdr message{};
      message.msg_iov = const_cast<iovec*>(from.data());
      message.msg_iovlen = from.size();
      return result_of(::sendmsg(fd, &message, MSG_DONTWAIT));
    }
    case StreamType::kPipe: {
      const ssize_t written = ::pwritev2(fd, from.data(), count, -1, RWF_NOWAIT);
      if (written >= 0 || (errno != EOPNOTSUPP && errno != EINVAL && errno != ENOSYS)) return result_of(written);
      break;  // a kernel before 6.4, or a device
    }
    case StreamType::kTerminal: break;
  }
  if (!is_ready(fd, POLLOUT)) return {0, EAGAIN};
  const auto first = std::find_if(from.begin(), from.end(), [](const iovec& part) { return part.iov_len > 0; });
  if (first == from.end()) return {0, 0};
  return result_of(::write(fd, first->iov_base, std::min(first->iov_len, kAtomicBytes)));
}

}  // namespace spore::host
