// The processes of tenants whose functions run apart (isolation = process), as the host sees them: one for each such
// tenant, from its first call until it has been idle for a time.
//
//   Worker --start, cancel--> TenantProcesses { tenant -> TenantProcess } --frames--> process (processes/inside.h)
//                                                               ^---- requests: state, functions, files of calls
//
// A process is not trusted: it gets what is its tenant's and nothing else, whatever it asks for, and one that does not
// keep to the protocol, or does not end a call in time, is killed. When it ends, the calls that it ran end as
// kProcessEnded; those that wait go to the next one, which begins after a pause that grows from one quick end to the
// next. Processes end with the host, however that ends.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/guarded.h"
#include "functions/registry.h"
#include "functions/shared_files.h"
#include "isolation/broker.h"
#include "state/global_tier.h"
#include "worker/call_runner.h"
#include "worker/file_view.h"
#include "worker/worker.h"

namespace spore::processes {

struct ProcessOptions {
  size_t processes_max = 16;                   // at once
  std::chrono::milliseconds idle_max{60'000};  // without a call, then a process ends
  std::chrono::milliseconds start_max{30'000};
  std::chrono::milliseconds pause_min{100};     // before a process is started again that ended within quick_end
  std::chrono::milliseconds pause_max{30'000};  // doubled up to this
  std::chrono::milliseconds quick_end{10'000};
  std::chrono::milliseconds grace{10'000};    // beyond the deadline of a call, or its cancellation, to end it
  size_t calls_max = 5'000;                   // of one tenant, waiting or running
  uint64_t queued_bytes_max = 256ull << 20;   // of inputs on the way to one process
  size_t networks_max = 1'000;                // of one process, at once
  size_t requests_max = 256;                  // of one process, under way
  uint64_t request_bytes_max = 512ull << 20;  // of all of them
  unsigned request_threads = 8;               // of all processes
  unsigned seats = 2;                         // of each process
  uint64_t log_bytes_max = 64 << 10;          // of a call
  size_t tenant_concurrency_max = 0;
  std::set<std::string> precise_clocks;  // tenants
  bool preempt = true;
  worker::ChainLimits chain;
  worker::PoolOptions pool;
  uint64_t state_bytes_max = 1ull << 30;  // that a process holds of values
  size_t state_values_max = 1'024;
  unsigned state_threads = 4;
  std::chrono::milliseconds state_timeout{10'000};
  std::chrono::milliseconds lock_lease{10'000};
  std::chrono::milliseconds initialise_timeout{10'000};
};

// What processes get things from. All outlive the processes.
struct ProcessServices {
  isolation::Broker* broker = nullptr;  // with apart_operations()
  functions::Registry* registry = nullptr;
  state::GlobalTier* state = nullptr;         // null: calls have no state
  isolation::NetworkPool* network = nullptr;  // null: calls have no network
  std::optional<isolation::IpAddress> resolver;
  MemoryBooks* memory = nullptr;  // whose limit for a tenant each process keeps to by itself; null: there is none
  worker::FileRoots file_roots;
  worker::ChainHooks hooks;  // of calls that calls make, as the worker's
};

class TenantProcess;

class TenantProcesses final : public worker::CallRunner {
 public:
  TenantProcesses(ProcessOptions options, ProcessServices services);
  // stop().
  ~TenantProcesses() override;

  void start(worker::CallRequest request, worker::Clock::time_point deadline, worker::CallDone done) override;
  void cancel(const functions::FunctionId& function, const worker::CallId& id) override;
  // For HostHooks::changed.
  void forget(const functions::FunctionId& function);

  // Ends all processes, and with them the calls that they have, as kCancelled; takes no calls any more (kDraining).
  void stop();
  worker::RunnerStats stats() const override;

 private:
  friend class TenantProcess;
  struct State {
    std::map<std::string, std::shared_ptr<TenantProcess>> tenants;
    bool stopping = false;
  };
  // Whether one more process may run; where not, one that is idle is asked to end.
  bool take_place();
  void give_place() { --places_taken_; }

  const ProcessOptions options_;
  const ProcessServices services_;
  std::atomic<size_t> places_taken_{0};
  std::atomic<uint64_t> started_{0}, died_{0}, asked_{0};
  Guarded<State> state_;
  state::BlockingPool requests_;  // its work uses all that is above
};

}  // namespace spore::processes
