#include "faaslet/slot.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <cerrno>

#include "wasm/abi.h"

namespace spore::faaslet {

namespace {

constexpr uint64_t kHugePage = 2ull << 20;
constexpr uint64_t kSlotBytes = wasm::kSlotBelowBytes + wasm::kSlotAboveBytes;

}  // namespace

Result<void> forbid_huge_pages() {
  static const int error = ::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 ? 0 : errno;
  if (error != 0) return fail_errno("forbid huge pages for the process", error);
  return {};
}

Result<Slot> Slot::reserve() {
  TRY(forbid_huge_pages());
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
  return Slot(reinterpret_cast<uint8_t*>(memory));
}

Slot::~Slot() {
  if (memory_) ::munmap(memory_ - wasm::kSlotBelowBytes, kSlotBytes);
}

Result<void> Slot::clear() {
  if (::mmap(memory_ - wasm::kSlotBelowBytes, kSlotBytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
    return fail_errno("clear a slot");
  return {};
}

}  // namespace spore::faaslet
