// Windows of a Faaslet: where they lie, and when they go.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "faaslet/faaslet.h"

namespace spore::faaslet {

namespace {

constexpr uint64_t kMachinePageBytes = 4096;
constexpr uint64_t kAlignment = wasm::kPageBytes;  // and the least that stays free behind each

}  // namespace

const Window* Faaslet::window_at(uint64_t address, uint64_t size_bytes) const {
  for (const Window& window : windows_) {
    if (address < window.offset) continue;
    const uint64_t within = address - window.offset;
    return within <= window.size_bytes && size_bytes <= window.size_bytes - within ? &window : nullptr;
  }
  return nullptr;
}

uint64_t Faaslet::windows_begin() const {
  return windows_.empty() ? static_cast<uint64_t>(window_floor_) : windows_.back().offset;
}

uint64_t Faaslet::room_for_window(uint64_t size_bytes) const {
  const uint64_t needed = ((size_bytes + kAlignment - 1) & ~(kAlignment - 1)) + kAlignment;
  auto top = static_cast<uint64_t>(window_floor_);  // the end of the gap looked at
  for (const Window& window : windows_) {
    const uint64_t bottom = ((window.offset + window.size_bytes + kAlignment - 1) & ~(kAlignment - 1)) + kAlignment;
    if (top >= bottom && top - bottom >= needed) break;
    top = window.offset;
  }
  // Below the last window there is memory, which ends on a multiple of 64 KiB as well.
  return top >= needed && top - needed >= memory_bytes() ? top - needed : 0;
}

Result<void> Faaslet::map_source(const Window& window) {
  uint8_t* const at = memory() + window.offset;
  if (::mmap(at, window.size_bytes, window.writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED,
             window.source->fd(), 0) == MAP_FAILED) {
    auto error = fail_errno("map a window");
    error.error().code = ErrorCode::kResourceExhausted;
    return error;
  }
  auto told = window.source->mapped(at, window.size_bytes, window.writable);
  if (!told) {
    CHECK(::mmap(at, window.size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
              MAP_FAILED,
          errno);
  }
  return told;
}

Result<uint32_t> Faaslet::map_window(std::shared_ptr<WindowSource> source, uint64_t size_bytes, bool writable) {
  CHECK(size_bytes > 0);
  Window window{.size_bytes = (size_bytes + kMachinePageBytes - 1) & ~(kMachinePageBytes - 1),
                .writable = writable,
                .in_use = true,
                .source = std::move(source)};
  if (windows_.size() < kWindowsMax) window.offset = room_for_window(window.size_bytes);
  if (window.offset == 0) {
    unmap_unused_windows();
    if (windows_.size() >= kWindowsMax)
      return fail(ErrorCode::kResourceExhausted,
                  "a function can have at most " + std::to_string(kWindowsMax) + " windows");
    window.offset = room_for_window(window.size_bytes);
    if (window.offset == 0)
      return fail(ErrorCode::kResourceExhausted,
                  "no room for a window of " + std::to_string(size_bytes) + " bytes above the function's memory");
  }
  TRY(map_source(window));
  const auto offset = static_cast<uint32_t>(window.offset);
  windows_.insert(std::ranges::find_if(windows_, [&](const Window& other) { return other.offset < offset; }),
                  std::move(window));
  return offset;
}

void Faaslet::unmap(size_t index) {
  const Window& window = windows_[index];
  uint8_t* const at = memory() + window.offset;
  window.source->unmapping(at);
  CHECK(::mmap(at, window.size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
            MAP_FAILED,
        errno);
  windows_.erase(windows_.begin() + static_cast<ptrdiff_t>(index));
}

void Faaslet::unmap_window(uint32_t address) {
  const auto found = std::ranges::find(windows_, address, &Window::offset);
  CHECK(found != windows_.end(), address);
  unmap(static_cast<size_t>(found - windows_.begin()));
}

void Faaslet::unmap_unused_windows() {
  for (size_t i = windows_.size(); i-- > 0;)
    if (!windows_[i].in_use) unmap(i);
}

void Faaslet::unmap_windows() {
  while (!windows_.empty()) unmap(windows_.size() - 1);
}

void Faaslet::forget_windows() {
  if (!has_slot()) return;
  for (const Window& window : windows_) window.source->unmapping(memory() + window.offset);
  windows_.clear();
}

}  // namespace spore::faaslet
