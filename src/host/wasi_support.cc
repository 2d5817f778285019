#include <algorithm>
#include <cerrno>

#include "host/wasi.h"

namespace spore::host::wasi {

Errno errno_of(int host_errno) {
  switch (host_errno) {
    case 0: return Errno::kSuccess;
    case E2BIG: return Errno::k2Big;
    case EACCES: return Errno::kAcces;
    case EADDRINUSE: return Errno::kAddrInUse;
    case EADDRNOTAVAIL: return Errno::kAddrNotAvail;
    case EAFNOSUPPORT: return Errno::kAfNoSupport;
    case EAGAIN: return Errno::kAgain;
    case EALREADY: return Errno::kAlready;
    case EBADF: return Errno::kBadf;
    case EBADMSG: return Errno::kBadMsg;
    case EBUSY: return Errno::kBusy;
    case ECONNABORTED: return Errno::kConnAborted;
    case ECONNREFUSED: return Errno::kConnRefused;
    case ECONNRESET: return Errno::kConnReset;
    case EDEADLK: return Errno::kDeadlk;
    case EDESTADDRREQ: return Errno::kDestAddrReq;
    case EDQUOT: return Errno::kDquot;
    case EEXIST: return Errno::kExist;
    case EFAULT: return Errno::kFault;
    case EFBIG: return Errno::kFbig;
    case EHOSTDOWN:
    case EHOSTUNREACH: return Errno::kHostUnreach;
    case EILSEQ: return Errno::kIlseq;
    case EINPROGRESS: return Errno::kInProgress;
    case EINTR: return Errno::kIntr;
    case EINVAL: return Errno::kInval;
    case EIO: return Errno::kIo;
    case EISCONN: return Errno::kIsConn;
    case EISDIR: return Errno::kIsDir;
    case ELOOP: return Errno::kLoop;
    case EMFILE: return Errno::kMfile;
    case EMLINK: return Errno::kMlink;
    case EMSGSIZE: return Errno::kMsgSize;
    case ENAMETOOLONG: return Errno::kNameTooLong;
    case ENETDOWN: return Errno::kNetDown;
    case ENETRESET: return Errno::kNetReset;
    case ENONET:
    case ENETUNREACH: return Errno::kNetUnreach;
    case ENFILE: return Errno::kNfile;
    case ENOBUFS: return Errno::kNoBufs;
    case ENODEV: return Errno::kNoDev;
    case ENOENT: return Errno::kNoEnt;
    case ENOLCK: return Errno::kNoLck;
    case ENOMEM: return Errno::kNoMem;
    case ENOPROTOOPT: return Errno::kNoProtoOpt;
    case ENOSPC: return Errno::kNoSpc;
    case ENOSYS: return Errno::kNoSys;
    case ENOTCONN: return Errno::kNotConn;
    case ENOTDIR: return Errno::kNotDir;
    case ENOTEMPTY: return Errno::kNotEmpty;
    case ENOTSOCK: return Errno::kNotSock;
    case EOPNOTSUPP: return Errno::kNotSup;
    case ENOTTY: return Errno::kNoTty;
    case ENXIO: return Errno::kNxio;
    case EOVERFLOW: return Errno::kOverflow;
    case EPERM: return Errno::kPerm;
    case EPIPE: return Errno::kPipe;
    case EPROTO: return Errno::kProto;
    case EPROTONOSUPPORT: return Errno::kProtoNoSupport;
    case EPROTOTYPE: return Errno::kPrototype;
    case ERANGE: return Errno::kRange;
    case EROFS: return Errno::kRofs;
    case ESPIPE: return Errno::kSpipe;
    case ESTALE: return Errno::kStale;
    case ETIMEDOUT: return Errno::kTimedOut;
    case ETXTBSY: return Errno::kTxtBsy;
    case EXDEV: return Errno::kXdev;
    default: return Errno::kIo;
  }
}

std::expected<Descriptor*, Errno> find_unopened(HostState& state, Fd fd, Rights needed) {
  Descriptor* descriptor = state.descriptor(fd);
  if (!descriptor) return std::unexpected(Errno::kBadf);
  if ((descriptor->rights_base & needed) != needed) return std::unexpected(Errno::kNotCapable);
  return descriptor;
}

std::expected<Descriptor*, Errno> find(HostState& state, Fd fd, Rights needed) {
  const auto found = find_unopened(state, fd, needed);
  if (!found) return found;
  Descriptor* const descriptor = *found;
  if (const Errno error = state.open(*descriptor); error != Errno::kSuccess) return std::unexpected(error);
  return descriptor;
}

uint8_t file_type_of(unsigned mode) {
  const auto type = [&] {
    switch (mode & S_IFMT) {
      case S_IFREG: return FileType::kRegularFile;
      case S_IFDIR: return FileType::kDirectory;
      case S_IFLNK: return FileType::kSymbolicLink;
      case S_IFCHR: return FileType::kCharacterDevice;
      case S_IFBLK: return FileType::kBlockDevice;
      case S_IFSOCK: return FileType::kSocketStream;
      default: return FileType::kUnknown;
    }
  }();
  return static_cast<uint8_t>(type);
}

Filestat filestat_of(const struct stat& info) {
  // Times that 64 bits of nanoseconds since 1970 cannot tell become the nearest that they can.
  const auto nanoseconds = [](const timespec& time) {
    uint64_t out = 0;
    if (time.tv_sec < 0) return out;
    const bool overflow = __builtin_mul_overflow(static_cast<uint64_t>(time.tv_sec), uint64_t{1'000'000'000}, &out) ||
                          __builtin_add_overflow(out, static_cast<uint64_t>(time.tv_nsec), &out);
    return overflow ? UINT64_MAX : out;
  };
  Filestat out;
  out.dev = info.st_dev;
  out.ino = info.st_ino;
  out.filetype = file_type_of(info.st_mode);
  out.nlink = info.st_nlink;
  out.size = static_cast<uint64_t>(info.st_size);
  out.atim = nanoseconds(info.st_atim);
  out.mtim = nanoseconds(info.st_mtim);
  out.ctim = nanoseconds(info.st_ctim);
  return out;
}

std::expected<std::array<timespec, 2>, Errno> times_of(uint64_t atim, uint64_t mtim, uint32_t flags) {
  if (flags & ~uint32_t{fstflags::kAll}) return std::unexpected(Errno::kInval);
  const auto pick = [&](uint64_t time, uint32_t set, uint32_t now) -> std::expected<timespec, Errno> {
    if ((flags & set) && (flags & now)) return std::unexpected(Errno::kInval);
    if (flags & now) return timespec{0, UTIME_NOW};
    if (!(flags & set)) return timespec{0, UTIME_OMIT};
    return timespec{static_cast<time_t>(time / 1'000'000'000), static_cast<long>(time % 1'000'000'000)};
  };
  const auto access = pick(atim, fstflags::kAtim, fstflags::kAtimNow);
  const auto change = pick(mtim, fstflags::kMtim, fstflags::kMtimNow);
  if (!access) return std::unexpected(access.error());
  if (!change) return std::unexpected(change.error());
  return std::array{*access, *change};
}

Filestat filestat_of_virtual(uint64_t size_bytes, uint64_t inode) {
  constexpr uint64_t kDevice = 0x53706f7265;  // "Spore"
  Filestat out;
  out.dev = kDevice;
  out.ino = inode;
  out.filetype = static_cast<uint8_t>(FileType::kRegularFile);
  out.nlink = 1;
  out.size = size_bytes;
  return out;
}

Status transferred(HostCall& call, GuestPtr<uint32_t> count, uint64_t bytes) {
  return count.copy_out(GuestMemory(call), static_cast<uint32_t>(bytes)) ? Errno::kSuccess : Errno::kFault;
}

std::string_view take_component(std::string_view& path) {
  const size_t slash = path.find('/');
  const std::string_view component = path.substr(0, slash);
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return component;
}

std::optional<std::string_view> path_below(const Descriptor& directory, const std::string& path, std::string_view name,
                                           Preopen::Source source) {
  std::string_view rest = path;
  if (rest.starts_with('/')) return std::nullopt;  // the kernel knows what to say
  if (directory.source == Preopen::Source::kCallFiles) {
    std::string_view component;
    while (!rest.empty() && (component.empty() || component == ".")) component = take_component(rest);
    if (component != name) return std::nullopt;
  } else if (directory.source != source) {
    return std::nullopt;
  }
  for (std::string_view left = rest; !left.empty();)
    if (const auto component = take_component(left); !component.empty() && component != ".") return rest;
  return std::nullopt;  // the directory itself
}

Errno Buffers::gather(const GuestMemory& memory, GuestPtr<Iovec> iovs, uint32_t count) {
  used_ = 0;
  size_bytes_ = 0;
  if (count > kIovecsMax) return Errno::kInval;
  if (!iovs.range(memory, count)) return Errno::kFault;
  constexpr uint32_t kBatch = 16;
  std::array<Iovec, kBatch> batch;
  for (uint32_t i = 0; i < count; ++i) {
    if (i % kBatch == 0 && !iovs.at(i).copy_in(memory, std::span(batch.data(), std::min(kBatch, count - i)))) {
      return Errno::kFault;
    }
    const Iovec wanted = batch[i % kBatch];
    if (wanted.buf_len == 0) continue;
    auto buffer = Bytes8(wanted.buf).range(memory, wanted.buf_len);
    if (!buffer) return Errno::kFault;
    buffer->iov_len = std::min<uint64_t>(buffer->iov_len, kTransferBytesMax - size_bytes_);
    if (buffer->iov_len == 0) continue;  // still checked, but beyond what one call transfers
    size_bytes_ += buffer->iov_len;
    list_[used_++] = *buffer;
  }
  return Errno::kSuccess;
}

std::optional<size_t> Buffers::scatter(ByteSpan from) const {
  size_t done = 0;
  for (const iovec& part : list()) {
    const size_t size = std::min(part.iov_len, from.size() - done);
    if (size == 0) break;
    if (!faaslet::guarded_copy(part.iov_base, from.data() + done, size)) return std::nullopt;
    done += size;
  }
  return done;
}

bool Buffers::collect(std::span<uint8_t> to) const {
  for (const iovec& part : list()) {
    const size_t size = std::min(part.iov_len, to.size());
    if (size > 0 && !faaslet::guarded_copy(to.data(), part.iov_base, size)) return false;
    to = to.subspan(size);
  }
  return true;
}

}  // namespace spore::host::wasi
