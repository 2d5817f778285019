#include "host/watchdog.h"

#include <utility>

#include "base/check.h"

namespace spore::host {

Watchdog::Watchdog() : thread_([this] { loop(); }) {}

Watchdog::~Watchdog() {
  {
    auto shared = shared_.lock();
    CHECK(shared->watched.empty() && shared->fired.empty(), shared->watched.size(), shared->fired.size());
    shared->stopping = true;
  }
  changed_.notify_one();
  thread_.join();
}

Watchdog::Guard Watchdog::watch(faaslet::Seat& seat, uint64_t generation, faaslet::Clock::time_point deadline) {
  Guard::Key key;
  bool sooner = false;
  {
    auto shared = shared_.lock();
    key = {deadline, shared->next_id++};
    shared->watched.emplace(key, Watched{&seat, generation});
    sooner = deadline < shared->sleeping_until;
  }
  if (sooner) changed_.notify_one();
  return Guard(this, key);
}

Watchdog::Guard::~Guard() {
  if (!watchdog_) return;
  auto shared = watchdog_->shared_.lock();
  shared->watched.erase(key_);
  shared->fired.erase(key_.second);
}

bool Watchdog::Guard::fired() const { return watchdog_ && watchdog_->shared_.lock()->fired.contains(key_.second); }

void Watchdog::loop() {
  auto shared = shared_.lock();
  while (!shared->stopping) {
    const auto now = faaslet::Clock::now();
    // The seat lives at least as long as its guard, and the guard cannot go while the lock is held.
    while (!shared->watched.empty() && shared->watched.begin()->first.first <= now) {
      const auto due = shared->watched.begin();
      due->second.seat->interrupt(due->second.generation);
      shared->fired.insert(due->first.second);
      shared->watched.erase(due);
    }
    if (shared->watched.empty()) {
      shared->sleeping_until = faaslet::Clock::time_point::max();
      changed_.wait(shared.lock());
    } else {
      shared->sleeping_until = shared->watched.begin()->first.first;
      changed_.wait_until(shared.lock(), shared->sleeping_until);
    }
  }
}

}  // namespace spore::host
