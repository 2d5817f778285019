// Pushes, removals and pins drawn at random, each done to a tier and to the reference in memory: both must say the
// same. SPORE_STATE_SEED replays one run, SPORE_STATE_STEPS makes it longer.
#include <algorithm>
#include <cstdlib>

#include "state/global_tier_conformance.h"
#include "state/merge.h"
#include "state/reference_tier.h"

namespace spore::state {
namespace {

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Pins {
  std::shared_ptr<Snapshot> tested, reference;
};

class RandomPushes {
 public:
  RandomPushes(GlobalTier& tested, std::string tenant, uint64_t seed)
      : tested_(tested), tenant_(std::move(tenant)), random_(seed) {}

  void step() {
    const ValueId id{.tenant = tenant_, .key = "key-" + std::to_string(random_() % 3)};
    const uint64_t dice = random_() % 100;
    if (dice < 4) return remove(id);
    if (dice < 20) return pin(id);
    if (dice < 30) return compare_all(id);
    push(id);
  }

  void compare_all(const ValueId& id) {
    const Pins now = pins_of(id);
    if (!now.tested || !now.reference) return;
    compare_bytes(now);
    for (const Pins& old : pins_[id.key]) {
      compare_bytes(old);
      if (old.tested->manifest().version.epoch == now.tested->manifest().version.epoch) compare_changes(old, now);
    }
    const auto a = tested_.usage(tenant_, soon()), b = reference_.usage(tenant_, soon());
    ASSERT_TRUE(a && b);
    ASSERT_EQ(a->keys, b->keys);
    ASSERT_EQ(a->bytes, b->bytes);
  }

 private:
  static constexpr uint64_t kSizeMax = 3 * kChunkBytes;
  static Deadline soon() { return Clock::now() + std::chrono::seconds(60); }
  bool one_in(uint64_t n) { return random_() % n == 0; }
  uint64_t some_size() { return one_in(3) ? random_() % 100 : one_in(2) ? random_() % 20'000 : random_() % kSizeMax; }

  void push(const ValueId& id) {
    const auto there = reference_.describe(id, soon());
    Push what;
    std::vector<Bytes> bytes;
    bytes.reserve(8);
    const auto some_bytes = [&](uint64_t size) {
      bytes.emplace_back(size);
      const bool zeros = one_in(5);
      for (uint8_t& byte : bytes.back()) byte = zeros ? 0 : static_cast<uint8_t>(random_());
      return ByteSpan(bytes.back());
    };
    if (one_in(6)) {
      what.append = some_bytes(some_size() % 30'000);
    } else {
      if (!there || one_in(4)) what.size_bytes = some_size();
      what.replace = one_in(10);
      uint64_t unit = 1;
      if (one_in(3)) {
        what.merge = std::array{MergeOp::kSum, MergeOp::kMin, MergeOp::kMax}[random_() % 3];
        // Integers only: which NaN a sum of floats gives is the machine's business.
        what.element = one_in(2) ? Element::kI32 : Element::kI64;
        unit = element_bytes(what.element);
      }
      const uint64_t size = what.size_bytes.value_or(there ? there->size_bytes : 0);
      uint64_t at = 0;
      for (uint64_t i = random_() % 6; i > 0 && size > 0; --i) {
        const uint64_t offset = (at + random_() % size / (1 + random_() % 4)) / unit * unit;
        const uint64_t length = some_size() / unit * unit;
        if (offset < at || offset + length > size + (one_in(200) ? 1 : 0)) continue;
        what.patches.push_back({.offset = offset, .bytes = some_bytes(length)});
        at = offset + length + unit;
      }
    }
    // Whether names survive a removal is not said, so none is used before and after one.
    if (one_in(4)) what.once = std::to_string(removals_[id.key]) + ".name-" + std::to_string(random_() % 20);
    Push tested_push = what;
    if (one_in(4)) {
      const auto tested_there = tested_.describe(id, soon());
      what.expected = there ? there->version : Version{};
      tested_push.expected = tested_there ? tested_there->version : Version{};
      if (one_in(3)) ++what.expected->number, ++tested_push.expected->number;
    }
    const auto a = tested_.push(id, tested_push, soon());
    const auto b = reference_.push(id, what, soon());
    ASSERT_EQ(code_of(a), code_of(b)) << (a ? "" : a.error().message) << (b ? "" : b.error().message);
    if (!a) return;
    ASSERT_EQ(a->before.number, b->before.number);
    ASSERT_EQ(a->after.version.number, b->after.version.number);
    ASSERT_EQ(a->after.size_bytes, b->after.size_bytes);
  }

  void remove(const ValueId& id) {
    ++removals_[id.key];
    ASSERT_EQ(code_of(tested_.remove(id, std::nullopt, soon())), code_of(reference_.remove(id, std::nullopt, soon())));
  }

  void pin(const ValueId& id) {
    const Pins pins = pins_of(id);
    if (!pins.tested || !pins.reference) return;
    auto& kept = pins_[id.key];
    kept.push_back(pins);
    if (kept.size() > 4) kept.erase(kept.begin());
  }

  Pins pins_of(const ValueId& id) {
    const auto a = tested_.pin(id, soon()), b = reference_.pin(id, soon());
    EXPECT_EQ(code_of(a), code_of(b));
    return {.tested = a ? *a : nullptr, .reference = b ? *b : nullptr};
  }

  static Bytes all_of(Snapshot& snapshot) {
    Bytes out(snapshot.manifest().size_bytes);
    const auto result = snapshot.read(0, out, soon());
    EXPECT_TRUE(result) << result.error().message;
    return out;
  }

  void compare_bytes(const Pins& pins) {
    ASSERT_EQ(pins.tested->manifest().version.number, pins.reference->manifest().version.number);
    const Bytes a = all_of(*pins.tested), b = all_of(*pins.reference);
    ASSERT_EQ(a.size(), b.size());
    const auto differ = std::ranges::mismatch(a, b);
    ASSERT_EQ(differ.in1, a.end()) << "byte " << (differ.in1 - a.begin()) << " of " << a.size();
    if (a.empty()) return;
    const uint64_t offset = random_() % a.size();
    Bytes part(std::min<uint64_t>(a.size() - offset, random_() % 20'000));
    ASSERT_TRUE(pins.tested->read(offset, part, soon()));
    ASSERT_TRUE(std::equal(part.begin(), part.end(), a.begin() + static_cast<ptrdiff_t>(offset))) << offset;
  }

  // Pages that differ from the old pin's have changed; those that no push since has touched have not.
  void compare_changes(const Pins& old, const Pins& now) {
    std::vector<uint32_t> chunks;
    for (uint32_t i = 0; i < chunks_of(now.tested->manifest().size_bytes); ++i) chunks.push_back(i);
    const uint64_t since = old.tested->manifest().version.number;
    const auto a = now.tested->changed_pages(chunks, since, soon());
    const auto b = now.reference->changed_pages(chunks, since, soon());
    ASSERT_TRUE(a && b);
    Bytes before = all_of(*old.reference);
    const Bytes after = all_of(*now.reference);
    before.resize(after.size());
    for (const uint32_t chunk : chunks) {
      ASSERT_EQ((*a)[chunk] & ~(*b)[chunk], 0u) << "chunk " << chunk << " since " << since;
      for (uint64_t page = chunk * kPagesPerChunk; page < (chunk + 1) * kPagesPerChunk; ++page) {
        const uint64_t begin = page * kPageBytes, end = std::min<uint64_t>(begin + kPageBytes, after.size());
        if (begin >= end) break;
        const bool differs =
            !std::equal(before.begin() + static_cast<ptrdiff_t>(begin), before.begin() + static_cast<ptrdiff_t>(end),
                        after.begin() + static_cast<ptrdiff_t>(begin));
        ASSERT_TRUE(!differs || ((*a)[chunk] >> (page % kPagesPerChunk) & 1)) << "page " << page << " since " << since;
      }
    }
  }

  GlobalTier& tested_;
  ReferenceTier reference_;
  const std::string tenant_;
  std::mt19937_64 random_;
  std::map<std::string, std::vector<Pins>> pins_;
  std::map<std::string, uint64_t> removals_;
};

}  // namespace

TEST_P(GlobalTierConformance, RandomPushesDoWhatTheReferenceDoes) {
  const uint64_t seed = number_from_environment("SPORE_STATE_SEED", std::random_device()());
  const uint64_t steps = number_from_environment("SPORE_STATE_STEPS", 300);
  std::printf("SPORE_STATE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  RandomPushes pushes(*tier_, tenant_, seed);
  for (uint64_t i = 0; i < steps && !HasFailure(); ++i) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", step " + std::to_string(i));
    pushes.step();
  }
  for (int key = 0; key < 3 && !HasFailure(); ++key) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", at the end");
    pushes.compare_all(id("key-" + std::to_string(key)));
  }
}

}  // namespace spore::state
