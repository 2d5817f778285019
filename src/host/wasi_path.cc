#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "host/call_streams.h"
#include "host/paths.h"
#include "host/state_files.h"
#include "host/wasi.h"

namespace spore::host::wasi {

namespace {

using Kind = Descriptor::Kind;

Status status_of(int result) { return result == 0 ? Errno::kSuccess : errno_of(errno); }

std::expected<std::string, Errno> read_path(HostCall& call, Bytes8 path, uint32_t len) {
  if (len >= kPathBytesMax) return std::unexpected(Errno::kNameTooLong);  // the host's limit counts a NUL behind it
  std::string text(len, '\0');
  const std::span<uint8_t> to(reinterpret_cast<uint8_t*>(text.data()), text.size());
  if (!path.copy_in(GuestMemory(call), to)) return std::unexpected(Errno::kFault);
  if (text.find('\0') != std::string::npos) return std::unexpected(Errno::kInval);
  return text;
}

// A directory with a path of the guest's below it.
struct Place {
  Descriptor* directory = nullptr;
  std::string path;
  // Where it is below /spore/state, or the function that it names below /spore/call; nothing for the kernel then.
  std::optional<StatePath> state;
  std::optional<std::string> function;

  bool is_virtual() const { return state || function; }
  int fd() const { return directory->fd.get(); }
  bool read_only() const { return directory->access == Access::kReadOnly; }
};

std::expected<Place, Errno> find_place(HostCall& call, Fd fd, Rights needed, Bytes8 path, uint32_t len) {
  Descriptor* directory = state_of(call).descriptor(fd);
  if (!directory) return std::unexpected(Errno::kBadf);
  if (directory->kind != Kind::kDirectory) return std::unexpected(Errno::kNotDir);
  if ((directory->rights_base & needed) != needed) return std::unexpected(Errno::kNotCapable);
  auto text = read_path(call, path, len);
  if (!text) return std::unexpected(text.error());
  if (const Errno error = state_of(call).open(*directory); error != Errno::kSuccess) return std::unexpected(error);
  auto state = state_path(state_of(call), *directory, *text);
  if (!state) return std::unexpected(state.error());
  auto function = call_path(state_of(call), *directory, *text);
  if (!function) return std::unexpected(function.error());
  return Place{directory, std::move(*text), std::move(*state), std::move(*function)};
}

// Where the directory's holdings are to change: the parent, opened. `if_dots`: the error for "." and "..".
std::expected<Parent, Errno> parent_of(const Place& place, Errno if_dots) {
  auto parent = open_parent(place.fd(), place.path, if_dots);
  if (parent && place.read_only()) return std::unexpected(Errno::kRofs);
  return parent;
}

// The answer where a name of state or of a call would become another one, or one elsewhere, or the other way round.
Errno two_places(const Place& from, const Place& to) {
  return (from.state && to.state) || (from.function && to.function) ? Errno::kNotSup : Errno::kXdev;
}

// What stands at the path itself, opened for asking about it only.
std::expected<UniqueFd, Errno> open_for_stat(const Place& place, uint32_t lookup) {
  if (lookup & ~kLookupSymlinkFollow) return std::unexpected(Errno::kInval);
  return open_beneath(place.fd(), place.path, O_PATH | (lookup & kLookupSymlinkFollow ? 0 : O_NOFOLLOW));
}

bool has_free_number(const HostState& state) {
  const auto& all = state.descriptors;
  return all.size() < state.limits.descriptors_max ||
         std::any_of(all.begin(), all.end(), [](const auto& descriptor) { return !descriptor; });
}

struct OpenFlags {
  int host = 0;
  bool writes = false;  // contents or names
};

std::expected<OpenFlags, Errno> open_flags_of(uint32_t lookup, uint32_t oflags_given, Rights base,
                                              uint32_t fdflags_given) {
  if ((lookup & ~kLookupSymlinkFollow) || (oflags_given & ~uint32_t{oflags::kAll}) ||
      (fdflags_given & ~uint32_t{fdflags::kAll})) {
    return std::unexpected(Errno::kInval);
  }
  const bool directory = oflags_given & oflags::kDirectory;
  if (directory && (oflags_given & (oflags::kCreat | oflags::kExcl | oflags::kTrunc))) {
    return std::unexpected(Errno::kInval);
  }
  // A directory cannot be written through its descriptor; such rights fall away.
  const bool reads = base & (rights::kFdRead | rights::kFdReaddir);
  const bool writes = !directory && (base & (rights::kFdWrite | rights::kFdAllocate));
  OpenFlags out;
  // Non-blocking: a FIFO or device must not block us. Regular files do not care.
  out.host = O_NONBLOCK | O_NOCTTY | (writes ? (reads ? O_RDWR : O_WRONLY) : O_RDONLY);
  if (!(lookup & kLookupSymlinkFollow)) out.host |= O_NOFOLLOW;
  if (directory) out.host |= O_DIRECTORY;
  if (oflags_given & oflags::kCreat) out.host |= O_CREAT;
  if (oflags_given & oflags::kExcl) out.host |= O_EXCL;
  if (oflags_given & oflags::kTrunc) out.host |= O_TRUNC;
  if (fdflags_given & fdflags::kAppend) out.host |= O_APPEND;
  if (fdflags_given & (fdflags::kSync | fdflags::kRsync)) out.host |= O_SYNC;
  if (fdflags_given & fdflags::kDsync) out.host |= O_DSYNC;
  out.writes = writes || (oflags_given & oflags::kTrunc);
  return out;
}

// Whether the tenant's memory has room for another name there, if it is the call's own place.
bool has_room(HostCall& call, const Place& place, uint64_t size_bytes = 0) {
  return place.directory->source != Preopen::Source::kLocalLayer || state_of(call).cover_layer(place.fd(), size_bytes);
}

// `writable`: the inode of a file that can be written in a read-only place nevertheless; it is opened as a name only.
std::expected<UniqueFd, Errno> open_place(const Place& place, OpenFlags flags, ino_t writable) {
  if (!place.read_only()) return open_beneath(place.fd(), place.path, flags.host, 0666);
  // As on a file system that is mounted read-only: what exists can be opened for reading.
  auto opened = flags.writes ? open_beneath(place.fd(), place.path, O_PATH | (flags.host & O_NOFOLLOW))
                             : open_beneath(place.fd(), place.path, flags.host & ~(O_CREAT | O_EXCL));
  if (!opened) {
    if (opened.error() != Errno::kNoEnt || !(flags.host & O_CREAT)) return opened;
    // Only what could be made here, were it writable, fails for that.
    const auto parent = open_parent(place.fd(), place.path, Errno::kIsDir);
    return std::unexpected(parent ? Errno::kRofs : parent.error());
  }
  if ((flags.host & O_CREAT) && (flags.host & O_EXCL)) return std::unexpected(Errno::kExist);
  if (!flags.writes) return opened;
  struct stat info;
  if (::fstat(opened->get(), &info) != 0) return std::unexpected(errno_of(errno));
  if (writable != 0 && info.st_ino == writable) return opened;
  return std::unexpected(S_ISLNK(info.st_mode) ? Errno::kLoop : S_ISDIR(info.st_mode) ? Errno::kIsDir : Errno::kRofs);
}

// The input as a file: a copy that nobody can change, made once a call.
std::expected<UniqueFd, Errno> open_input(HostState& state) {
  if (!state.input_file.valid()) {
    if (!state.cover_buffers(0, state.input.size())) return std::unexpected(Errno::kNoMem);
    UniqueFd file(::memfd_create("input", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file.valid()) return std::unexpected(errno_of(errno));
    for (size_t done = 0; done < state.input.size();) {
      const ssize_t wrote = ::write(file.get(), state.input.data() + done, state.input.size() - done);
      if (wrote < 0) return std::unexpected(errno_of(errno));
      done += static_cast<size_t>(wrote);
    }
    if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
      return std::unexpected(errno_of(errno));
    }
    state.input_file = std::move(file);
  }
  UniqueFd out(::fcntl(state.input_file.get(), F_DUPFD_CLOEXEC, 0));
  if (!out.valid()) return std::unexpected(errno_of(errno));
  return out;
}

// Turns a descriptor of one of the two names of the call's files into one of what it stands for.
Errno open_call_file(HostState& state, bool is_input, Rights base, bool writes, Descriptor& descriptor) {
  if (is_input && writes) return Errno::kRofs;
  descriptor.fd = UniqueFd();
  descriptor.seekable = is_input && state.input_complete;
  if (descriptor.seekable) {
    auto file = open_input(state);
    if (!file) return file.error();
    descriptor.kind = Kind::kFile;
    descriptor.fd = std::move(*file);
    descriptor.rights_base = base & rights::kRegularFile & ~rights::kFdFilestatSetTimes;
  } else {  // a stream, of which there is only one: what is written appends to what was written before
    descriptor.kind = is_input ? Kind::kStdin : Kind::kStdout;
    descriptor.file_type = 0;
    descriptor.rights_base = base & rights::kStream & ~(is_input ? rights::kFdWrite : rights::kFdRead);
  }
  return Errno::kSuccess;
}

}  // namespace

Status path_create_directory(HostCall& call, Fd fd, Bytes8 path, uint32_t len) {
  const auto place = find_place(call, fd, rights::kPathCreateDirectory, path, len);
  if (!place) return place.error();
  if (place->state) return create_state_directory(call, *place->state);
  if (place->function) return Errno::kExist;
  const auto parent = parent_of(*place, Errno::kExist);
  if (!parent) return parent.error();
  if (!has_room(call, *place)) return Errno::kNoSpc;
  return status_of(::mkdirat(parent->directory.get(), parent->last.c_str(), 0777));
}

Status path_filestat_get(HostCall& call, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, GuestPtr<Filestat> stat) {
  const auto place = find_place(call, fd, rights::kPathFilestatGet, path, len);
  if (!place) return place.error();
  if (lookup & ~kLookupSymlinkFollow) return Errno::kInval;
  if (place->state) return stat_state_file(call, *place->state, stat);
  if (place->function) return stat_call_stream(call, stat);
  const auto opened = open_for_stat(*place, lookup);
  if (!opened) return opened.error();
  struct stat info;
  if (::fstat(opened->get(), &info) != 0) return errno_of(errno);
  if (place->directory->source == Preopen::Source::kCallFiles && info.st_ino == state_of(call).call_files()->input) {
    info.st_size = static_cast<off_t>(state_of(call).input.size());
  }
  return stat.copy_out(GuestMemory(call), filestat_of(info)) ? Errno::kSuccess : Errno::kFault;
}

Status path_filestat_set_times(HostCall& call, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, uint64_t atim,
                               uint64_t mtim, uint32_t flags) {
  const auto place = find_place(call, fd, rights::kPathFilestatSetTimes, path, len);
  if (!place) return place.error();
  const auto times = times_of(atim, mtim, flags);
  if (!times) return times.error();
  if (place->is_virtual()) return Errno::kNotSup;
  const auto opened = open_for_stat(*place, lookup);
  if (!opened) return opened.error();
  if (place->read_only()) return Errno::kRofs;
  return status_of(::utimensat(opened->get(), "", times->data(), AT_EMPTY_PATH));
}

Status path_link(HostCall& call, Fd old_fd, uint32_t lookup, Bytes8 old_path, uint32_t old_len, Fd new_fd,
                 Bytes8 new_path, uint32_t new_len) {
  if (lookup != 0) return Errno::kInval;  // a link to what a symbolic link names is not offered
  const auto old_place = find_place(call, old_fd, rights::kPathLinkSource, old_path, old_len);
  if (!old_place) return old_place.error();
  const auto new_place = find_place(call, new_fd, rights::kPathLinkTarget, new_path, new_len);
  if (!new_place) return new_place.error();
  if (old_place->is_virtual() || new_place->is_virtual()) return two_places(*old_place, *new_place);
  const auto target = parent_of(*new_place, Errno::kExist);
  if (!target) return target.error();
  const auto source = open_parent(old_place->fd(), old_place->path, Errno::kPerm);
  if (!source) return source.error();
  // A name in a writable place would make a file of a read-only one writable.
  if (old_place->read_only()) return Errno::kXdev;
  // The kernel would follow a symbolic link with a slash behind it, to wherever it leads.
  if (source->last.ends_with('/')) return Errno::kNotDir;
  if (!has_room(call, *new_place)) return Errno::kNoSpc;
  return status_of(
      ::linkat(source->directory.get(), source->last.c_str(), target->directory.get(), target->last.c_str(), 0));
}

Status path_open(HostCall& call, Fd fd, uint32_t lookup, Bytes8 path, uint32_t len, uint32_t oflags_given,
                 uint64_t base, uint64_t inheriting, uint32_t fdflags_given, GuestPtr<uint32_t> opened_out) {
  HostState& state = state_of(call);
  Rights needed = rights::kPathOpen;
  if (oflags_given & oflags::kCreat) needed |= rights::kPathCreateFile;
  if (oflags_given & oflags::kTrunc) needed |= rights::kPathFilestatSetSize;
  const auto place = find_place(call, fd, needed, path, len);
  if (!place) return place.error();
  if ((base | inheriting) & rights::kAll & ~place->directory->rights_inheriting) return Errno::kNotCapable;
  const auto flags = open_flags_of(lookup, oflags_given, base, fdflags_given);
  if (!flags) return flags.error();
  // What no descriptor can be given for is neither made nor cut.
  if (!opened_out.range(GuestMemory(call), 1)) return Errno::kFault;
  if (!has_free_number(state)) return Errno::kMfile;

  Descriptor descriptor;
  auto name = join_paths(place->directory->is_preopen ? "" : place->directory->path, place->path);
  if (!name) return name.error();
  descriptor.path = std::move(*name);
  descriptor.preopen = place->directory->preopen;
  descriptor.access = place->directory->access;
  descriptor.source = place->directory->source;
  descriptor.flags = static_cast<uint16_t>(fdflags_given);
  descriptor.rights_inheriting = inheriting & rights::kAll;
  if (place->is_virtual()) {
    descriptor.rights_base = base;
    descriptor.source = place->state ? Preopen::Source::kState : Preopen::Source::kCall;
    const VirtualOpening opening{.create = (oflags_given & oflags::kCreat) != 0,
                                 .exclusive = (oflags_given & oflags::kExcl) != 0,
                                 .truncate = (oflags_given & oflags::kTrunc) != 0,
                                 .directory = (oflags_given & oflags::kDirectory) != 0,
                                 .writes = flags->writes};
    if (place->function) return open_call_stream(call, *place->function, opening, std::move(descriptor), opened_out);
    return open_state_file(call, *place->state, opening, std::move(descriptor), opened_out);
  }
  const CallFiles* files = nullptr;
  if (descriptor.source == Preopen::Source::kCallFiles) files = &*state.call_files();
  if ((flags->host & O_CREAT) && !has_room(call, *place)) return Errno::kNoSpc;
  auto fd_opened = open_place(*place, *flags, files ? files->output : 0);
  if (!fd_opened) return fd_opened.error();
  struct stat info;
  if (::fstat(fd_opened->get(), &info) != 0) return errno_of(errno);
  descriptor.fd = std::move(*fd_opened);
  descriptor.file_type = file_type_of(info.st_mode);
  if (S_ISDIR(info.st_mode)) {
    if (files && files->state != 0 && info.st_ino == files->state) descriptor.source = Preopen::Source::kState;
    if (files && files->call != 0 && info.st_ino == files->call) descriptor.source = Preopen::Source::kCall;
    descriptor.kind = Kind::kDirectory;
    descriptor.rights_base = base & rights::kDirectory;
  } else {
    descriptor.kind = Kind::kFile;
    descriptor.seekable = S_ISREG(info.st_mode);
    descriptor.rights_base = base & (descriptor.seekable ? rights::kRegularFile : rights::kStream);
    if (files) {
      const Errno error = open_call_file(state, info.st_ino == files->input, base, flags->writes, descriptor);
      if (error != Errno::kSuccess) return error;
    }
  }
  const auto number = state.add_descriptor(std::move(descriptor));
  if (!number) return Errno::kMfile;
  return opened_out.copy_out(GuestMemory(call), *number) ? Errno::kSuccess : Errno::kFault;
}

Status path_readlink(HostCall& call, Fd fd, Bytes8 path, uint32_t len, Bytes8 buf, uint32_t buf_len,
                     GuestPtr<uint32_t> used) {
  const auto place = find_place(call, fd, rights::kPathReadlink, path, len);
  if (!place) return place.error();
  if (place->is_virtual()) return Errno::kInval;  // not a link
  const auto link = open_for_stat(*place, 0);
  if (!link) return link.error();
  struct stat info;
  if (::fstat(link->get(), &info) != 0) return errno_of(errno);
  if (!S_ISLNK(info.st_mode)) return Errno::kInval;
  std::array<char, kPathBytesMax> text;
  const ssize_t got = ::readlinkat(link->get(), "", text.data(), text.size());
  if (got < 0) return errno_of(errno);
  const auto size = std::min(static_cast<uint32_t>(got), buf_len);  // cut off silently, as POSIX does
  const GuestMemory memory(call);
  const bool ok =
      buf.range(memory, buf_len) && buf.copy_out(memory, as_bytes({text.data(), size})) && used.copy_out(memory, size);
  return ok ? Errno::kSuccess : Errno::kFault;
}

Status path_remove_directory(HostCall& call, Fd fd, Bytes8 path, uint32_t len) {
  const auto place = find_place(call, fd, rights::kPathRemoveDirectory, path, len);
  if (!place) return place.error();
  if (place->is_virtual()) return Errno::kNotDir;
  const auto parent = parent_of(*place, Errno::kInval);
  if (!parent) return parent.error();
  return status_of(::unlinkat(parent->directory.get(), parent->last.c_str(), AT_REMOVEDIR));
}

Status path_rename(HostCall& call, Fd old_fd, Bytes8 old_path, uint32_t old_len, Fd new_fd, Bytes8 new_path,
                   uint32_t new_len) {
  const auto old_place = find_place(call, old_fd, rights::kPathRenameSource, old_path, old_len);
  if (!old_place) return old_place.error();
  const auto new_place = find_place(call, new_fd, rights::kPathRenameTarget, new_path, new_len);
  if (!new_place) return new_place.error();
  if (old_place->is_virtual() || new_place->is_virtual()) return two_places(*old_place, *new_place);
  const auto from = parent_of(*old_place, Errno::kBusy);
  if (!from) return from.error();
  const auto to = parent_of(*new_place, Errno::kBusy);
  if (!to) return to.error();
  return status_of(::renameat(from->directory.get(), from->last.c_str(), to->directory.get(), to->last.c_str()));
}

Status path_symlink(HostCall& call, Bytes8 target, uint32_t target_len, Fd fd, Bytes8 path, uint32_t len) {
  const auto text = read_path(call, target, target_len);
  if (!text) return text.error();
  const auto place = find_place(call, fd, rights::kPathSymlink, path, len);
  if (!place) return place.error();
  if (place->is_virtual()) return Errno::kNotSup;
  const auto parent = parent_of(*place, Errno::kExist);
  if (!parent) return parent.error();
  // No guest could follow it, but a program of the host that reads this directory might.
  if (text->starts_with('/')) return Errno::kPerm;
  if (!has_room(call, *place, text->size())) return Errno::kNoSpc;
  return status_of(::symlinkat(text->c_str(), parent->directory.get(), parent->last.c_str()));
}

Status path_unlink_file(HostCall& call, Fd fd, Bytes8 path, uint32_t len) {
  const auto place = find_place(call, fd, rights::kPathUnlinkFile, path, len);
  if (!place) return place.error();
  if (place->state) return unlink_state_file(call, *place->state);
  if (place->function) return Errno::kPerm;
  const auto parent = parent_of(*place, Errno::kIsDir);
  if (!parent) return parent.error();
  return status_of(::unlinkat(parent->directory.get(), parent->last.c_str(), 0));
}

}  // namespace spore::host::wasi
