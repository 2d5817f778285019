// Reading and writing descriptors that others share (the standard streams of this process), without blocking and
// without making them non-blocking, which those others would notice. Any thread.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace spore::host {

enum class StreamType { kPipe, kTerminal, kSocket, kRegularFile };
// Anything that is not one of the others counts as a pipe.
StreamType stream_type(int fd);

// Bytes transferred, or an errno: EAGAIN where it would block (wait for POLLIN or POLLOUT), also after a signal. Writes
// may be short; a reader that is gone is EPIPE, and SIGPIPE as for any program.
struct IoResult {
  size_t count = 0;
  int error = 0;
};
IoResult read_without_blocking(int fd, std::span<const iovec> to);
IoResult write_without_blocking(int fd, std::span<const iovec> from);

// What is left of these buffers behind their first `bytes`; changes the first one of it. Empty ones are passed over.
std::span<iovec> behind(std::span<iovec> buffers, uint64_t bytes);

// Whether poll() would say that it is ready for `events` (errors and hang-ups count).
bool is_ready(int fd, short events);

}  // namespace spore::host
