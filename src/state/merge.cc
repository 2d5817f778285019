#include "state/merge.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "base/check.h"

namespace spore::state {
namespace {

template <class T>
T merged(T there, T pushed, MergeOp op) {
  switch (op) {
    case MergeOp::kOverwrite: return pushed;
    case MergeOp::kSum:
      if constexpr (std::is_integral_v<T>) {
        using Unsigned = std::make_unsigned_t<T>;
        return static_cast<T>(static_cast<Unsigned>(there) + static_cast<Unsigned>(pushed));
      } else {
        return there + pushed;
      }
    case MergeOp::kMin:
    case MergeOp::kMax: {
      if constexpr (std::is_floating_point_v<T>) {
        if (std::isnan(there)) return pushed;
        if (std::isnan(pushed)) return there;
      }
      const bool takes_pushed = op == MergeOp::kMin ? pushed < there : there < pushed;
      return takes_pushed ? pushed : there;
    }
  }
  CHECK(false, "no such merge", static_cast<int>(op));
  return there;
}

template <class T>
void merge_all(std::span<uint8_t> into, ByteSpan from, MergeOp op) {
  for (size_t at = 0; at < into.size(); at += sizeof(T)) {
    T there, pushed;
    std::memcpy(&there, into.data() + at, sizeof(T));
    std::memcpy(&pushed, from.data() + at, sizeof(T));
    const T result = merged(there, pushed, op);
    std::memcpy(into.data() + at, &result, sizeof(T));
  }
}

std::unexpected<Error> too_large(const ValueId& id, uint64_t size_bytes) {
  return fail(ErrorCode::kInvalidArgument, "the state value " + id.key + " would have " + std::to_string(size_bytes) +
                                               " bytes, more than " + std::to_string(kValueBytesMax));
}

}  // namespace

void merge_into(std::span<uint8_t> into, ByteSpan from, MergeOp op, Element element) {
  CHECK(into.size() == from.size(), into.size(), from.size());
  if (op == MergeOp::kOverwrite) {
    std::ranges::copy(from, into.begin());
    return;
  }
  CHECK(into.size() % element_bytes(element) == 0, into.size());
  switch (element) {
    case Element::kI32: return merge_all<int32_t>(into, from, op);
    case Element::kI64: return merge_all<int64_t>(into, from, op);
    case Element::kF32: return merge_all<float>(into, from, op);
    case Element::kF64: return merge_all<double>(into, from, op);
  }
}

void subtract(std::span<uint8_t> now, ByteSpan base, Element element) {
  CHECK(now.size() == base.size() && now.size() % element_bytes(element) == 0, now.size(), base.size());
  const auto each = [&]<class T>(T) {
    for (size_t at = 0; at < now.size(); at += sizeof(T)) {
      T a, b;
      std::memcpy(&a, now.data() + at, sizeof(T));
      std::memcpy(&b, base.data() + at, sizeof(T));
      a = static_cast<T>(a - b);
      std::memcpy(now.data() + at, &a, sizeof(T));
    }
  };
  switch (element) {  // unsigned: integers wrap
    case Element::kI32: return each(uint32_t{});
    case Element::kI64: return each(uint64_t{});
    case Element::kF32: return each(float{});
    case Element::kF64: return each(double{});
  }
}

namespace {

// `Bits`: the unsigned integer of the element's size.
template <class T, class Bits>
void rebase_all(std::span<uint8_t> here, ByteSpan theirs, ByteSpan base, MergeOp op, Element element) {
  static_assert(sizeof(T) == sizeof(Bits) && std::atomic_ref<Bits>::is_always_lock_free);
  for (size_t at = 0; at < here.size(); at += sizeof(T)) {
    Bits their_bits, base_bits;
    std::memcpy(&their_bits, theirs.data() + at, sizeof(Bits));
    std::memcpy(&base_bits, base.data() + at, sizeof(Bits));
    if (their_bits == base_bits) continue;
    const std::atomic_ref<Bits> element_here(*reinterpret_cast<Bits*>(here.data() + at));
    Bits before = element_here.load(), after;
    do {
      if (before == base_bits) {
        after = their_bits;
      } else if (op == MergeOp::kSum) {
        const T sum =
            static_cast<T>(std::bit_cast<T>(before) + (std::bit_cast<T>(their_bits) - std::bit_cast<T>(base_bits)));
        after = std::bit_cast<Bits>(sum);
      } else {
        after = before;
        merge_into({reinterpret_cast<uint8_t*>(&after), sizeof(after)}, theirs.subspan(at, sizeof(T)), op, element);
      }
    } while (!element_here.compare_exchange_weak(before, after));
  }
}

}  // namespace

void rebase(std::span<uint8_t> here, ByteSpan theirs, ByteSpan base, MergeOp op, Element element) {
  CHECK(here.size() == theirs.size() && here.size() == base.size() && here.size() % element_bytes(element) == 0,
        here.size(), theirs.size(), base.size());
  switch (element) {  // unsigned: integers wrap
    case Element::kI32: return rebase_all<uint32_t, uint32_t>(here, theirs, base, op, element);
    case Element::kI64: return rebase_all<uint64_t, uint64_t>(here, theirs, base, op, element);
    case Element::kF32: return rebase_all<float, uint32_t>(here, theirs, base, op, element);
    case Element::kF64: return rebase_all<double, uint64_t>(here, theirs, base, op, element);
  }
}

ByteSpan trim_zeros(ByteSpan bytes) {
  size_t size = bytes.size();
  for (; size >= 8; size -= 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + size - 8, 8);
    if (word != 0) break;
  }
  while (size > 0 && bytes[size - 1] == 0) --size;
  return bytes.first(size);
}

bool is_zero(ByteSpan bytes) { return trim_zeros(bytes).empty(); }

Result<void> check_push(const ValueId& id, const Push& push) {
  TRY(check_key(id.key));
  const auto wrong = [&](std::string what) {
    return fail(ErrorCode::kInvalidArgument, "push to the state value " + id.key + ": " + std::move(what));
  };
  if (push.once.size() > kOwnerBytesMax)
    return wrong("its name has " + std::to_string(push.once.size()) + " bytes, more than " +
                 std::to_string(kOwnerBytesMax));
  if (push.append && (!push.patches.empty() || push.size_bytes || push.replace || push.merge != MergeOp::kOverwrite))
    return wrong("append goes with no patches, size, replace or merge");
  if (push.append && push.append->size() > kValueBytesMax) return too_large(id, push.append->size());
  if (push.size_bytes && *push.size_bytes > kValueBytesMax) return too_large(id, *push.size_bytes);
  const uint64_t unit = push.merge == MergeOp::kOverwrite ? 1 : element_bytes(push.element);
  uint64_t end = 0;
  for (const Patch& patch : push.patches) {
    const std::string where =
        "the patch of " + std::to_string(patch.bytes.size()) + " bytes at " + std::to_string(patch.offset);
    if (patch.offset > kValueBytesMax || patch.bytes.size() > kValueBytesMax - patch.offset)
      return wrong(where + " ends beyond " + std::to_string(kValueBytesMax) + " bytes");
    if (patch.offset < end)
      return wrong(where + " begins before the one in front of it ends, at " + std::to_string(end));
    if (patch.offset % unit != 0 || patch.bytes.size() % unit != 0)
      return wrong(where + " is not whole aligned elements of " + std::to_string(unit) + " bytes");
    end = patch.offset + patch.bytes.size();
  }
  return {};
}

Result<void> check_expected(const ValueId& id, const std::optional<Version>& expected,
                            const std::optional<Manifest>& now) {
  if (!expected) return {};
  const Version there = now ? now->version : Version{};
  if (there == *expected) return {};
  const auto text = [](const Version& version) {
    return version.exists() ? "at version " + std::to_string(version.number) : std::string("absent");
  };
  const bool remade = there.exists() && expected->exists() && there.epoch != expected->epoch;
  return fail(ErrorCode::kAlreadyExists, "the state value " + id.key + " is " + text(there) + ", expected was " +
                                             text(*expected) + (remade ? " of another value of this key" : ""));
}

Result<PushPlan> plan_push(const ValueId& id, const Push& push, const std::optional<Manifest>& now) {
  TRY(check_expected(id, push.expected, now));
  if (!now && !push.size_bytes && !push.append) return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
  PushPlan plan;
  plan.size_before = now ? now->size_bytes : 0;
  plan.size_after = push.size_bytes.value_or(plan.size_before);
  if (push.append) {
    if (push.append->size() > kValueBytesMax - plan.size_before)
      return too_large(id, plan.size_before + push.append->size());
    plan.size_after = plan.size_before + push.append->size();
    if (!push.append->empty()) plan.patches.push_back({.offset = plan.size_before, .bytes = *push.append});
    return plan;
  }
  for (const Patch& patch : push.patches) {
    if (patch.offset + patch.bytes.size() > plan.size_after)
      return fail(ErrorCode::kInvalidArgument, "push to the state value " + id.key + ": the patch of " +
                                                   std::to_string(patch.bytes.size()) + " bytes at " +
                                                   std::to_string(patch.offset) + " ends beyond its size of " +
                                                   std::to_string(plan.size_after) + " bytes");
    if (!patch.bytes.empty()) plan.patches.push_back(patch);
  }
  return plan;
}

Result<void> check_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease) {
  TRY(check_key(id.key));
  if (owner.empty() || owner.size() > kOwnerBytesMax)
    return fail(ErrorCode::kInvalidArgument, "the owner of a lock has 1 to " + std::to_string(kOwnerBytesMax) +
                                                 " bytes, this one " + std::to_string(owner.size()));
  if (lease < std::chrono::milliseconds(1) || lease > kLeaseMax)
    return fail(ErrorCode::kInvalidArgument,
                "the lease of a lock is 1 ms to 24 h, this one " + std::to_string(lease.count()) + " ms");
  return {};
}

Result<void> check_list_limit(size_t limit) {
  if (limit >= 1 && limit <= kListLimitMax) return {};
  return fail(ErrorCode::kInvalidArgument,
              "a list has 1 to " + std::to_string(kListLimitMax) + " entries, asked were " + std::to_string(limit));
}

}  // namespace spore::state
