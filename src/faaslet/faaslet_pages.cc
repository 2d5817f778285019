// What a guest has changed since its image was mapped: undoing it after a call, writing it down, carrying it to another
// slot.
//
// reset() needs the pages that this process has copied by writing to them. Asking the kernel (PAGEMAP_SCAN) costs more
// than copying a few pages back, and costs the more the larger the memory. But a page is copied by a page fault, of the
// thread that wrote, and the kernel counts each thread's faults: as long as the guest ran on one seat and its thread
// took no fault since the last reset, the pages are the ones that are known already. In the steady state a reset is one
// cheap system call and the copying.
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "faaslet/faaslet.h"
#include "faaslet/interrupted_guest.h"
#include "faaslet/page_scan.h"
#include "faaslet/thread_state.h"

namespace spore::faaslet {

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr size_t kInlineRegions = 4;  // modules with more memories are rare
// Pages that calls no longer write to: every so many resets it is looked which pages the call has changed, and every so
// many those that were never seen changed go. Not where there are few of them.
constexpr uint32_t kLookEvery = 16;
constexpr uint32_t kReleaseEvery = 256;
constexpr uint64_t kReleaseAbovePages = 64;
alignas(kPageBytes) constexpr uint8_t kZeroPage[kPageBytes] = {};

uint8_t* at(uint64_t address) { return reinterpret_cast<uint8_t*>(address); }

}  // namespace

uint64_t Faaslet::memory_bytes_of(size_t memory) const {
  if (memory == 0) return header().memory_size_bytes;
  return in_slot<wasm::MemoryDescriptor>(object_->layout().memory_descriptors +
                                         static_cast<int64_t>(memory * sizeof(wasm::MemoryDescriptor)))
      .size_bytes;
}

uint64_t Faaslet::begin_of_region(size_t region) const {
  return reinterpret_cast<uint64_t>(memory() + proto_->regions()[region].offset);
}

uint64_t Faaslet::end_of_region(size_t region) const {
  return (region == 0 ? reinterpret_cast<uint64_t>(memory()) : begin_of_region(region)) + memory_bytes_of(region);
}

// ---- what it counts for ---------------------------------------------------------------------------------------------

void Faaslet::charge_to(const MemoryAccountPtr& account) {
  memory_charge_ = MemoryCharge(account, MemoryKind::kFaaslets);
  tables_charge_ = MemoryCharge(account, MemoryKind::kPageTables);
}

uint64_t Faaslet::accessible_bytes() const {
  uint64_t bytes = kept_beyond_image_;
  if (!proto_) return bytes;  // of linked instances
  if (!has_slot()) {
    for (const uint64_t region : parked_->region_bytes) bytes += region;
    return bytes;
  }
  for (size_t i = 0; i < proto_->regions().size(); ++i) bytes += end_of_region(i) - begin_of_region(i);
  return bytes;
}

// One page of entries for each 2 MiB, two that are cut; and for each region a directory of its own.
uint64_t Faaslet::page_table_bytes(uint64_t accessible) const {
  constexpr uint64_t kBytesOfTable = 2 << 20;
  return (accessible / kBytesOfTable + 2 + proto_->regions().size()) * kPageBytes;
}

MemoryAccount::Refusal Faaslet::raise_charges(uint64_t accessible) {
  const uint64_t before = memory_charge_.bytes();
  auto refusal = memory_charge_.cover(accessible + kOverheadBytes);
  if (refusal != MemoryAccount::Refusal::kNone) return refusal;
  refusal = tables_charge_.cover(page_table_bytes(accessible));
  if (refusal != MemoryAccount::Refusal::kNone) memory_charge_.lower(before);
  return refusal;
}

void Faaslet::settle_memory() {
  if (!memory_charge_.account()) return;
  uint64_t bytes = parked_bytes();
  if (clean_ && has_slot()) {
    bytes = kept_bytes();
  } else if (has_slot()) {
    for (size_t i = 0; i < proto_->regions().size(); ++i) {
      const auto copied = count_copied_pages(begin_of_region(i), end_of_region(i));
      if (!copied) return;  // the kernel cannot tell: as much as it can be
      bytes += *copied * kPageBytes;
    }
  }
  memory_charge_.lower(bytes + kOverheadBytes);
  tables_charge_.lower(has_slot() ? page_table_bytes(bytes) : 0);
}

// ---- reset ----------------------------------------------------------------------------------------------------------

bool Faaslet::reset() {
  if (!proto_ || !has_slot()) return false;
  const uint64_t seat = spore_thread_state.serial;
  const uint64_t faults = thread_page_faults();
  const bool complete = tracked_seat_ != 0 && tracked_seat_ == seat && tracked_faults_ == faults;
  const std::span<const ImageRegion> regions = proto_->regions();
  std::array<uint64_t, kInlineRegions> few;
  std::vector<uint64_t> many(regions.size() > few.size() ? regions.size() : 0);
  const std::span<uint64_t> ends = many.empty() ? std::span(few).first(regions.size()) : std::span(many);
  for (size_t i = 0; i < regions.size(); ++i) ends[i] = end_of_region(i);

  const bool found = complete || find_copied_pages(ends);
  if (std::exchange(fresh_, false) && found && proto_->wants_observation()) show_working_set();
  if (!found) {
    if (!drop_pages(ends)) return false;
  } else {
    if (++resets_ % kLookEvery == 0 && kept_bytes() > kReleaseAbovePages * kPageBytes) look_for_use(ends);
    copy_back(ends);
    if (resets_ % kReleaseEvery == 0) release_unused();
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    const uint64_t image_end = begin_of_region(i) + regions[i].image_bytes;
    if (ends[i] > image_end && ::mprotect(at(image_end), ends[i] - image_end, PROT_NONE) != 0) return false;
  }
  for (size_t i = windows_.size(); i-- > 0;) {
    windows_[i].in_use = false;
    if (!windows_[i].source->reusable()) unmap(i);
  }
  tracked_seat_ = seat;
  tracked_faults_ = faults;
  clean_ = true;
  pending_trap_ = {};
  pending_wait_ = {};
  pending_exit_code_ = 0;
  yielded_ = false;
  interrupted_.reset();
  atomic_wait_deadline_.reset();
  window_wait_.reset();
  return true;
}

uint64_t Faaslet::kept_bytes() const {
  uint64_t bytes = 0;
  for (const CopiedRange& range : copied_) bytes += range.end - range.begin;
  return bytes;
}

// Makes copied_ complete. False where the kernel cannot tell or there are too many.
bool Faaslet::find_copied_pages(std::span<const uint64_t> ends) {
  std::array<PageRange, kScanRangesMax> found;
  std::vector<CopiedRange> copied;
  uint64_t pages_left = kKeptPagesMax;
  for (size_t i = 0; i < ends.size(); ++i) {
    const uint64_t begin = begin_of_region(i);
    const uint64_t image_end = begin + proto_->regions()[i].image_bytes;
    if (begin == ends[i]) continue;
    // One page more than fits, to learn that it does not.
    const auto count = scan_copied_pages(begin, ends[i], pages_left + 1, found);
    if (!count) return false;
    for (const PageRange& range : std::span(found).first(*count)) {
      const uint64_t pages = (range.end - range.begin) / kPageBytes;
      if (pages > pages_left) return false;
      pages_left -= pages;
      const uint64_t split = std::clamp(image_end, range.begin, range.end);
      if (range.begin < split) copied.push_back({range.begin, split, proto_->image(i) + (range.begin - begin), i});
      if (split < range.end) copied.push_back({split, range.end, nullptr, i});
    }
  }
  // Pages kept from an earlier growth that this call did not reach: zero, and out of the scan's sight.
  for (const CopiedRange& kept : copied_) {
    if (kept.image || kept.end <= ends[kept.region]) continue;
    const CopiedRange beyond{std::max(kept.begin, ends[kept.region]), kept.end, nullptr, kept.region};
    const uint64_t pages = (beyond.end - beyond.begin) / kPageBytes;
    if (pages > pages_left) return false;
    pages_left -= pages;
    copied.push_back(beyond);
  }
  keep(std::move(copied));
  return true;
}

void Faaslet::keep(std::vector<CopiedRange> copied) {
  copied_ = std::move(copied);
  kept_beyond_image_ = 0;
  for (const CopiedRange& range : copied_)
    if (!range.image) kept_beyond_image_ += range.end - range.begin;
}

void Faaslet::show_working_set() const {
  std::vector<PageRange> written;
  const uint64_t begin = begin_of_region(0);
  for (const CopiedRange& range : copied_)
    if (range.region == 0 && range.image) written.push_back({range.begin - begin, range.end - begin});
  proto_->observe(written);
}

void Faaslet::copy_back(std::span<const uint64_t> ends) {
  for (const CopiedRange& range : copied_) {
    if (range.image)
      std::memcpy(at(range.begin), range.image, range.end - range.begin);
    else if (const uint64_t end = std::min(range.end, ends[range.region]); range.begin < end)
      std::memset(at(range.begin), 0, end - range.begin);
  }
}

// Before the copying: adds the pages that differ from what they are reset to.
void Faaslet::look_for_use(std::span<const uint64_t> ends) {
  for (const CopiedRange& range : copied_) {
    const uint64_t end = range.image ? range.end : std::min(range.end, ends[range.region]);
    for (uint64_t page = range.begin; page < end; page += kPageBytes) {
      const uint8_t* const source = range.image ? range.image + (page - range.begin) : kZeroPage;
      if (std::memcmp(at(page), source, kPageBytes) != 0) used_pages_.push_back(page);
    }
  }
  std::ranges::sort(used_pages_);
  used_pages_.erase(std::ranges::unique(used_pages_).begin(), used_pages_.end());
}

// After the copying: pages that were not seen in use go back to the kernel.
void Faaslet::release_unused() {
  if (kept_bytes() > kReleaseAbovePages * kPageBytes) {
    std::vector<CopiedRange> used;
    const auto release = [](uint64_t begin, uint64_t end) {
      if (begin < end) CHECK(::madvise(at(begin), end - begin, MADV_DONTNEED) == 0, errno);
    };
    for (const CopiedRange& range : copied_) {
      uint64_t unused = range.begin;  // up to the page looked at
      for (uint64_t page = range.begin; page < range.end; page += kPageBytes) {
        if (!std::ranges::binary_search(used_pages_, page)) continue;
        release(unused, page);
        const uint8_t* const source = range.image ? range.image + (page - range.begin) : nullptr;
        if (unused == page && !used.empty() && used.back().end == page && page != range.begin)
          used.back().end += kPageBytes;
        else
          used.push_back({page, page + kPageBytes, source, range.region});
        unused = page + kPageBytes;
      }
      release(unused, range.end);
    }
    keep(std::move(used));
  }
  used_pages_.clear();
}

// The image is mapped private, so without their copies its pages show the image again; what memories grew by is
// anonymous and reads as zeros.
bool Faaslet::drop_pages(std::span<const uint64_t> ends) {
  std::vector<uint64_t> to(ends.begin(), ends.end());
  for (const CopiedRange& range : copied_) to[range.region] = std::max(to[range.region], range.end);
  keep({});
  used_pages_.clear();
  for (size_t i = 0; i < to.size(); ++i)
    if (const uint64_t begin = begin_of_region(i); begin < to[i])
      if (::madvise(at(begin), to[i] - begin, MADV_DONTNEED) != 0) return false;
  return true;
}

// ---- capture --------------------------------------------------------------------------------------------------------

Result<InstanceState> Faaslet::capture() const {
  CHECK(proto_ && has_slot() && header().guest_sp == 0, "only between calls");
  InstanceState state = state_without_memories(*object_, memory());
  for (size_t i = 0; i < module().memories.size(); ++i) {
    const uint64_t begin = i == 0 ? reinterpret_cast<uint64_t>(memory()) : begin_of_region(i);
    const uint64_t size = memory_bytes_of(i);
    // What can be other than zero: the image's own pages and those that were copied. The rest is not even read.
    std::vector<bool> pages(size / kPageBytes);
    const auto mark = [&](uint64_t from, uint64_t to) {
      for (uint64_t page = from / kPageBytes; page < (to + kPageBytes - 1) / kPageBytes; ++page) pages[page] = true;
    };
    const uint64_t skip = i == 0 ? static_cast<uint64_t>(-proto_->regions()[0].offset) : 0;
    for (const auto& [from, to] : proto_->data_extents(i))
      if (to > skip) mark(std::max(from, skip) - skip, to - skip);
    ASSIGN_OR_RETURN(const auto copied, list_copied_pages(begin, begin + size));
    for (const PageRange& range : copied) mark(range.begin - begin, range.end - begin);

    MemoryState& out = state.memories.emplace_back();
    out.size_bytes = size;
    for (size_t page = 0; page < pages.size(); ++page)
      if (pages[page]) append_nonzero_pages(out.runs, page * kPageBytes, {at(begin + page * kPageBytes), kPageBytes});
  }
  return state;
}

// ---- from slot to slot ----------------------------------------------------------------------------------------------

bool Faaslet::can_move() const {
  return proto_ && !interrupted_ &&
         (!has_slot() || header().guest_sp == 0 || object_->object().tier == wasm::Tier::kOptimised);
}

Result<Slot> Faaslet::move_out() {
  CHECK(can_move() && has_slot());
  auto parked = std::make_unique<Parked>();
  std::vector<std::pair<uint64_t, uint64_t>> changed;  // by offset from M
  const auto base = reinterpret_cast<uint64_t>(memory());
  for (size_t i = 0; i < proto_->regions().size(); ++i) {
    const uint64_t begin = begin_of_region(i);
    const uint64_t end = end_of_region(i);
    const uint64_t image_end = begin + proto_->regions()[i].image_bytes;
    parked->region_bytes.push_back(end - begin);
    if (clean_) continue;
    ASSIGN_OR_RETURN(const auto copied, list_copied_pages(begin, end));
    for (const PageRange& range : copied) {
      for (uint64_t page = range.begin; page < range.end; page += kPageBytes) {
        const uint8_t* const source = page < image_end ? proto_->image(i) + (page - begin) : kZeroPage;
        if (std::memcmp(at(page), source, kPageBytes) == 0) continue;
        if (!changed.empty() && changed.back().second == page - base)
          changed.back().second += kPageBytes;
        else
          changed.emplace_back(page - base, page - base + kPageBytes);
      }
    }
  }
  uint64_t bytes = 0;
  for (const auto& [from, to] : changed) bytes += to - from;
  parked->bytes.reserve(bytes);
  for (const auto& [from, to] : changed) {
    const uint64_t offset = parked->bytes.size();
    parked->bytes.insert(parked->bytes.end(), at(base + from), at(base + to));
    parked->pages.push_back({from, ByteSpan(parked->bytes).subspan(offset)});
  }
  // An idle one keeps none: the next call maps what it wants.
  if (!clean_) parked->windows = windows_;
  forget_windows();
  parked_ = std::move(parked);
  memory_charge_.lower(parked_->bytes.size() + kOverheadBytes);
  tables_charge_.lower(0);
  keep({});
  used_pages_ = {};
  tracked_seat_ = 0;
  return std::move(slot_);
}

Result<void> Faaslet::move_into(Slot slot) {
  CHECK(parked_ && !has_slot());
  uint8_t* const base = slot.memory();
  TRY(proto_->map_into(base));
  for (size_t i = 0; i < proto_->regions().size(); ++i) {
    const ImageRegion& region = proto_->regions()[i];
    if (const uint64_t grown = parked_->region_bytes[i] - region.image_bytes)
      if (::mprotect(base + region.offset + region.image_bytes, grown, PROT_READ | PROT_WRITE) != 0)
        return fail_errno("map a Faaslet");
  }
  for (const MemoryRun& run : parked_->pages)
    std::memcpy(base + static_cast<int64_t>(run.offset), run.bytes.data(), run.bytes.size());
  slot_ = std::move(slot);
  const auto parked_state = std::move(parked_);
  for (Window& window : parked_state->windows) {
    TRY(map_source(window));
    windows_.push_back(std::move(window));
  }
  return {};
}

}  // namespace spore::faaslet
