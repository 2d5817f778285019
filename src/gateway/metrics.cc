#include "gateway/metrics.h"

#include <algorithm>
#include <fstream>

namespace spore::gateway {

namespace {

uint64_t value_of(const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); }
void increment(std::atomic<uint64_t>& counter, uint64_t by = 1) { counter.fetch_add(by, std::memory_order_relaxed); }

void head(std::string& out, std::string_view name, std::string_view type, std::string_view help) {
  out.append("# HELP ").append(name).append(" ").append(help).append("\n# TYPE ").append(name).append(" ");
  out.append(type).append("\n");
}

void sample(std::string& out, std::string_view name, std::string_view labels, uint64_t value) {
  out.append(name).append(labels).append(" ").append(std::to_string(value)).append("\n");
}

void single(std::string& out, std::string_view name, std::string_view type, std::string_view help, uint64_t value) {
  head(out, name, type, help);
  sample(out, name, "", value);
}

// Of this process, as the kernel says; 0 where it does not.
uint64_t status_bytes(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::strtoull(line.c_str() + field.size(), nullptr, 10) << 10;
  return 0;
}

constexpr size_t kTenantsShown = 100;  // those that hold most

void render_books(std::string& out, const MemoryBooks& books) {
  using Refusal = MemoryAccount::Refusal;
  head(out, "spore_memory_bytes", "gauge", "What is charged for guests, by kind.");
  const MemoryByKind kinds = books.total().by_kind();
  for (size_t i = 0; i < kinds.size(); ++i)
    sample(out, "spore_memory_bytes", "{kind=\"" + std::string(to_string(static_cast<MemoryKind>(i))) + "\"}",
           kinds[i]);
  single(out, "spore_memory_limit_bytes", "gauge", "What they may have, all together.", books.total().bytes_max());
  head(out, "spore_memory_tenant_bytes", "gauge", "What is charged for a tenant, of the 100 that have most.");
  auto tenants = books.tenants();
  tenants.resize(std::min(tenants.size(), kTenantsShown));
  for (const auto& of : tenants) sample(out, "spore_memory_tenant_bytes", "{tenant=\"" + of.tenant + "\"}", of.bytes);
  head(out, "spore_memory_refused_total", "counter", "Charges that were refused, by whose limit.");
  sample(out, "spore_memory_refused_total", "{limit=\"tenant\"}", books.refused(Refusal::kTenant));
  sample(out, "spore_memory_refused_total", "{limit=\"host\"}", books.refused(Refusal::kHost));
  head(out, "spore_process_memory_bytes", "gauge", "What the host's process has, as the kernel counts it.");
  sample(out, "spore_process_memory_bytes", "{kind=\"anonymous\"}", status_bytes("RssAnon:"));
  sample(out, "spore_process_memory_bytes", "{kind=\"shared\"}", status_bytes("RssShmem:"));
  sample(out, "spore_process_memory_bytes", "{kind=\"page_tables\"}", status_bytes("VmPTE:"));
}

void render_watch(std::string& out, const isolation::MemoryWatchStats& watch) {
  single(out, "spore_memory_level", "gauge", "0 calm, 1 tight (idle Faaslets go), 2 short (calls wait).",
         static_cast<uint64_t>(watch.level));
  single(out, "spore_memory_left_bytes", "gauge", "Left on the machine, or below the limit of its cgroup.",
         watch.left_bytes);
  single(out, "spore_memory_stalls_total", "counter", "Stalls for memory that the kernel told of.", watch.stalls);
  single(out, "spore_memory_tight_total", "counter", "Looks that found memory tight or short.", watch.tight);
}

std::string seconds(uint64_t us) {
  std::string text = std::to_string(static_cast<double>(us) / 1e6);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text += '0';
  return text;
}

}  // namespace

void Metrics::count_response(unsigned status) { increment(responses_[std::min(status / 100, 5u)]); }

void Metrics::count_call(const worker::CallResult& result) {
  increment(calls_[static_cast<size_t>(result.status)]);
  const auto us = static_cast<uint64_t>(result.duration.count());
  increment(durations_[static_cast<size_t>(std::ranges::lower_bound(kBucketsUs, us) - kBucketsUs.begin())]);
  increment(duration_us_sum_, us);
  increment(cpu_us_, static_cast<uint64_t>(result.usage.cpu.count()));
  increment(sent_bytes_, result.usage.sent_bytes);
  increment(received_bytes_, result.usage.received_bytes);
}

void Metrics::count_publish(bool published) { increment(published ? published_ : publish_failed_); }

std::string Metrics::render(const ServerStats& server, const worker::WorkerStats& worker,
                            const functions::RegistryStats& registry, const calls::AsyncStats& calls,
                            const MemoryFigures& memory) const {
  std::string out;
  head(out, "spore_http_responses_total", "counter", "HTTP responses, by class of status.");
  for (unsigned hundreds = 2; hundreds <= 5; ++hundreds) {
    sample(out, "spore_http_responses_total", "{class=\"" + std::to_string(hundreds) + "xx\"}",
           value_of(responses_[hundreds]));
  }
  head(out, "spore_calls_total", "counter", "Calls that ended, by outcome.");
  for (size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = to_string(static_cast<worker::CallStatus>(i));
    sample(out, "spore_calls_total", "{outcome=\"" + std::string(outcome) + "\"}", value_of(calls_[i]));
  }
  head(out, "spore_call_duration_seconds", "histogram", "Time of a call from its arrival to its end.");
  uint64_t sum = 0;
  for (size_t i = 0; i < kBucketsUs.size(); ++i) {
    sum += value_of(durations_[i]);
    sample(out, "spore_call_duration_seconds_bucket", "{le=\"" + seconds(kBucketsUs[i]) + "\"}", sum);
  }
  sum += value_of(durations_.back());
  sample(out, "spore_call_duration_seconds_bucket", "{le=\"+Inf\"}", sum);
  out += "spore_call_duration_seconds_sum " + seconds(value_of(duration_us_sum_)) + "\n";
  sample(out, "spore_call_duration_seconds_count", "", sum);

  head(out, "spore_calls_cpu_seconds_total", "counter", "CPU time that guests used.");
  out += "spore_calls_cpu_seconds_total " + seconds(value_of(cpu_us_)) + "\n";
  head(out, "spore_calls_network_bytes_total", "counter", "Bytes that guests sent and received by their sockets.");
  sample(out, "spore_calls_network_bytes_total", "{direction=\"sent\"}", value_of(sent_bytes_));
  sample(out, "spore_calls_network_bytes_total", "{direction=\"received\"}", value_of(received_bytes_));
  single(out, "spore_calls_running", "gauge", "Calls that run now.", worker.running);
  single(out, "spore_calls_waiting", "gauge", "Calls that wait for a seat.", worker.waiting);
  single(out, "spore_calls_parked", "gauge", "Calls that wait inside the guest, without a seat.", worker.parked);
  single(out, "spore_calls_held", "gauge", "Of those that wait: for memory to begin in.", worker.held);
  single(out, "spore_calls_held_total", "counter", "Calls that had to wait for memory.", worker.held_in_all);
  if (memory.books) render_books(out, *memory.books);
  if (memory.watch) render_watch(out, memory.watch->stats());
  const worker::PoolStats& pool = worker.pool;
  single(out, "spore_seats", "gauge", "Calls that may run at once.", worker.seats);
  single(out, "spore_calls_parked_bytes", "gauge", "Memory of calls that wait without a slot.", worker.parked_bytes);
  single(out, "spore_slots", "gauge", "Slots that there are, of Faaslets and spare.", pool.slots);
  single(out, "spore_slots_max", "gauge", "Slots that there may be.", pool.slots_max);
  single(out, "spore_slots_spare", "gauge", "Slots prepared ahead.", pool.slots_spare);
  head(out, "spore_faaslets_idle", "gauge", "Faaslets that wait for a next call, in a slot or parked without one.");
  sample(out, "spore_faaslets_idle", "{place=\"slot\"}", pool.idle_resident);
  sample(out, "spore_faaslets_idle", "{place=\"parked\"}", pool.idle_parked);
  single(out, "spore_faaslets_idle_bytes", "gauge", "Memory that they hold.", pool.idle_bytes);
  single(out, "spore_faaslets_restored_total", "counter", "Faaslets made from an image.", pool.restored);
  single(out, "spore_faaslets_reused_total", "counter", "Calls that found an idle Faaslet.", pool.reused);
  single(out, "spore_faaslets_parked_total", "counter", "Idle Faaslets that gave their slot to another.", pool.parked);
  single(out, "spore_faaslets_evicted_total", "counter", "Idle Faaslets that went for want of room.", pool.evicted);
  single(out, "spore_faaslets_shed_total", "counter", "Of them, those that went for want of memory.", pool.shed);
  const state::LocalTierStats& state = worker.state;
  single(out, "spore_state_replicas", "gauge", "State values that are open on this host.", state.replicas);
  single(out, "spore_state_bytes", "gauge", "Their sizes together.", state.bytes);
  single(out, "spore_state_windows", "gauge", "Windows that Faaslets have on them.", state.windows);
  single(out, "spore_state_evicted_total", "counter", "Replicas that went for want of room.", state.evicted);
  single(out, "spore_state_pushes_total", "counter", "Pushes that published something.", state.pushes);
  single(out, "spore_state_pushed_bytes_total", "counter", "Bytes of changed pages that they had.", state.pushed_bytes);
  single(out, "spore_state_fetched_bytes_total", "counter", "Bytes that came from the global tier.",
         state.fetched_bytes);
  const worker::RunnerStats& runner = worker.runner;
  single(out, "spore_tenant_processes", "gauge", "Processes of tenants that run.", runner.processes);
  single(out, "spore_tenant_calls", "gauge", "Calls that they run, or that wait for one.", runner.calls);
  single(out, "spore_tenant_processes_started_total", "counter", "Processes of tenants begun.", runner.started);
  single(out, "spore_tenant_processes_died_total", "counter", "Of them, those that were not let end.", runner.died);
  single(out, "spore_tenant_requests_total", "counter", "What they have asked of the host.", runner.requests);
  single(out, "spore_async_calls_queued", "gauge", "Durable calls that wait for their next attempt.", calls.queued);
  single(out, "spore_async_calls_running", "gauge", "Durable calls with an attempt under way.", calls.running);
  single(out, "spore_async_calls_dead", "gauge", "Dead letters.", calls.stored.dead);
  single(out, "spore_async_calls_stored", "gauge", "Durable calls that are stored, ended or not.", calls.stored.calls);
  single(out, "spore_async_calls_stored_bytes", "gauge", "Bytes of them.", calls.stored.bytes);
  single(out, "spore_async_watchers", "gauge", "Requests that wait for a durable call.", calls.watchers);
  single(out, "spore_async_calls_accepted_total", "counter", "Durable calls that were stored.", calls.accepted);
  single(out, "spore_async_attempts_total", "counter", "Attempts to run them that ended.", calls.attempts);
  head(out, "spore_async_calls_completed_total", "counter", "Durable calls that ended, by status.");
  sample(out, "spore_async_calls_completed_total", "{status=\"succeeded\"}", calls.succeeded);
  sample(out, "spore_async_calls_completed_total", "{status=\"failed\"}", calls.failed);
  sample(out, "spore_async_calls_completed_total", "{status=\"cancelled\"}", calls.cancelled);
  single(out, "spore_draining", "gauge", "1 while the host shuts down.", worker.draining ? 1 : 0);
  single(out, "spore_connections_open", "gauge", "Open HTTP connections.", server.open);
  single(out, "spore_connections_accepted_total", "counter", "HTTP connections accepted.", server.accepted);
  single(out, "spore_connections_refused_total", "counter", "HTTP connections refused for want of room.",
         server.refused);
  single(out, "spore_http_requests_total", "counter", "HTTP requests whose header was read.", server.requests);
  single(out, "spore_http_memory_bytes", "gauge", "Bytes held for request bodies and unsent responses.",
         server.memory_bytes);
  head(out, "spore_publishes_total", "counter", "Publishes that ended, by outcome.");
  sample(out, "spore_publishes_total", "{outcome=\"published\"}", value_of(published_));
  sample(out, "spore_publishes_total", "{outcome=\"failed\"}", value_of(publish_failed_));
  single(out, "spore_functions", "gauge", "Functions in the catalogue.", registry.functions);
  single(out, "spore_functions_loaded", "gauge", "Functions held ready to run.", registry.loaded);
  single(out, "spore_background_compiles_waiting", "gauge", "Modules that wait for their optimised code.",
         registry.background_waiting);
  single(out, "spore_compiles_total", "counter", "Modules compiled.", registry.compiled);
  single(out, "spore_compile_failures_total", "counter", "Compilations that failed.", registry.compile_failures);
  single(out, "spore_initialisers_total", "counter", "Images made by running a function's initialisers.",
         registry.initialised);
  single(out, "spore_images_found_total", "counter", "Images taken from the store.", registry.images_found);
  return out;
}

}  // namespace spore::gateway
