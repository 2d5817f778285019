// What a push does to bytes, the same for every store: which patches it amounts to at the version it meets, whether it
// is allowed there, and how elements are merged. Pure.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "state/global_tier.h"

namespace spore::state {

// Merges `from` into `into`, element by element (both of one size, whole elements; no alignment needed). kOverwrite
// copies. Integers wrap. In min and max a NaN loses against a number; two NaNs give a NaN.
void merge_into(std::span<uint8_t> into, ByteSpan from, MergeOp op, Element element);

// What must be merged into `base` by sums to come to `now`: overwrites `now` with that, element by element.
void subtract(std::span<uint8_t> now, ByteSpan base, Element element);

// Brings `here`, which others may change atomically meanwhile, from counting on `base` to counting on `theirs`: an
// element that is still as in `base` becomes theirs; another one gets what theirs differs from `base` by (kSum), or is
// merged with it. All of one size, whole elements; `here` aligned to them. Not for kOverwrite.
void rebase(std::span<uint8_t> here, ByteSpan theirs, ByteSpan base, MergeOp op, Element element);

// True where all bytes are zero.
bool is_zero(ByteSpan bytes);
// Without the zeros at the end.
ByteSpan trim_zeros(ByteSpan bytes);

// What can be checked of a push before its value is looked at: the key, the length of `once`, that parts go together
// (`append` stands alone: no patches, size, replace or merge beside it), patches sorted and apart, whole aligned
// elements for a merge, nothing over kValueBytesMax. kInvalidArgument.
Result<void> check_push(const ValueId& id, const Push& push);

struct PushPlan {
  uint64_t size_before = 0;  // 0 where the push makes the value
  uint64_t size_after = 0;
  std::vector<Patch> patches;  // of the push, or the one that its append is; none is empty
};

// What a push that passed check_push does to a value that is there in this version, or is not (nothing). Checks
// `expected`, that there is a value, and that all fits its size. `lock_token` and `once` are the store's to check.
Result<PushPlan> plan_push(const ValueId& id, const Push& push, const std::optional<Manifest>& now);

// kAlreadyExists where the value is not at the version that was expected (all zero: where there is one).
Result<void> check_expected(const ValueId& id, const std::optional<Version>& expected,
                            const std::optional<Manifest>& now);

constexpr size_t kOwnerBytesMax = 64;
constexpr std::chrono::milliseconds kLeaseMax = std::chrono::hours(24);
// kInvalidArgument: the key, an owner of 0 or over 64 bytes, a lease that is not between 1 ms and 24 h.
Result<void> check_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease);

constexpr size_t kListLimitMax = 1000;
Result<void> check_list_limit(size_t limit);

}  // namespace spore::state
