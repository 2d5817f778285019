// Sets of pages of a value: a word for each chunk, lowest bit first. Pure.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "state/global_tier.h"

namespace spore::state {

// `bytes`, rounded up to whole pages.
constexpr uint64_t page_up(uint64_t bytes) { return (bytes + kPageBytes - 1) & ~(kPageBytes - 1); }

// The pages of a chunk that the bytes [begin, end) touch.
constexpr uint64_t pages_within(uint64_t chunk, uint64_t begin, uint64_t end) {
  const uint64_t base = chunk * kChunkBytes;
  if (end <= base || begin >= base + kChunkBytes) return 0;
  const uint64_t first = begin <= base ? 0 : (begin - base) / kPageBytes;
  const uint64_t last = end - base >= kChunkBytes ? kPagesPerChunk - 1 : (end - base - 1) / kPageBytes;
  return (last == kPagesPerChunk - 1 ? ~uint64_t{0} : (uint64_t{1} << (last + 1)) - 1) & ~((uint64_t{1} << first) - 1);
}
static_assert(pages_within(0, 0, 1) == 1 && pages_within(1, 0, kChunkBytes) == 0);
static_assert(pages_within(0, kPageBytes - 1, kPageBytes + 1) == 3 && pages_within(1, 0, ~uint64_t{0}) == ~uint64_t{0});

// Calls visit(begin, end) for each run of pages, as byte offsets; runs go on from chunk to chunk.
template <class Visit>
void each_run(std::span<const uint64_t> pages, Visit visit) {
  uint64_t begin = 0, end = 0;
  for (size_t chunk = 0; chunk < pages.size(); ++chunk) {
    for (uint64_t left = pages[chunk]; left != 0;) {
      const auto first = static_cast<uint64_t>(std::countr_zero(left));
      const auto count = static_cast<uint64_t>(std::countr_one(left >> first));
      const uint64_t at = chunk * kChunkBytes + first * kPageBytes;
      if (at != end || begin == end) {
        if (begin != end) visit(begin, end);
        begin = at;
      }
      end = at + count * kPageBytes;
      left = first + count == kPagesPerChunk ? 0 : left >> (first + count) << (first + count);
    }
  }
  if (begin != end) visit(begin, end);
}

}  // namespace spore::state
