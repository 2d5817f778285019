#include "processes/tenant_processes.h"

#include "processes/tenant_process.h"

namespace spore::processes {

TenantProcesses::TenantProcesses(ProcessOptions options, ProcessServices services)
    : options_(std::move(options)), services_(std::move(services)), requests_({.threads = options_.request_threads}) {}

TenantProcesses::~TenantProcesses() { stop(); }

void TenantProcesses::start(worker::CallRequest request, worker::Clock::time_point deadline, worker::CallDone done) {
  std::shared_ptr<TenantProcess> process;
  {
    auto state = state_.lock();
    if (!state->stopping) {
      auto& found = state->tenants[request.function->id.tenant];
      if (!found) found = std::make_shared<TenantProcess>(*this, request.function->id.tenant);
      process = found;
    }
  }
  if (process) return process->start(std::move(request), deadline, std::move(done));
  worker::CallResult result;
  result.id = request.id;
  result.status = worker::CallStatus::kDraining;
  done(std::move(result));
}

void TenantProcesses::cancel(const functions::FunctionId& function, const worker::CallId& id) {
  auto state = state_.lock();
  const auto found = state->tenants.find(function.tenant);
  if (found != state->tenants.end()) found->second->cancel(id);
}

void TenantProcesses::forget(const functions::FunctionId& function) {
  auto state = state_.lock();
  const auto found = state->tenants.find(function.tenant);
  if (found != state->tenants.end()) found->second->forget(function.name);
}

bool TenantProcesses::take_place() {
  for (size_t taken = places_taken_; taken < options_.processes_max;)
    if (places_taken_.compare_exchange_weak(taken, taken + 1)) return true;
  auto state = state_.lock();
  TenantProcess* oldest = nullptr;
  std::optional<worker::Clock::time_point> since;
  for (const auto& [tenant, process] : state->tenants) {
    const auto idle = process->idle_since();
    if (!idle || (since && *since <= *idle)) continue;
    oldest = process.get();
    since = idle;
  }
  if (oldest) oldest->end_if_idle();
  return false;
}

void TenantProcesses::stop() {
  std::map<std::string, std::shared_ptr<TenantProcess>> all;
  {
    auto state = state_.lock();
    state->stopping = true;
    all = state->tenants;
  }
  for (const auto& [tenant, process] : all) process->stop();
}

worker::RunnerStats TenantProcesses::stats() const {
  worker::RunnerStats out{.processes = places_taken_, .started = started_, .died = died_, .requests = asked_};
  auto state = state_.lock();
  for (const auto& [tenant, process] : state->tenants) out.calls += process->calls();
  return out;
}

}  // namespace spore::processes
