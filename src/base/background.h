// A few threads for what may take long or wait for a disk (publishing, loading, storing calls), so that no
// thread that serves calls ever does. The queue is bounded.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "base/guarded.h"

namespace spore {

class Background {
 public:
  using Task = std::move_only_function<void()>;

  Background(unsigned threads, size_t queue_max);
  ~Background() { finish(); }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // False, and `task` untouched, when the queue is full. Any thread.
  [[nodiscard]] bool try_submit(Task& task);
  // Takes nothing more, and returns when all that was taken has run.
  void finish();
  // Waiting and running.
  size_t pending() const { return queue_.lock()->pending; }

 private:
  struct Queue {
    std::deque<Task> tasks;
    size_t pending = 0;
    bool stopping = false;
  };
  void loop();

  const size_t queue_max_;
  Guarded<Queue> queue_;
  std::condition_variable changed_;
  std::vector<std::jthread> threads_;
};

}  // namespace spore
