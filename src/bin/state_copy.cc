#include "bin/state_copy.h"

#include <algorithm>

namespace spore::bin {

namespace {

using state::Push;

constexpr auto kStoreTime = std::chrono::seconds(60);  // for one request to a store
constexpr size_t kPageKeys = 1'000;
constexpr uint64_t kPushBytes = 16 << 20;

state::Deadline deadline() { return state::Clock::now() + kStoreTime; }

// The bytes of [begin, begin + bytes.size()) as patches, without chunks that are all zero: they take no room.
Result<void> read_patches(state::Snapshot& value, uint64_t begin, std::span<uint8_t> bytes, Push& push) {
  for (uint64_t done = 0; done < bytes.size();) {
    const auto piece = bytes.subspan(done, std::min<uint64_t>(state::kChunkBytes, bytes.size() - done));
    TRY(value.read(begin + done, piece, deadline()));
    const bool is_zero = std::ranges::all_of(piece, [](uint8_t byte) { return byte == 0; });
    if (!is_zero) push.patches.push_back({.offset = begin + done, .bytes = piece});
    done += piece.size();
  }
  return {};
}

Result<void> copy_value(state::Snapshot& value, state::GlobalTier& to, const state::ValueId& id, IfThere if_there,
                        Bytes& buffer, const std::function<void(uint64_t)>& copied) {
  const uint64_t size = value.manifest().size_bytes;
  std::optional<state::Version> expected;
  if (if_there == IfThere::kFail) expected = state::Version{};
  uint64_t begin = 0;
  do {
    Push push{.expected = expected};
    if (begin == 0) {
      push.size_bytes = size;
      push.replace = true;
    }
    const auto piece = std::span(buffer).first(std::min(kPushBytes, size - begin));
    TRY(read_patches(value, begin, piece, push));
    if (begin == 0 || !push.patches.empty()) {
      ASSIGN_OR_RETURN(const state::Pushed pushed, to.push(id, push, deadline()));
      expected = pushed.after.version;  // whoever writes it meanwhile ends the copying
    }
    begin += piece.size();
    copied(piece.size());
  } while (begin < size);
  return {};
}

}  // namespace

Result<CopyTotals> copy_state(state::GlobalTier& from, state::GlobalTier& to, const std::string& tenant,
                              IfThere if_there, const std::function<void(double)>& progress) {
  ASSIGN_OR_RETURN(const state::Usage usage, from.usage(tenant, deadline()));
  CopyTotals totals;
  uint64_t bytes = 0;
  Bytes buffer(kPushBytes);
  std::string next;
  do {
    ASSIGN_OR_RETURN(const state::KeyPage page, from.list(tenant, "", next, kPageKeys, deadline()));
    for (const auto& entry : page.entries) {
      const state::ValueId id{.tenant = tenant, .key = entry.key};
      auto value = from.pin(id, deadline());
      if (!value && value.error().code == ErrorCode::kNotFound) continue;  // removed meanwhile
      if (!value) return std::unexpected(std::move(value).error().within(entry.key));
      const auto copied = copy_value(**value, to, id, if_there, buffer, [&](uint64_t count) {
        bytes += count;
        if (usage.bytes) progress(static_cast<double>(bytes) / static_cast<double>(usage.bytes));
      });
      if (!copied) return std::unexpected(Error(copied.error()).within(entry.key));
      ++totals.values;
      totals.bytes += (*value)->manifest().size_bytes;
    }
    next = page.next;
  } while (!next.empty());
  return totals;
}

}  // namespace spore::bin
