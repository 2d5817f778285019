// The process of one tenant, through all its lives, and the calls that it has. See tenant_processes.h.
//
//   start --> waiting (no process yet, or it is leaving) --> with the process --kEnded--> done
//
// One thread, for as long as there is work: it starts the process, reads what it says, and ends what is not ended in
// time. Requests are answered on threads of TenantProcesses.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "base/fd.h"
#include "base/guarded.h"
#include "isolation/apart.h"
#include "processes/link.h"
#include "processes/protocol.h"
#include "processes/tenant_processes.h"
#include "processes/tier_service.h"

namespace spore::processes {

class TenantProcess {
 public:
  // `owner` outlives it.
  TenantProcess(TenantProcesses& owner, std::string tenant);
  // stop() was called.
  ~TenantProcess();

  // As those of TenantProcesses. Any thread.
  void start(worker::CallRequest request, Clock::time_point deadline, worker::CallDone done);
  void cancel(const CallId& id);
  void forget(const std::string& function);
  // Ends the process where it is idle, to make room.
  void end_if_idle();
  // Since when it has been idle; nothing: it is not, or there is no process.
  std::optional<Clock::time_point> idle_since() const;
  size_t calls() const { return state_.lock()->calls.size(); }

  // Ends all. Returns when no call is left.
  void stop();

 private:
  struct Call;
  struct Life;
  using CallPtr = std::shared_ptr<Call>;

  struct State {
    std::unordered_map<CallId, CallPtr, worker::CallIdHash> calls;
    std::deque<CallId> cancelled_early;  // of calls that were on their way here
    std::shared_ptr<Life> life;          // that takes calls; null: none
    bool leaving = false;                // it was asked whether it may end: calls wait for the answer
    bool end_now = false;                // it is to be asked at once
    bool stopping = false;
    Clock::time_point last_used;
  };

  void run();
  void rest(Clock::time_point until) const;
  void wake() const;

  // The process, from its start to its end.
  Result<std::shared_ptr<Life>> start_process();
  Setup setup() const;
  Error live(Life& life);
  Result<void> look(Life& life, Clock::time_point until);
  std::string kill(Life& life);
  void end_life(const std::shared_ptr<Life>& life, const Error& why);
  void pause_before_next();

  // Calls.
  bool send(State& state, Call& call);
  void send_waiting();
  // One that the process has; null: it does not.
  CallPtr find_call(const CallId& id) const;
  static void finish(Call& call, worker::CallResult result);
  static worker::CallResult failed(const CallId& id, worker::CallStatus status, Error error = {});
  // Those that wait and are cancelled or late. False: the process has one that it should have ended.
  bool end_late_calls();
  void end_all(worker::CallStatus status, const Error& error);

  // What the process says. Errors: it breaks the protocol.
  void read_error(Life& life);
  Result<void> take(Life& life, Frame frame);
  Result<void> take_ended(Frame frame);
  Result<void> take_chained(Frame frame);
  Result<void> take_request(Life& life, Frame frame);
  // On a thread for requests.
  Result<Bytes> answer(Life& life, RequestKind kind, ByteSpan arguments, std::vector<UniqueFd>& descriptors);
  Result<UniqueFd> open_socket(Life& life, uint64_t network, const functions::FunctionId& function,
                               std::optional<uint64_t> version, int family, int type);
  void post_answer(Life& life, uint64_t id, Result<Bytes> answered, std::vector<UniqueFd> descriptors);

  TenantProcesses& owner_;
  const std::string tenant_;
  UniqueFd wakes_;                            // an event that ends the thread's sleep
  std::atomic<uint64_t> frame_bytes_max_{0};  // that calls of what it has run may need
  unsigned quick_ends_ = 0;
  Clock::time_point not_before_;  // the next start
  Guarded<State> state_;
  std::jthread thread_;
};

}  // namespace spore::processes
