// The functions of WASI preview 1, one C++ function each, with the parameters of the specification in its order (8 and
// 16 bit ones come as i32 and are range-checked). The table in imports.cc names them; nobody else calls them.
#pragma once

#include <sys/stat.h>

#include <array>
#include <ctime>
#include <expected>
#include <string_view>

#include "host/binding.h"
#include "host/host_state.h"
#include "host/wasi_abi.h"

namespace spore::host::wasi {

using Status = Reply<Errno>;
using Fd = uint32_t;
using Bytes8 = GuestPtr<uint8_t>;

class Buffers;

// ---- wasi_process.cc: arguments, clocks, randomness, the end ----
Status args_get(HostCall&, GuestPtr<uint32_t> argv, Bytes8 argv_buf);
Status args_sizes_get(HostCall&, GuestPtr<uint32_t> count, GuestPtr<uint32_t> bytes);
Status environ_get(HostCall&, GuestPtr<uint32_t> environ, Bytes8 environ_buf);
Status environ_sizes_get(HostCall&, GuestPtr<uint32_t> count, GuestPtr<uint32_t> bytes);
Status clock_res_get(HostCall&, ClockId id, GuestPtr<uint64_t> resolution);
Status clock_time_get(HostCall&, ClockId id, uint64_t precision, GuestPtr<uint64_t> time);
// For initialisers: realtime is 2000-01-01 and monotonic is 0, and each look is a microsecond after the last. What they
// keep of it is the same in every image, and the past for whoever goes on from it.
Status still_clock_time_get(HostCall&, ClockId id, uint64_t precision, GuestPtr<uint64_t> time);
constexpr uint64_t kStillClockNs = 946'684'800'000'000'000;
constexpr uint64_t kStillClockStepNs = 1'000;
Status random_get(HostCall&, Bytes8 buf, uint32_t len);
Reply<void> proc_exit(HostCall&, int32_t code);
Status proc_raise(HostCall&, uint32_t signal);
Status sched_yield(HostCall&);

// ---- wasi_io.cc: bytes through a descriptor ----
Status fd_read(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, GuestPtr<uint32_t> nread);
Status fd_pread(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint64_t offset, GuestPtr<uint32_t> nread);
Status fd_write(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, GuestPtr<uint32_t> nwritten);
Status fd_pwrite(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint64_t offset, GuestPtr<uint32_t> nwritten);
Status fd_seek(HostCall&, Fd fd, int64_t offset, uint32_t whence, GuestPtr<uint64_t> position);
Status fd_tell(HostCall&, Fd fd, GuestPtr<uint64_t> position);

// ---- wasi_fd.cc: a descriptor and its file ----
Status fd_advise(HostCall&, Fd fd, uint64_t offset, uint64_t len, uint32_t advice);
Status fd_allocate(HostCall&, Fd fd, uint64_t offset, uint64_t len);
Status fd_close(HostCall&, Fd fd);
Status fd_datasync(HostCall&, Fd fd);
Status fd_fdstat_get(HostCall&, Fd fd, GuestPtr<Fdstat> stat);
Status fd_fdstat_set_flags(HostCall&, Fd fd, uint32_t flags);
Status fd_fdstat_set_rights(HostCall&, Fd fd, uint64_t base, uint64_t inheriting);
Status fd_filestat_get(HostCall&, Fd fd, GuestPtr<Filestat> stat);
Status fd_filestat_set_size(HostCall&, Fd fd, uint64_t size);
Status fd_filestat_set_times(HostCall&, Fd fd, uint64_t atim, uint64_t mtim, uint32_t flags);
Status fd_prestat_get(HostCall&, Fd fd, GuestPtr<Prestat> prestat);
Status fd_prestat_dir_name(HostCall&, Fd fd, Bytes8 path, uint32_t path_len);
Status fd_readdir(HostCall&, Fd fd, Bytes8 buf, uint32_t buf_len, uint64_t cookie, GuestPtr<uint32_t> used);
Status fd_renumber(HostCall&, Fd from, Fd to);
Status fd_sync(HostCall&, Fd fd);

// ---- wasi_path.cc: names below a directory ----
Status path_create_directory(HostCall&, Fd fd, Bytes8 path, uint32_t len);
Status path_filestat_get(HostCall&, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, GuestPtr<Filestat> stat);
Status path_filestat_set_times(HostCall&, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, uint64_t atim,
                               uint64_t mtim, uint32_t flags);
Status path_link(HostCall&, Fd old_fd, uint32_t lookup, Bytes8 old_path, uint32_t old_len, Fd new_fd, Bytes8 new_path,
                 uint32_t new_len);
Status path_open(HostCall&, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, uint32_t oflags, uint64_t base,
                 uint64_t inheriting, uint32_t fdflags, GuestPtr<uint32_t> opened);
Status path_readlink(HostCall&, Fd fd, Bytes8 path, uint32_t len, Bytes8 buf, uint32_t buf_len,
                     GuestPtr<uint32_t> used);
Status path_remove_directory(HostCall&, Fd fd, Bytes8 path, uint32_t len);
Status path_rename(HostCall&, Fd old_fd, Bytes8 old_path, uint32_t old_len, Fd new_fd, Bytes8 new_path,
                   uint32_t new_len);
Status path_symlink(HostCall&, Bytes8 target, uint32_t target_len, Fd fd, Bytes8 path, uint32_t len);
Status path_unlink_file(HostCall&, Fd fd, Bytes8 path, uint32_t len);

// ---- wasi_poll.cc ----
Status poll_oneoff(HostCall&, GuestPtr<Subscription> in, GuestPtr<Event> out, uint32_t count,
                   GuestPtr<uint32_t> events);

// ---- wasi_sockets.cc: on sockets that the module "spore" has opened (host/socket_calls.h) ----
Status sock_accept(HostCall&, Fd fd, uint32_t flags, GuestPtr<uint32_t> opened);
Status sock_recv(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint32_t flags, GuestPtr<uint32_t> nread,
                 GuestPtr<uint16_t> roflags);
Status sock_send(HostCall&, Fd fd, GuestPtr<Iovec> iovs, uint32_t count, uint32_t flags, GuestPtr<uint32_t> nwritten);
Status sock_shutdown(HostCall&, Fd fd, uint32_t how);
// fd_read and fd_write of them.
Status read_socket(HostCall&, Descriptor& socket, const Buffers& buffers, GuestPtr<uint32_t> nread);
Status write_socket(HostCall&, Descriptor& socket, const Buffers& buffers, GuestPtr<uint32_t> nwritten);

// ---- shared by these files (wasi_support.cc) ----
inline HostState& state_of(HostCall& call) { return call.state<HostState>(); }

// The open descriptor if it has all of these rights, else kBadf or kNotCapable; kWaits (wasi_abi.h) where it is being
// made. An unopened one may have no `fd`.
std::expected<Descriptor*, Errno> find_unopened(HostState& state, Fd fd, Rights needed);
std::expected<Descriptor*, Errno> find(HostState& state, Fd fd, Rights needed);

Filestat filestat_of(const struct stat& info);
uint8_t file_type_of(unsigned mode);
// Of a file that Spore itself shows, not the kernel.
Filestat filestat_of_virtual(uint64_t size_bytes, uint64_t inode = 0);
// Tells the guest how many bytes there were.
Status transferred(HostCall& call, GuestPtr<uint32_t> count, uint64_t bytes);

// The first component of a path, taken off it with the slash behind it.
std::string_view take_component(std::string_view& path);
// What of a path below this directory lies below the directory of that name and source which Spore itself shows.
// Nothing where it lies elsewhere, or is that directory.
std::optional<std::string_view> path_below(const Descriptor& directory, const std::string& path, std::string_view name,
                                           Preopen::Source source);
// How such a path is opened.
struct VirtualOpening {
  bool create = false;
  bool exclusive = false;
  bool truncate = false;
  bool directory = false;
  bool writes = false;
};

// WASI's times and flags as utimensat() takes them; kInval for contradicting or unknown flags.
std::expected<std::array<timespec, 2>, Errno> times_of(uint64_t atim, uint64_t mtim, uint32_t flags);

// A list of buffers of the guest, each range checked. Empty ones are left out, whatever they point to. At most
// kIovecsMax (more is kInval); their sum is cut to kTransferBytesMax, which bounds the time in one host call.
constexpr uint32_t kIovecsMax = 1024;
constexpr uint64_t kTransferBytesMax = 64ull << 20;
class Buffers {
 public:
  Errno gather(const GuestMemory& memory, GuestPtr<Iovec> iovs, uint32_t count);
  std::span<const iovec> list() const { return {list_.data(), used_}; }
  uint64_t size_bytes() const { return size_bytes_; }
  // Copies as much of `from` into them as fits; the number of bytes, or nothing where a page of the guest is not there.
  std::optional<size_t> scatter(ByteSpan from) const;
  // Copies their first to.size() bytes.
  bool collect(std::span<uint8_t> to) const;

 private:
  std::array<iovec, kIovecsMax> list_;  // the first used_ of them
  size_t used_ = 0;
  uint64_t size_bytes_ = 0;
};

}  // namespace spore::host::wasi
