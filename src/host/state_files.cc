#include "host/state_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/digest.h"
#include "base/percent.h"
#include "host/state_call.h"

namespace spore::host {

// Where a directory is read: one page of keys. Cookies count: 0 is ".", 1 is "..", keys follow.
struct StateListing {
  static constexpr uint64_t kFirstKey = 2;
  static constexpr uint32_t kPageBytes = 16 << 10;

  std::string before;          // the key before the page; empty: none
  uint64_t first = kFirstKey;  // cookie of the page's first key
  std::vector<std::string> keys;
  bool last = false;  // no key follows the page
  uint64_t next = 0;  // while a page is fetched: the entry to go on with
};

namespace wasi {

namespace {

using state::Deadline;
using state::LocalTier;
using state::Replica;
using StateFile = StateDispatch<Errno>;

constexpr int kOpenAttemptsMax = 8;  // while others make and remove the value

uint64_t inode_of(std::string_view key) {
  const Digest digest = sha256(as_bytes(key));
  uint64_t inode = 0;
  std::memcpy(&inode, digest.data(), sizeof(inode));
  return inode | 1;  // 0 stands for none
}

// Blocks. `pull`: takes over the newest version too.
Result<std::shared_ptr<Replica>> open_or_create(LocalTier& tier, const state::ValueId& id,
                                                const VirtualOpening& opening, bool pull, Deadline deadline) {
  for (int attempt = 1;; ++attempt) {
    Result<std::shared_ptr<Replica>> opened = fail(ErrorCode::kNotFound, "not looked for");
    if (!opening.exclusive || !opening.create) opened = tier.open(id, std::nullopt, deadline);
    if (!opened && opened.error().code == ErrorCode::kNotFound && opening.create) {
      opened = tier.create(id, 0, deadline);
      if (opened || opening.exclusive) return opened;  // nothing is newer than what is made now
      if (opened.error().code == ErrorCode::kAlreadyExists && attempt < kOpenAttemptsMax) continue;
    }
    if (!opened || !pull) return opened;
    const auto pulled = (*opened)->pull(deadline);
    if (pulled) return opened;
    if (pulled.error().code != ErrorCode::kNotFound) return std::unexpected(pulled.error());
    if (!(*opened)->published()) return opened;  // known here only
    if (!opening.create || attempt == kOpenAttemptsMax) return std::unexpected(pulled.error());
    // It was removed elsewhere, so it begins anew.
    if (const auto removed = tier.remove(id, deadline); !removed && removed.error().code != ErrorCode::kNotFound)
      return std::unexpected(removed.error());
  }
}

// Around a change of size: whether there was room for it.
class Room {
 public:
  explicit Room(LocalTier& tier) : tier_(tier) {}
  std::function<bool(uint64_t)> charge(const Replica& replica) {
    return [this, &replica](uint64_t bytes) { return has_room_ = tier_.charge(replica, bytes); };
  }
  bool refused() const { return !has_room_; }

 private:
  LocalTier& tier_;
  bool has_room_ = true;
};

// What a change of size failed with, where it was not for room.
Status fails_to_resize(const StateFile& on, const Replica& replica, const Error& error) {
  const Status status = on.fails(error);
  return replica.merging().op == state::MergeOp::kOverwrite ? status : Errno::kPerm;
}

bool is_removed(const StateFile& on, const Replica& replica) { return on.tier().find(replica.id()).get() != &replica; }

Status fails_as_removed(const StateFile& on) {
  return on.fails({ErrorCode::kFailedPrecondition, "state \"" + on.id().key + "\" was removed while it was open"});
}

}  // namespace

// ---- names ----------------------------------------------------------------------------------------------------------

std::expected<std::optional<StatePath>, Errno> state_path(const HostState& state, const Descriptor& directory,
                                                          const std::string& path) {
  if (!state.state_services) return std::nullopt;
  const auto below = path_below(directory, path, "state", Preopen::Source::kState);
  if (!below) return std::nullopt;
  std::string_view rest = *below;
  StatePath out;
  if (rest.ends_with('/')) {
    out.slash_behind = true;
    rest.remove_suffix(1);
  }
  for (std::string_view left = rest;;) {
    const bool is_last = left.find('/') == std::string_view::npos;
    const std::string_view component = take_component(left);
    if (component == "..") return std::unexpected(Errno::kPerm);
    if (component.empty() || component == ".") return std::unexpected(Errno::kInval);
    if (is_last) break;
  }
  auto key = percent_decode(rest);
  if (!key) return std::unexpected(Errno::kInval);
  if (key->size() > state::kKeyBytesMax) return std::unexpected(Errno::kNameTooLong);
  if (!state::check_key(*key)) return std::unexpected(Errno::kInval);
  out.key = std::move(*key);
  return out;
}

Status open_state_file(HostCall& call, const StatePath& path, const VirtualOpening& opening, Descriptor descriptor,
                       GuestPtr<uint32_t> opened) {
  HostState& state = state_of(call);
  PendingCall& pending = state.pending;
  StateFile on(call, "path_open", path.key);
  if (!on.ok()) return on.reply();
  if (path.slash_behind) return Errno::kNotDir;
  if (on.still_waits()) return on.wait();
  if ((opening.writes || opening.create || opening.truncate) && !on.may_write()) return Errno::kNoSpc;

  std::shared_ptr<Replica> replica;
  const bool pull = descriptor.flags & fdflags::kRsync;
  if (const auto result = on.take_result()) {
    const auto opened_there = std::move(pending.opened);
    pending.opened.reset();
    if (!*result) return on.fails(result->error());
    replica = std::move(*opened_there);
  } else if (!pull) {
    replica = on.tier().find(on.id());
    if (replica && opening.create && opening.exclusive) return Errno::kExist;
  }
  if (!replica) {
    pending.opened = std::make_shared<std::shared_ptr<Replica>>();
    return on.begin([&tier = on.tier(), id = on.id(), opening, pull, to = pending.opened,
                     deadline = on.deadline()]() -> Result<int64_t> {
      ASSIGN_OR_RETURN(*to, open_or_create(tier, id, opening, pull, deadline));
      return 0;
    });
  }
  if (opening.directory) return Errno::kNotDir;
  if (opening.truncate && replica->size_bytes() > 0) {
    Room room(on.tier());
    const auto cut = replica->try_resize(0, {.charge = room.charge(*replica)});
    if (!cut) return fails_to_resize(on, *replica, cut.error());
    if (!*cut) {
      pending.opened = std::make_shared<std::shared_ptr<Replica>>(replica);
      return on.begin([replica, deadline = on.deadline()]() -> Result<int64_t> {
        TRY(replica->settle(deadline));
        return 0;
      });
    }
  }
  descriptor.kind = Descriptor::Kind::kState;
  descriptor.access = opening.writes ? Access::kReadWrite : Access::kReadOnly;
  descriptor.file_type = static_cast<uint8_t>(FileType::kRegularFile);
  descriptor.rights_base &= rights::kRegularFile & ~rights::kFdFilestatSetTimes;
  descriptor.replica = std::move(replica);
  const auto number = state.add_descriptor(std::move(descriptor));
  if (!number) return Errno::kMfile;
  return opened.copy_out(GuestMemory(call), *number) ? Errno::kSuccess : Errno::kFault;
}

Status stat_state_file(HostCall& call, const StatePath& path, GuestPtr<Filestat> stat) {
  StateFile on(call, "path_filestat_get", path.key);
  if (!on.ok()) return on.reply();
  if (path.slash_behind) return Errno::kNotDir;
  if (on.still_waits()) return on.wait();
  uint64_t size_bytes = 0;
  if (const auto result = on.take_result()) {
    if (!*result) return on.fails(result->error());
    size_bytes = static_cast<uint64_t>(**result);
  } else if (const auto replica = on.tier().find(on.id())) {
    size_bytes = replica->size_bytes();
  } else {
    return on.begin([&tier = on.tier(), id = on.id(), deadline = on.deadline()]() -> Result<int64_t> {
      ASSIGN_OR_RETURN(const auto manifest, tier.global().describe(id, deadline));
      return static_cast<int64_t>(manifest.size_bytes);
    });
  }
  const bool ok = stat.copy_out(GuestMemory(call), filestat_of_virtual(size_bytes, inode_of(path.key)));
  return ok ? Errno::kSuccess : Errno::kFault;
}

Status unlink_state_file(HostCall& call, const StatePath& path) {
  StateFile on(call, "path_unlink_file", path.key);
  if (path.slash_behind) return Errno::kNotDir;
  return on.run([&tier = on.tier(), id = on.id(), deadline = on.deadline()]() -> Result<int64_t> {
    TRY(tier.remove(id, deadline));
    return 0;
  });
}

Status create_state_directory(HostCall& call, const StatePath& path) {
  StateFile on(call, "path_create_directory", path.key);
  if (!on.ok()) return on.reply();
  if (on.still_waits()) return on.wait();
  if (const auto result = on.take_result()) {
    if (*result) return Errno::kExist;
    return result->error().code == ErrorCode::kNotFound ? Status(Errno::kSuccess) : on.fails(result->error());
  }
  if (on.tier().find(on.id())) return Errno::kExist;
  return on.begin([&tier = on.tier(), id = on.id(), deadline = on.deadline()]() -> Result<int64_t> {
    TRY(tier.global().describe(id, deadline));
    return 0;
  });
}

// ---- bytes ----------------------------------------------------------------------------------------------------------

Status read_state_file(HostCall& call, Descriptor& file, const Buffers& buffers, std::optional<uint64_t> at,
                       GuestPtr<uint32_t> nread) {
  StateFile on(call, at ? "fd_pread" : "fd_read", file.replica->id().key);
  const uint64_t offset = at.value_or(file.offset);
  return on.with_replica(
      file.replica,
      [&](Replica& replica) -> std::optional<Status> {
        const auto got = replica.try_read(offset, buffers.list());
        if (!got) return std::nullopt;
        if (*got < 0) return errno_of(static_cast<int>(-*got));
        if (!at) file.offset += static_cast<uint64_t>(*got);
        return transferred(call, nread, static_cast<uint64_t>(*got));
      },
      [offset, size = buffers.size_bytes()](Replica& replica, Deadline deadline) {
        return replica.fetch({.offset = offset, .size_bytes = size}, deadline);
      });
}

Status write_state_file(HostCall& call, Descriptor& file, const Buffers& buffers, std::optional<uint64_t> at,
                        GuestPtr<uint32_t> nwritten) {
  PendingCall& pending = state_of(call).pending;
  StateFile on(call, at ? "fd_pwrite" : "fd_write", file.replica->id().key);
  if (!on.ok()) return on.reply();
  if (pending.active) {  // it is written, and being published
    if (on.still_waits()) return on.wait();
    const auto pushed = on.take_result();
    const uint64_t bytes = pending.bytes_done;
    pending = {};
    return *pushed ? transferred(call, nwritten, bytes) : on.fails_to_store(pushed->error());
  }
  const uint64_t bytes = buffers.size_bytes();
  if (bytes == 0) return transferred(call, nwritten, 0);
  const bool appends = file.flags & fdflags::kAppend;
  // Once a place behind the end has been taken, the bytes go there.
  const auto place = [&](uint64_t size) {
    return pending.write_at.value_or(appends ? size : at.value_or(file.offset));
  };
  Room room(on.tier());
  const uint64_t from_now = place(file.replica->size_bytes());
  std::optional<uint64_t> wrote;
  const Status status = on.with_replica(
      file.replica,
      [&](Replica& replica) -> std::optional<Status> {
        if (is_removed(on, replica)) return fails_as_removed(on);
        const uint64_t size = replica.size_bytes(), from = place(size);
        if (from > state::kValueBytesMax || bytes > state::kValueBytesMax - from) return Errno::kFbig;
        const bool grows = from + bytes > size;
        if (grows) {
          const auto grown = replica.try_resize(from + bytes, {.expected = size, .charge = room.charge(replica)});
          if (!grown && !room.refused()) return fails_to_resize(on, replica, grown.error());
          if (!grown || !*grown) return std::nullopt;
          pending.write_at = from;
        }
        const auto got = replica.try_write(from, buffers.list());
        if (!got) return std::nullopt;
        if (*got < 0) {
          if (grows) (void)replica.try_resize(size, {.expected = from + bytes, .charge = room.charge(replica)});
          return errno_of(static_cast<int>(-*got));
        }
        wrote = static_cast<uint64_t>(*got);
        if (!at) file.offset = from + *wrote;
        return Errno::kSuccess;
      },
      [&tier = on.tier(), from_now, bytes](Replica& replica, Deadline deadline) -> Result<void> {
        if (from_now + bytes > replica.size_bytes()) {
          TRY(tier.make_room_for(replica, from_now + bytes));
          TRY(replica.settle(deadline));
        }
        return replica.fetch({.offset = from_now, .size_bytes = bytes}, deadline);
      });
  if (status.result() == HostResult::kPark) return status;
  pending = {};
  if (!wrote) return status;
  if (!(file.flags & (fdflags::kSync | fdflags::kDsync))) return transferred(call, nwritten, *wrote);
  pending.active = true;
  pending.bytes_done = *wrote;
  return on.push({});
}

Status resize_state_file(HostCall& call, Descriptor& file, uint64_t size_bytes, bool may_shorten) {
  StateFile on(call, may_shorten ? "fd_filestat_set_size" : "fd_allocate", file.replica->id().key);
  if (size_bytes > state::kValueBytesMax) return Errno::kFbig;
  Room room(on.tier());
  return on.with_replica(
      file.replica,
      [&](Replica& replica) -> std::optional<Status> {
        if (is_removed(on, replica)) return fails_as_removed(on);
        const uint64_t size = replica.size_bytes();
        if (size == size_bytes || (size > size_bytes && !may_shorten)) return Errno::kSuccess;
        const auto resized = replica.try_resize(size_bytes, {.expected = size, .charge = room.charge(replica)});
        if (!resized && !room.refused()) return fails_to_resize(on, replica, resized.error());
        if (!resized || !*resized) return std::nullopt;
        return Errno::kSuccess;
      },
      [&tier = on.tier(), size_bytes](Replica& replica, Deadline deadline) -> Result<void> {
        TRY(tier.make_room_for(replica, size_bytes));
        return replica.settle(deadline);
      });
}

Status sync_state_file(HostCall& call, Descriptor& file) {
  StateFile on(call, "fd_sync", file.replica->id().key);
  if (!on.ok()) return on.reply();
  if (!state_of(call).pending.operation && is_removed(on, *file.replica)) return fails_as_removed(on);
  return on.push({});
}

Filestat filestat_of_state(const Descriptor& file) {
  return filestat_of_virtual(file.replica->size_bytes(), inode_of(file.replica->id().key));
}

// ---- the directory --------------------------------------------------------------------------------------------------

// Goes on from the cookie until the buffer is full or the keys are at an end. Where the page that is held does not have
// the next key, fetches another one and comes back; the bytes that are in the guest's buffer by then stay there.
Status list_state_files(HostCall& call, Descriptor& directory, Bytes8 buf, uint32_t buf_len, uint64_t cookie,
                        GuestPtr<uint32_t> used) {
  HostState& state = state_of(call);
  PendingCall& pending = state.pending;
  const GuestMemory memory(call);
  StateFile on(call, "fd_readdir");
  if (!on.ok()) return on.reply();
  if (on.still_waits()) return on.wait();
  if (!directory.listing) directory.listing = std::make_shared<StateListing>();
  StateListing& listing = *directory.listing;
  uint32_t done = 0;
  uint64_t at = cookie;
  if (const auto result = on.take_result()) {
    done = static_cast<uint32_t>(pending.bytes_done);
    at = listing.next;
    const auto names = std::move(pending.answer);
    pending = {};
    if (!*result) return on.fails(result->error());
    if (!listing.keys.empty()) listing.before = std::move(listing.keys.back());
    listing.first += listing.keys.size();
    listing.keys.clear();
    for (auto name = names->begin(); name != names->end();) {
      const auto end = std::find(name, names->end(), 0);
      listing.keys.emplace_back(name, end);
      name = end + 1;
    }
    listing.last = names->size() + state::kKeyBytesMax + 1 <= StateListing::kPageBytes;  // one more would have fitted
  } else if (cookie == 0 || cookie < listing.first) {
    listing = {};
  }

  const auto append = [&](ByteSpan bytes) {
    const size_t size = std::min<size_t>(bytes.size(), buf_len - done);
    const bool ok = buf.at(done).copy_out(memory, bytes.first(size));
    done += static_cast<uint32_t>(size);
    return ok;
  };
  for (; done < buf_len; ++at) {
    std::string name;
    Dirent head;
    if (at < StateListing::kFirstKey) {
      struct stat self;
      if (::fstat(directory.fd.get(), &self) != 0) return errno_of(errno);
      name = at == 0 ? "." : "..";
      head.ino = self.st_ino;
      head.type = static_cast<uint8_t>(FileType::kDirectory);
    } else if (at - listing.first < listing.keys.size()) {
      const std::string& key = listing.keys[at - listing.first];
      name = percent_encode(key);
      head.ino = inode_of(key);
      head.type = static_cast<uint8_t>(FileType::kRegularFile);
    } else if (listing.last) {
      break;
    } else {
      listing.next = at;
      pending.bytes_done = done;
      pending.answer = std::make_shared<Bytes>();
      return on.begin([&tier = on.tier(), tenant = on.id().tenant,
                       after = listing.keys.empty() ? listing.before : listing.keys.back(), names = pending.answer,
                       deadline = on.deadline()]() -> Result<int64_t> {
        ASSIGN_OR_RETURN(const auto keys, tier.list(tenant, "", after, StateListing::kPageBytes, deadline));
        for (const std::string& key : keys) {
          names->insert(names->end(), key.begin(), key.end());
          names->push_back(0);
        }
        return 0;
      });
    }
    head.next = at + 1;
    head.namlen = static_cast<uint32_t>(name.size());
    if (!append({reinterpret_cast<const uint8_t*>(&head), sizeof(head)}) || !append(as_bytes(name)))
      return Errno::kFault;
  }
  return used.copy_out(memory, done) ? Errno::kSuccess : Errno::kFault;
}

}  // namespace wasi

}  // namespace spore::host
