#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "host/call_streams.h"
#include "host/state_files.h"
#include "host/streams.h"
#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

using Kind = Descriptor::Kind;

bool is_stream(const Descriptor& descriptor) {
  return descriptor.kind != Kind::kFile && descriptor.kind != Kind::kDirectory && descriptor.kind != Kind::kState;
}

// The process's descriptor behind a standard stream, or -1 for a buffer.
int stream_fd(const HostState& state, const Descriptor& descriptor) {
  switch (descriptor.kind) {
    case Kind::kStdin: return state.streams.in;
    case Kind::kStdout: return state.streams.out;
    case Kind::kStderr: return state.streams.err;
    default: return -1;
  }
}

Status status_of(int result) { return result == 0 ? Errno::kSuccess : errno_of(errno); }

Status synchronise(HostCall& call, Fd fd, Rights needed, int (*function)(int)) {
  const auto found = find(state_of(call), fd, needed);
  if (!found) return found.error();
  if ((*found)->kind == Kind::kState) return sync_state_file(call, **found);
  if ((*found)->kind == Kind::kCall) return sync_call_stream(call, **found);
  if (is_stream(**found)) return Errno::kInval;  // as fsync() of a pipe
  return status_of(function((*found)->fd.get()));
}

// What getdents64 writes.
struct KernelDirent {
  uint64_t ino;
  int64_t next;
  uint16_t bytes;
  uint8_t type;
  char name[];
};
constexpr size_t kKernelDirentBytesMin = 19;

uint8_t file_type_of_dirent(uint8_t type) { return type == DT_UNKNOWN ? 0 : file_type_of(DTTOIF(type)); }

}  // namespace

Status fd_advise(HostCall& call, Fd fd, uint64_t offset, uint64_t len, uint32_t advice) {
  static constexpr int kAdvice[] = {POSIX_FADV_NORMAL,   POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM,
                                    POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED,   POSIX_FADV_NOREUSE};
  const auto found = find(state_of(call), fd, rights::kFdAdvise);
  if (!found) return found.error();
  if ((*found)->kind == Kind::kDirectory) return Errno::kBadf;
  const bool is_state = (*found)->kind == Kind::kState;
  if (!is_state && (is_stream(**found) || !(*found)->seekable)) return Errno::kSpipe;
  if (advice >= std::size(kAdvice) || offset > INT64_MAX || len > INT64_MAX) return Errno::kInval;
  if (is_state) return Errno::kSuccess;
  return errno_of(
      ::posix_fadvise((*found)->fd.get(), static_cast<off_t>(offset), static_cast<off_t>(len), kAdvice[advice]));
}

Status fd_allocate(HostCall& call, Fd fd, uint64_t offset, uint64_t len) {
  const auto found = find(state_of(call), fd, rights::kFdAllocate);
  if (!found) return found.error();
  const bool is_state = (*found)->kind == Kind::kState;
  if ((*found)->kind != Kind::kFile && !is_state) return Errno::kBadf;
  if (!is_state && !(*found)->seekable) return Errno::kSpipe;
  if (offset > INT64_MAX || len > INT64_MAX || len == 0) return Errno::kInval;
  if (is_state) return resize_state_file(call, **found, offset + len, false);
  if ((*found)->source == Preopen::Source::kLocalLayer && !state_of(call).cover_layer((*found)->fd.get(), len))
    return Errno::kNoSpc;
  return status_of(::fallocate((*found)->fd.get(), 0, static_cast<off_t>(offset), static_cast<off_t>(len)));
}

Status fd_close(HostCall& call, Fd fd) {
  HostState& state = state_of(call);
  const Descriptor* descriptor = state.descriptor(fd);
  if (!descriptor) return Errno::kBadf;
  close_call_stream(state, *descriptor);
  state.descriptors[fd].reset();
  return Errno::kSuccess;
}

Status fd_datasync(HostCall& call, Fd fd) { return synchronise(call, fd, rights::kFdDatasync, ::fdatasync); }

Status fd_sync(HostCall& call, Fd fd) { return synchronise(call, fd, rights::kFdSync, ::fsync); }

Status fd_fdstat_get(HostCall& call, Fd fd, GuestPtr<Fdstat> stat) {
  const Descriptor* descriptor = state_of(call).descriptor(fd);
  if (!descriptor) return Errno::kBadf;
  Fdstat out;
  out.filetype = descriptor->file_type;
  out.flags = descriptor->flags;
  out.rights_base = descriptor->rights_base;
  out.rights_inheriting = descriptor->rights_inheriting;
  return stat.copy_out(GuestMemory(call), out) ? Errno::kSuccess : Errno::kFault;
}

Status fd_fdstat_set_flags(HostCall& call, Fd fd, uint32_t flags) {
  const auto found = find(state_of(call), fd, rights::kFdFdstatSetFlags);
  if (!found) return found.error();
  Descriptor& descriptor = **found;
  constexpr uint32_t kSettable = fdflags::kAppend | fdflags::kNonblock;
  if (flags & ~uint32_t{fdflags::kAll}) return Errno::kInval;
  if ((flags ^ descriptor.flags) & ~kSettable) return Errno::kNotSup;  // Linux cannot change how an open file syncs
  if (descriptor.kind == Kind::kFile && ((flags ^ descriptor.flags) & fdflags::kAppend)) {
    const int now = ::fcntl(descriptor.fd.get(), F_GETFL);
    if (now < 0) return errno_of(errno);
    const int next = flags & fdflags::kAppend ? now | O_APPEND : now & ~O_APPEND;
    if (::fcntl(descriptor.fd.get(), F_SETFL, next) != 0) return errno_of(errno);
  }
  descriptor.flags = static_cast<uint16_t>(flags);
  return Errno::kSuccess;
}

// Rights can only be given up.
Status fd_fdstat_set_rights(HostCall& call, Fd fd, uint64_t base, uint64_t inheriting) {
  Descriptor* descriptor = state_of(call).descriptor(fd);
  if (!descriptor) return Errno::kBadf;
  if ((base & ~descriptor->rights_base) || (inheriting & ~descriptor->rights_inheriting)) return Errno::kNotCapable;
  descriptor->rights_base = base;
  descriptor->rights_inheriting = inheriting;
  return Errno::kSuccess;
}

Status fd_filestat_get(HostCall& call, Fd fd, GuestPtr<Filestat> stat) {
  HostState& state = state_of(call);
  const auto found = find(state, fd, rights::kFdFilestatGet);
  if (!found) return found.error();
  Filestat out;
  const int host_fd = is_stream(**found) ? stream_fd(state, **found) : (*found)->fd.get();
  if (host_fd >= 0) {
    struct stat info;
    if (::fstat(host_fd, &info) != 0) return errno_of(errno);
    out = filestat_of(info);
  }
  if ((*found)->kind == Kind::kState) out = filestat_of_state(**found);
  if ((*found)->kind == Kind::kCall) out = filestat_of_call(state, **found);
  out.filetype = (*found)->file_type;
  return stat.copy_out(GuestMemory(call), out) ? Errno::kSuccess : Errno::kFault;
}

Status fd_filestat_set_size(HostCall& call, Fd fd, uint64_t size) {
  const auto found = find(state_of(call), fd, rights::kFdFilestatSetSize);
  if (!found) return found.error();
  const bool is_state = (*found)->kind == Kind::kState;
  if ((*found)->kind != Kind::kFile && !is_state) return Errno::kBadf;
  if (size > INT64_MAX || (is_state && (*found)->access == Access::kReadOnly)) return Errno::kInval;
  if (is_state) return resize_state_file(call, **found, size, true);
  return status_of(::ftruncate((*found)->fd.get(), static_cast<off_t>(size)));
}

Status fd_filestat_set_times(HostCall& call, Fd fd, uint64_t atim, uint64_t mtim, uint32_t flags) {
  const auto found = find(state_of(call), fd, rights::kFdFilestatSetTimes);
  if (!found) return found.error();
  if (is_stream(**found)) return Errno::kBadf;
  const auto times = times_of(atim, mtim, flags);
  if (!times) return times.error();
  if ((*found)->access == Access::kReadOnly) return Errno::kRofs;
  return status_of(::futimens((*found)->fd.get(), times->data()));
}

Status fd_prestat_get(HostCall& call, Fd fd, GuestPtr<Prestat> prestat) {
  const Descriptor* descriptor = state_of(call).descriptor(fd);
  if (!descriptor || !descriptor->is_preopen) return Errno::kBadf;
  Prestat out;
  out.name_len = static_cast<uint32_t>(descriptor->path.size());
  return prestat.copy_out(GuestMemory(call), out) ? Errno::kSuccess : Errno::kFault;
}

Status fd_prestat_dir_name(HostCall& call, Fd fd, Bytes8 path, uint32_t path_len) {
  const Descriptor* descriptor = state_of(call).descriptor(fd);
  if (!descriptor || !descriptor->is_preopen) return Errno::kBadf;
  if (path_len < descriptor->path.size()) return Errno::kNameTooLong;
  return path.copy_out(GuestMemory(call), as_bytes(descriptor->path)) ? Errno::kSuccess : Errno::kFault;
}

// The cookie of an entry is the kernel's own, so nothing has to be remembered between two calls. The last entry may be
// cut short: a full buffer tells the guest to ask again, from the last whole one.
Status fd_readdir(HostCall& call, Fd fd, Bytes8 buf, uint32_t buf_len, uint64_t cookie, GuestPtr<uint32_t> used) {
  const auto found = find(state_of(call), fd, rights::kFdReaddir);
  if (!found) return found.error();
  if ((*found)->kind != Kind::kDirectory) return Errno::kNotDir;
  const GuestMemory memory(call);
  if (!buf.range(memory, buf_len)) return Errno::kFault;
  if ((*found)->source == Preopen::Source::kState) return list_state_files(call, **found, buf, buf_len, cookie, used);
  const int directory = (*found)->fd.get();
  struct stat self;
  if (::fstat(directory, &self) != 0) return errno_of(errno);
  if (cookie > INT64_MAX || ::lseek(directory, static_cast<off_t>(cookie), SEEK_SET) < 0) return Errno::kInval;

  uint32_t done = 0;
  const auto append = [&](ByteSpan bytes) {
    const size_t size = std::min<size_t>(bytes.size(), buf_len - done);
    const bool ok = buf.at(done).copy_out(memory, bytes.first(size));
    done += static_cast<uint32_t>(size);
    return ok;
  };
  alignas(KernelDirent) std::array<char, 32 << 10> entries;
  while (done < buf_len) {
    const long got = ::syscall(SYS_getdents64, directory, entries.data(), entries.size());
    if (got < 0) return errno_of(errno);
    if (got == 0) break;
    for (size_t at = 0; at + kKernelDirentBytesMin <= static_cast<size_t>(got) && done < buf_len;) {
      const auto* entry = reinterpret_cast<const KernelDirent*>(entries.data() + at);
      const std::string_view name(entry->name);
      Dirent head;
      head.next = static_cast<uint64_t>(entry->next);
      head.ino = name == ".." ? self.st_ino : entry->ino;  // what is above a preopened directory is not the guest's
      head.namlen = static_cast<uint32_t>(name.size());
      head.type = file_type_of_dirent(entry->type);
      if (!append({reinterpret_cast<const uint8_t*>(&head), sizeof(head)}) || !append(as_bytes(name))) {
        return Errno::kFault;
      }
      at += entry->bytes;
    }
  }
  return used.copy_out(memory, done) ? Errno::kSuccess : Errno::kFault;
}

Status fd_renumber(HostCall& call, Fd from, Fd to) {
  HostState& state = state_of(call);
  if (!state.descriptor(from) || !state.descriptor(to)) return Errno::kBadf;
  if (from != to) {
    close_call_stream(state, *state.descriptors[to]);
    state.descriptors[to] = std::move(state.descriptors[from]);
    state.descriptors[from].reset();
  }
  return Errno::kSuccess;
}

}  // namespace spore::host::wasi
