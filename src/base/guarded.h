// Data and its lock as one object: you cannot reach the data without holding the lock.
#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

namespace spore {

template <class T>
class Guarded {
 public:
  template <class... Args>
  explicit Guarded(Args&&... args) : value_(std::forward<Args>(args)...) {}

  class Locked {
   public:
    T* operator->() { return value_; }
    T& operator*() { return *value_; }
    // For std::condition_variable: the lock that guards this value.
    std::unique_lock<std::mutex>& lock() { return lock_; }

   private:
    friend class Guarded;
    Locked(std::mutex& mutex, T* value) : lock_(mutex), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T* value_;
  };

  Locked lock() const { return Locked(mutex_, const_cast<T*>(&value_)); }

 private:
  mutable std::mutex mutex_;
  T value_;
};

}  // namespace spore
