// A bound on memory that many requests share: bodies being received, and answers waiting for slow readers. Whoever
// wants to hold bytes takes a share first and gives it back by destroying it. Lock-free; any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace spore::gateway {

class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  // Some bytes of a budget; it must not outlive the budget.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() { release(); }

    // Makes the share `bytes` large; false, and unchanged, where the budget has not that much left.
    [[nodiscard]] bool grow_to(MemoryBudget& budget, uint64_t bytes) {
      if (bytes <= bytes_) return true;
      if (!budget.take(bytes - bytes_)) return false;
      budget_ = &budget;
      bytes_ = bytes;
      return true;
    }
    void release() {
      if (bytes_) budget_->used_.fetch_sub(bytes_, std::memory_order_relaxed);
      bytes_ = 0;
    }
    uint64_t bytes() const { return bytes_; }

   private:
    MemoryBudget* budget_ = nullptr;
    uint64_t bytes_ = 0;
  };

  uint64_t used_bytes() const { return used_.load(std::memory_order_relaxed); }

 private:
  bool take(uint64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= bytes_max_) return true;
    used_.fetch_sub(bytes, std::memory_order_relaxed);
    return false;
  }

  const uint64_t bytes_max_;
  std::atomic<uint64_t> used_{0};
};

}  // namespace spore::gateway
