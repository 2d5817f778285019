#include "processes/tier_service.h"

namespace spore::processes {

using state::Deadline;
using state::ValueId;
using std::chrono::milliseconds;

namespace {

std::unexpected<Error> malformed() { return fail(ErrorCode::kInvalidArgument, "a request that cannot be read"); }

// All of the request has been read, and nothing was missing.
Result<void> complete(const ByteReader& in) {
  if (!in.ok() || !in.at_end()) return malformed();
  return {};
}

}  // namespace

Result<std::shared_ptr<state::Snapshot>> TierService::snapshot(uint64_t number) const {
  auto pinned = pinned_.lock();
  const auto found = pinned->snapshots.find(number);
  if (found == pinned->snapshots.end()) return fail(ErrorCode::kFailedPrecondition, "that version is not pinned");
  return found->second;
}

Result<Bytes> TierService::pin(const ValueId& id, Deadline deadline) {
  if (pinned_.lock()->snapshots.size() >= kSnapshotsMax)
    return fail(ErrorCode::kResourceExhausted, "as many versions are pinned as may be");
  ASSIGN_OR_RETURN(auto made, tier_->pin(id, deadline));
  ByteWriter out;
  write(out, made->manifest());
  auto pinned = pinned_.lock();
  pinned->snapshots.emplace(++pinned->last, std::move(made));
  out.write(pinned->last);
  return out.take();
}

Result<Bytes> TierService::read(ByteReader& in, Deadline deadline) {
  const auto number = in.read<uint64_t>();
  const auto offset = in.read<uint64_t>();
  const auto size_bytes = in.read<uint64_t>();
  TRY(complete(in));
  ASSIGN_OR_RETURN(const auto from, snapshot(number));
  const uint64_t there = from->manifest().size_bytes;
  if (size_bytes > kReadBytesMax || offset > there || size_bytes > there - offset)
    return fail(ErrorCode::kInvalidArgument, "a read beyond the value, or of too much");
  Bytes out(size_bytes);
  TRY(from->read(offset, out, deadline));
  return out;
}

Result<Bytes> TierService::changed_pages(ByteReader& in, Deadline deadline) {
  const auto number = in.read<uint64_t>();
  const auto since = in.read<uint64_t>();
  const uint64_t count = in.read_count(sizeof(uint32_t));
  if (count > kChunksMax) return malformed();
  std::vector<uint32_t> chunks(count);
  for (uint32_t& chunk : chunks) chunk = in.read<uint32_t>();
  TRY(complete(in));
  ASSIGN_OR_RETURN(const auto from, snapshot(number));
  ASSIGN_OR_RETURN(const auto pages, from->changed_pages(chunks, since, deadline));
  ByteWriter out;
  for (const uint64_t set : pages) out.write(set);
  return out.take();
}

Result<Bytes> TierService::list(ByteReader& in, Deadline deadline) {
  const std::string prefix = in.read_text();
  const std::string from = in.read_text();
  const auto limit = in.read<uint64_t>();
  TRY(complete(in));
  if (prefix.size() > kTextBytesMax || from.size() > kTextBytesMax) return malformed();
  ASSIGN_OR_RETURN(const auto page, tier_->list(tenant_, prefix, from, limit, deadline));
  ByteWriter out;
  out.write_text(page.next);
  out.write<uint64_t>(page.entries.size());
  for (const auto& entry : page.entries) {
    out.write_text(entry.key);
    write(out, entry.manifest);
  }
  return out.take();
}

Result<Bytes> TierService::answer(RequestKind kind, ByteSpan arguments) {
  if (!tier_) return fail(ErrorCode::kUnavailable, "this host keeps no state");
  ByteReader in(arguments);
  // A time that is far away, or none, is as long as a request may take at most.
  const Deadline deadline = std::min(from_ns(in.read<int64_t>()), Clock::now() + request_max_);
  switch (kind) {
    case RequestKind::kRead: return read(in, deadline);
    case RequestKind::kChangedPages: return changed_pages(in, deadline);
    case RequestKind::kList: return list(in, deadline);
    case RequestKind::kUnpin: {
      const auto number = in.read<uint64_t>();
      TRY(complete(in));
      std::shared_ptr<state::Snapshot> released;  // outside the lock
      auto pinned = pinned_.lock();
      if (const auto found = pinned->snapshots.find(number); found != pinned->snapshots.end()) {
        released = std::move(found->second);
        pinned->snapshots.erase(found);
      }
      return Bytes();
    }
    case RequestKind::kUsage: {
      TRY(complete(in));
      ASSIGN_OR_RETURN(const auto usage, tier_->usage(tenant_, deadline));
      ByteWriter out;
      out.write(usage.keys);
      out.write(usage.bytes);
      return out.take();
    }
    default: break;
  }
  const ValueId id{tenant_, in.read_text()};
  if (!in.ok()) return malformed();
  TRY(state::check_key(id.key));
  ByteWriter out;
  switch (kind) {
    case RequestKind::kPin: TRY(complete(in)); return pin(id, deadline);
    case RequestKind::kDescribe: {
      TRY(complete(in));
      ASSIGN_OR_RETURN(const auto manifest, tier_->describe(id, deadline));
      write(out, manifest);
      return out.take();
    }
    case RequestKind::kPush: {
      state::Push push;
      if (!read_push(in, push)) return malformed();
      ASSIGN_OR_RETURN(const auto pushed, tier_->push(id, push, deadline));
      write(out, state::Manifest{.version = pushed.before});
      write(out, pushed.after);
      return out.take();
    }
    case RequestKind::kRemove: {
      const auto expected = read_optional_version(in);
      TRY(complete(in));
      TRY(tier_->remove(id, expected, deadline));
      return Bytes();
    }
    case RequestKind::kTryLock: {
      const auto mode = in.read<state::LockMode>();
      const std::string owner = in.read_text();
      const milliseconds lease(in.read<int64_t>());
      TRY(complete(in));
      if (mode > state::LockMode::kWrite) return malformed();
      ASSIGN_OR_RETURN(const auto grant, tier_->try_lock(id, mode, owner, lease, deadline));
      out.write<uint8_t>(grant.has_value());
      out.write(grant.value_or(state::LockGrant{}).token);
      out.write<uint8_t>(grant.value_or(state::LockGrant{}).poisoned);
      return out.take();
    }
    case RequestKind::kRenewLock: {
      const std::string owner = in.read_text();
      const milliseconds lease(in.read<int64_t>());
      TRY(complete(in));
      TRY(tier_->renew_lock(id, owner, lease, deadline));
      return Bytes();
    }
    case RequestKind::kUnlock: {
      const std::string owner = in.read_text();
      TRY(complete(in));
      TRY(tier_->unlock(id, owner, deadline));
      return Bytes();
    }
    default: return malformed();
  }
}

}  // namespace spore::processes
