#include "base/background.h"

namespace spore {

Background::Background(unsigned threads, size_t queue_max) : queue_max_(queue_max) {
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
}

void Background::finish() {
  queue_.lock()->stopping = true;
  changed_.notify_all();
  threads_.clear();
}

bool Background::try_submit(Task& task) {
  {
    auto queue = queue_.lock();
    if (queue->stopping || queue->tasks.size() >= queue_max_) return false;
    queue->tasks.push_back(std::move(task));
    ++queue->pending;
  }
  changed_.notify_one();
  return true;
}

void Background::loop() {
  auto queue = queue_.lock();
  for (;;) {
    changed_.wait(queue.lock(), [&] { return queue->stopping || !queue->tasks.empty(); });
    if (queue->tasks.empty()) return;
    {
      Task task = std::move(queue->tasks.front());
      queue->tasks.pop_front();
      queue.lock().unlock();
      task();
    }
    queue.lock().lock();
    --queue->pending;
  }
}

}  // namespace spore
