// What Faaslets of a function are restored from: the whole of an instance between calls, live (references are offsets
// into the code arena), in one sealed memory file that is mapped copy-on-write. Immutable; any number of Faaslets on
// any threads share it.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/guarded.h"
#include "base/mapping.h"
#include "faaslet/code_arena.h"
#include "faaslet/instance_state.h"
#include "faaslet/page_scan.h"

namespace spore::faaslet {

// A contiguous part of a slot that an image fills: [0] is everything up to the end of memory 0, then one for each
// further memory.
struct ImageRegion {
  int64_t offset = 0;        // from M; page-aligned
  uint64_t image_bytes = 0;  // whole pages
  uint64_t file_offset = 0;
};

class ProtoFaaslet {
 public:
  // `state` is one of the object's module. kResourceExhausted: memory larger than `memory_pages_max`, or than a slot.
  static Result<std::shared_ptr<const ProtoFaaslet>> make(std::shared_ptr<const LoadedObject> object,
                                                          const InstanceState& state,
                                                          uint64_t memory_pages_max = wasm::kMemory32PagesMax);
  // From what instantiate() gives.
  static Result<std::shared_ptr<const ProtoFaaslet>> make_instantiated(
      std::shared_ptr<const LoadedObject> object, uint64_t memory_pages_max = wasm::kMemory32PagesMax);

  const std::shared_ptr<const LoadedObject>& object() const { return object_; }
  const wasm::ModuleInfo& module() const { return object_->module(); }
  uint64_t memory_bytes() const { return memory_bytes_; }
  uint64_t memory_pages_max() const { return memory_pages_max_; }
  // How far memory 0 may grow before it meets the windows, in bytes from M.
  int64_t window_floor() const { return window_floor_; }
  // InstanceState's.
  bool initialised() const { return initialised_; }
  const std::string& uninitialised_because() const { return uninitialised_because_; }

  std::span<const ImageRegion> regions() const { return regions_; }
  // A region's bytes, to read from.
  const uint8_t* image(size_t region = 0) const { return image_.data() + regions_[region].file_offset; }
  uint64_t image_bytes() const { return image_.size(); }
  // Of them, those that take up memory.
  uint64_t resident_bytes() const;

  // Makes an empty slot, by its M, a fresh copy. One mapping a region, whatever the size; then the pages that first
  // calls have been seen to write to are copied at once, where they lie side by side: that costs a third less than
  // their faults.
  Result<void> map_into(uint8_t* memory) const;

  // Pages of region 0 that a call on a fresh copy has written to, sorted, by offset from its begin. Those that the
  // first kObservedCalls calls had in common are the working set. Any thread.
  void observe(std::span<const PageRange> written) const;
  bool wants_observation() const { return observed_.load(std::memory_order_relaxed) < kObservedCalls; }
  static constexpr uint32_t kObservedCalls = 4;
  static constexpr uint64_t kRunPagesMin = 4;  // shorter runs cost less by their faults
  static constexpr size_t kRunsMax = 64;

  // The index of the module's own function in that entry of table 0; nothing where there is none.
  std::optional<uint32_t> function_in_table(uint32_t entry) const;

  // The same again without addresses. It borrows from the image.
  InstanceState state() const;
  // Where a region has pages of its own, by offset from the region's begin; elsewhere it is zero. Sorted.
  std::vector<std::pair<uint64_t, uint64_t>> data_extents(size_t region) const;

 private:
  ProtoFaaslet() = default;
  std::shared_ptr<const LoadedObject> object_;
  std::vector<ImageRegion> regions_;
  UniqueFd fd_;
  Mapping image_;
  uint64_t memory_bytes_ = 0;
  uint64_t memory_pages_max_ = 0;
  int64_t window_floor_ = 0;
  bool initialised_ = false;
  std::string uninitialised_because_;

  mutable std::atomic<uint32_t> observed_ = 0;
  mutable Guarded<std::vector<PageRange>> common_;                            // of the calls observed so far
  mutable std::atomic<const std::vector<PageRange>*> working_set_ = nullptr;  // once complete: that of common_
};

// Globals, segments and tables of the instance whose M is `memory`; its memories are left out.
InstanceState state_without_memories(const LoadedObject& object, const uint8_t* memory);

}  // namespace spore::faaslet
