// Calls of other functions as files: /spore/call/FUNCTION, for programs that know nothing of Spore. A descriptor is one
// call of that function, or of FUNCTION@VERSION:
//
//   write               appends to its input; all inputs that a call is writing are up to HostLimits::input_bytes_max
//                       together (EFBIG)
//   fsync, fdatasync    begins it; so does the first read. Its input is closed then (EPIPE)
//   read                waits for its end and gives the output, then 0. Of one that failed, the first read gives the
//                       error, the following ones what went wrong in words: "exit code N", or its message
//   poll                readable once it has ended, EINVAL before it has begun; writable until it begins
//   fstat               st_size: the bytes that there are to read in all, 0 until it has ended
//   close               forgets it; cancels what still runs
//
// It has no positions: ESPIPE. Errors of a child are those of chain_calls.h, and EIO where its exit code is not 0. One
// that cannot begin is ENOENT, EINVAL or EBUSY (a limit), told by fsync and by the first read. With O_NONBLOCK reading
// is EAGAIN while it runs.
//
// FUNCTION is one component of a path, as it is written. The functions of WASI (wasi_*.cc) come here with what
// call_path() recognises, and with descriptors of the kind kCall. All run on the thread of the call.
#pragma once

#include <expected>
#include <optional>
#include <string>

#include "host/wasi.h"

namespace spore::host::wasi {

// The function that a path below this directory names; nothing where it is not one below /spore/call. kPerm for "..",
// kNotDir where something is behind it, kNameTooLong.
std::expected<std::optional<std::string>, Errno> call_path(const HostState& state, const Descriptor& directory,
                                                           const std::string& path);

// `descriptor` comes with its path, flags and rights. Whether there is such a function is asked when the call begins.
Status open_call_stream(HostCall& call, const std::string& function, const VirtualOpening& opening,
                        Descriptor descriptor, GuestPtr<uint32_t> opened);
Status stat_call_stream(HostCall& call, GuestPtr<Filestat> stat);

// A descriptor of the kind kCall.
Status read_call_stream(HostCall& call, Descriptor& descriptor, const Buffers& buffers, GuestPtr<uint32_t> nread);
Status write_call_stream(HostCall& call, Descriptor& descriptor, const Buffers& buffers, GuestPtr<uint32_t> nwritten);
Status sync_call_stream(HostCall& call, Descriptor& descriptor);
Filestat filestat_of_call(HostState& state, const Descriptor& descriptor);

struct CallReadiness {
  Errno error = Errno::kSuccess;
  int wait_fd = -1;  // readable when it is time to ask again; -1: it is ready
  uint64_t bytes = 0;
};
CallReadiness readiness_of_call(HostState& state, const Descriptor& descriptor, bool to_read);

// Before a descriptor goes; of any kind.
void close_call_stream(HostState& state, const Descriptor& descriptor);

}  // namespace spore::host::wasi
