#include "faaslet/slot.h"

#include <sys/mman.h>

#include "wasm/abi.h"

namespace spore::faaslet {

namespace {

constexpr uint64_t kHugePage = 2ull << 20;
constexpr uint64_t kSlotBytes = wasm::kSlotBelowBytes + wasm::kSlotAboveBytes;

// The kernel may turn small pages into a huge one at any time, and so give a guest pages that it never faulted in. A
// reset that goes by the thread's fault count would not know of them.
Result<void> forbid_huge_pages(uint8_t* begin) {
  if (::madvise(begin, kSlotBytes, MADV_NOHUGEPAGE) != 0 && errno != EINVAL)  // EINVAL: a kernel without huge pages
    return fail_errno("forbid huge pages in a slot");
  return {};
}

}  // namespace

Result<Slot> Slot::reserve() {
  // M lies in the middle of a 2 MiB region: the first mebibyte of memory shares its page table with the header, the
  // globals and the top of the stack.
  const uint64_t size = kSlotBytes + kHugePage;
  void* at = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    auto error = fail_errno("reserve a slot of 6.25 GiB of address space");
    error.error().code = ErrorCode::kResourceExhausted;
    return error;
  }
  const auto begin = reinterpret_cast<uint64_t>(at);
  const uint64_t lowest = begin + wasm::kSlotBelowBytes;
  uint64_t memory = (lowest & ~(kHugePage - 1)) + kHugePage / 2;
  if (memory < lowest) memory += kHugePage;
  const uint64_t slot_begin = memory - wasm::kSlotBelowBytes;
  if (slot_begin > begin) ::munmap(at, slot_begin - begin);
  const uint64_t slot_end = slot_begin + kSlotBytes;
  if (slot_end < begin + size) ::munmap(reinterpret_cast<void*>(slot_end), begin + size - slot_end);
  Slot slot(reinterpret_cast<uint8_t*>(memory));
  TRY(forbid_huge_pages(slot.memory_ - wasm::kSlotBelowBytes));
  return slot;
}

Slot::~Slot() {
  if (memory_) ::munmap(memory_ - wasm::kSlotBelowBytes, kSlotBytes);
}

Result<void> Slot::clear() {
  if (::mmap(memory_ - wasm::kSlotBelowBytes, kSlotBytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    return fail_errno("clear a slot");
  return forbid_huge_pages(memory_ - wasm::kSlotBelowBytes);
}

}  // namespace spore::faaslet
