#include "state/reference_tier.h"

#include <algorithm>

#include "state/merge.h"

namespace spore::state {
namespace {

Result<void> check_deadline(Deadline deadline) {
  if (Clock::now() < deadline) return {};
  return fail(ErrorCode::kDeadlineExceeded, "the deadline is past");
}

std::unexpected<Error> no_value(const ValueId& id) {
  return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
}

std::unexpected<Error> not_held(const ValueId& id, const std::string& owner) {
  return fail(ErrorCode::kFailedPrecondition, "the lock of " + id.key + " is not held by " + owner);
}

}  // namespace

void ReferenceTier::Content::read(uint64_t offset, std::span<uint8_t> to) const {
  for (size_t i = 0; i < to.size(); ++i) {
    const auto page = pages.find((offset + i) / kPageBytes);
    to[i] = page == pages.end() ? 0 : page->second[(offset + i) % kPageBytes];
  }
}

void ReferenceTier::Content::write(uint64_t offset, ByteSpan bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    Bytes& page = pages[(offset + i) / kPageBytes];
    page.resize(kPageBytes);
    page[(offset + i) % kPageBytes] = bytes[i];
  }
}

void ReferenceTier::Content::cut(uint64_t size_bytes, uint64_t number) {
  cuts.push_back({.size_bytes = size_bytes, .number = number});
  pages.erase(pages.lower_bound((size_bytes + kPageBytes - 1) / kPageBytes), pages.end());
  const auto last = pages.find(size_bytes / kPageBytes);
  if (last != pages.end())
    std::fill(last->second.begin() + static_cast<ptrdiff_t>(size_bytes % kPageBytes), last->second.end(), 0);
}

uint64_t ReferenceTier::Content::number_of(uint64_t page) const {
  const auto patched = page_numbers.find(page);
  uint64_t number = patched == page_numbers.end() ? 0 : patched->second;
  for (const Cut& cut : cuts)
    if (cut.size_bytes < (page + 1) * kPageBytes) number = std::max(number, cut.number);
  return number;
}

class ReferenceTier::Pin final : public Snapshot {
 public:
  explicit Pin(const Value& value) : Snapshot(value.manifest), content_(value.content) {}

  Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) override {
    TRY(check_deadline(deadline));
    if (offset > manifest_.size_bytes || to.size() > manifest_.size_bytes - offset)
      return fail(ErrorCode::kInvalidArgument, "read beyond the value's size");
    content_.read(offset, to);
    return {};
  }

  Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                              Deadline deadline) override {
    TRY(check_deadline(deadline));
    std::vector<uint64_t> out;
    for (const uint32_t chunk : chunks) {
      if (chunk >= chunks_of(manifest_.size_bytes))
        return fail(ErrorCode::kInvalidArgument, "a chunk beyond the value's size");
      uint64_t pages = 0;
      for (uint64_t i = 0; i < kPagesPerChunk; ++i) {
        const uint64_t page = chunk * kPagesPerChunk + i;
        if (page * kPageBytes < manifest_.size_bytes && content_.number_of(page) > since) pages |= 1ull << i;
      }
      out.push_back(pages);
    }
    return out;
  }

 private:
  const Content content_;
};

ReferenceTier::ReferenceTier(std::function<Clock::time_point()> clock)
    : clock_(clock ? std::move(clock) : [] { return Clock::now(); }) {}

Result<std::shared_ptr<Snapshot>> ReferenceTier::pin(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const auto found = state->values.find(id);
  if (found == state->values.end()) return no_value(id);
  return std::make_shared<Pin>(found->second);
}

Result<Manifest> ReferenceTier::describe(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const auto found = state->values.find(id);
  if (found == state->values.end()) return no_value(id);
  return found->second.manifest;
}

Result<Pushed> ReferenceTier::push(const ValueId& id, const Push& push, Deadline deadline) {
  TRY(check_push(id, push));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const auto found = state->values.find(id);
  const Value* value = found == state->values.end() ? nullptr : &found->second;
  if (value && !push.once.empty())
    if (const auto before = value->once.find(push.once); before != value->once.end()) return before->second;
  if (push.lock_token != 0) {
    const auto lock = state->locks.find(id);
    if (lock == state->locks.end() || lock->second.token != push.lock_token)
      return fail(ErrorCode::kFailedPrecondition, "the lock of " + id.key + " has been granted to somebody else since");
  }
  const std::optional<Manifest> now = value ? std::optional(value->manifest) : std::nullopt;
  ASSIGN_OR_RETURN(const PushPlan plan, plan_push(id, push, now));
  apply(*state, id, push, plan.patches, plan.size_after);
  Value& after = state->values[id];
  const Pushed pushed{.before = now ? now->version : Version{}, .after = after.manifest};
  if (!push.once.empty()) {
    after.once[push.once] = pushed;
    after.once_order.push_back(push.once);
    if (after.once_order.size() > kOnceNamesMax) {
      after.once.erase(after.once_order.front());
      after.once_order.pop_front();
    }
  }
  return pushed;
}

void ReferenceTier::apply(State& state, const ValueId& id, const Push& push, const std::vector<Patch>& patches,
                          uint64_t size_after) {
  Value& value = state.values[id];
  if (!value.manifest.version.exists()) value.manifest.version.epoch = ++state.epoch;
  const uint64_t number = ++value.manifest.version.number;
  const Content old = push.replace ? value.content : Content();
  if (size_after < value.manifest.size_bytes) value.content.cut(size_after, number);
  if (push.replace) value.content.cut(0, number);
  for (const Patch& patch : patches) {
    Bytes bytes(patch.bytes.size());
    // What a merge meets is what was there before the push, within the size that both versions have.
    const uint64_t there = std::min(size_after, value.manifest.size_bytes);
    if (patch.offset < there)
      (push.replace ? old : value.content)
          .read(patch.offset, std::span(bytes).first(std::min<uint64_t>(bytes.size(), there - patch.offset)));
    merge_into(bytes, patch.bytes, push.merge, push.element);
    value.content.write(patch.offset, bytes);
    for (uint64_t page = patch.offset / kPageBytes; page * kPageBytes < patch.offset + bytes.size(); ++page)
      value.content.page_numbers[page] = number;
  }
  value.manifest.size_bytes = size_after;
}

Result<void> ReferenceTier::remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) {
  TRY(check_key(id.key));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const auto found = state->values.find(id);
  if (found == state->values.end()) return no_value(id);
  TRY(check_expected(id, expected, found->second.manifest));
  state->values.erase(found);
  return {};
}

Result<KeyPage> ReferenceTier::list(const std::string& tenant, const std::string& prefix, const std::string& from,
                                    size_t limit, Deadline deadline) {
  TRY(check_list_limit(limit));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  KeyPage page;
  for (auto at = state->values.lower_bound({tenant, std::max(prefix, from)});
       at != state->values.end() && at->first.tenant == tenant && at->first.key.starts_with(prefix); ++at) {
    if (page.entries.size() == limit) {
      page.next = at->first.key;
      break;
    }
    page.entries.push_back({.key = at->first.key, .manifest = at->second.manifest});
  }
  return page;
}

Result<Usage> ReferenceTier::usage(const std::string& tenant, Deadline deadline) {
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  Usage out;
  for (const auto& [id, value] : state->values) {
    if (id.tenant != tenant) continue;
    ++out.keys;
    out.bytes += value.manifest.size_bytes;
  }
  return out;
}

void ReferenceTier::Lock::settle(Clock::time_point now) {
  std::erase_if(readers, [&](const auto& reader) { return reader.second <= now; });
  if (writer.empty() || writer_until > now) return;
  writer.clear();
  poisoned = true;
  ++token;
}

Result<std::optional<LockGrant>> ReferenceTier::try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                                         std::chrono::milliseconds lease, Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const Clock::time_point now = clock_();
  Lock& lock = state->locks[id];
  lock.settle(now);
  const bool written = !lock.writer.empty();
  if (mode == LockMode::kRead) {
    if (written) return std::nullopt;
    lock.readers[owner] = now + lease;
    lock.token = std::max<uint64_t>(lock.token, 1);
    return LockGrant{.token = lock.token, .poisoned = lock.poisoned};
  }
  if (!lock.readers.empty() || (written && lock.writer != owner)) return std::nullopt;
  if (!written) {
    lock.writer = owner;
    ++lock.token;
  }
  lock.writer_until = now + lease;
  return LockGrant{.token = lock.token, .poisoned = lock.poisoned};
}

Result<void> ReferenceTier::renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                                       Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  const Clock::time_point now = clock_();
  Lock& lock = state->locks[id];
  lock.settle(now);
  if (lock.writer == owner) {
    lock.writer_until = now + lease;
    return {};
  }
  const auto reader = lock.readers.find(owner);
  if (reader == lock.readers.end()) return not_held(id, owner);
  reader->second = now + lease;
  return {};
}

Result<void> ReferenceTier::unlock(const ValueId& id, const std::string& owner, Deadline deadline) {
  TRY(check_lock(id, owner, kLeaseMax));
  TRY(check_deadline(deadline));
  auto state = state_.lock();
  Lock& lock = state->locks[id];
  lock.settle(clock_());
  if (lock.writer == owner) {
    lock.writer.clear();
    lock.poisoned = false;
    return {};
  }
  const auto reader = lock.readers.find(owner);
  if (reader == lock.readers.end()) return not_held(id, owner);
  lock.readers.erase(reader);
  return {};
}

}  // namespace spore::state
