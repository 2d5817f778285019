// How a call reaches the state of its tenant.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "faaslet/window.h"
#include "state/local_tier.h"
#include "state/locks.h"
#include "state/operation.h"

namespace spore::host {

// What a host has for all its calls; outlives them.
struct StateServices {
  state::LocalTier* tier = nullptr;
  state::BlockingPool* pool = nullptr;
  state::LockService* locks = nullptr;        // null: calls cannot lock
  std::chrono::milliseconds timeout{10'000};  // of an operation that waits for the global tier
};

// A replica in a window of a Faaslet.
class StateWindow final : public faaslet::WindowSource {
 public:
  explicit StateWindow(std::shared_ptr<state::Replica> replica) : replica_(std::move(replica)) {}
  const std::shared_ptr<state::Replica>& replica() const { return replica_; }

  int fd() const override { return replica_->fd(); }
  Result<void> mapped(uint8_t* at, uint64_t size_bytes, bool writable) override {
    return replica_->add_window(at, size_bytes, writable);
  }
  void unmapping(uint8_t* at) override { replica_->remove_window(at); }
  bool reusable() const override { return replica_->windows_reusable(); }
  std::unique_ptr<faaslet::WindowWait> wait_at(uint64_t offset, const std::function<bool()>& as_expected) override {
    auto operation = replica_->wait_at(offset, as_expected);
    return operation ? std::make_unique<Wait>(replica_, offset, std::move(operation)) : nullptr;
  }
  uint32_t notify_at(uint64_t offset, uint32_t count) override { return replica_->wake(offset, count); }

 private:
  class Wait final : public faaslet::WindowWait {
   public:
    Wait(std::shared_ptr<state::Replica> replica, uint64_t offset, std::shared_ptr<state::Operation> operation)
        : replica_(std::move(replica)), offset_(offset), operation_(std::move(operation)) {}
    ~Wait() override { replica_->stop_waiting(offset_, *operation_); }
    bool woken() const override { return operation_->ended(); }
    int fd() override { return operation_->fd(); }

   private:
    const std::shared_ptr<state::Replica> replica_;
    const uint64_t offset_;
    const std::shared_ptr<state::Operation> operation_;
  };

  const std::shared_ptr<state::Replica> replica_;
};

}  // namespace spore::host
