#include "state/operation.h"

#include <sys/eventfd.h>

#include "base/check.h"

namespace spore::state {

int Operation::fd() {
  auto state = state_.lock();
  if (!state->event.valid()) {
    state->event = UniqueFd(::eventfd(state->result ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
  return state->event.get();
}

Result<int64_t> Operation::result() const {
  auto state = state_.lock();
  CHECK(state->result.has_value());
  return *state->result;
}

void Operation::end(Result<int64_t> result) {
  auto state = state_.lock();
  if (state->result) return;
  state->result = std::move(result);
  if (state->event.valid()) ::eventfd_write(state->event.get(), 1);
}

BlockingPool::BlockingPool(BlockingPoolOptions options) : options_(options) {
  for (unsigned i = 0; i < options_.threads; ++i) threads_.emplace_back([this] { run(); });
}

BlockingPool::~BlockingPool() {
  state_.lock()->stopping = true;
  job_came_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  for (auto& [tenant, jobs] : state_.lock()->jobs)
    for (Job& job : jobs) job.operation->end(fail(ErrorCode::kUnavailable, "the host is stopping"));
}

std::shared_ptr<Operation> BlockingPool::start(const std::string& tenant, std::function<Result<int64_t>()> work) {
  auto operation = std::make_shared<Operation>();
  {
    auto state = state_.lock();
    const auto found = state->jobs.find(tenant);
    const size_t of_tenant = found == state->jobs.end() ? 0 : found->second.size();
    if (state->waiting >= options_.queue_max || of_tenant >= options_.queue_per_tenant_max || state->stopping) {
      operation->end(fail(ErrorCode::kResourceExhausted, "too many operations on state are waiting"));
      return operation;
    }
    if (of_tenant == 0) state->turns.push_back(tenant);
    state->jobs[tenant].push_back({operation, std::move(work)});
    ++state->waiting;
  }
  job_came_.notify_one();
  return operation;
}

void BlockingPool::run() {
  auto state = state_.lock();
  for (;;) {
    while (!state->stopping && state->turns.empty()) job_came_.wait(state.lock());
    if (state->stopping) return;
    const std::string tenant = std::move(state->turns.front());
    state->turns.pop_front();
    auto& jobs = state->jobs.at(tenant);
    Job job = std::move(jobs.front());
    jobs.pop_front();
    --state->waiting;
    if (jobs.empty())
      state->jobs.erase(tenant);
    else
      state->turns.push_back(tenant);
    state.lock().unlock();
    job.operation->end(job.work());
    job = {};
    state.lock().lock();
  }
}

}  // namespace spore::state
