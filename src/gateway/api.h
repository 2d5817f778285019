// What the gateway's requests mean: the endpoints of docs/api (openapi.cc describes them to programs).
//
//   Server --admit, handle--> Api --calls--> Worker
//                              |--changes, first loads--> Background --> Registry
//                              |--state values--> Background --> GlobalTier
//                              |--durable calls--> Background --> AsyncCalls
//
// handle() runs on a thread of the server that is attached to the worker, so a call may run inside it. Whatever may
// wait for a disk, a store or the compiler goes to threads of Background: four queues, so that publishing delays
// neither calls nor the first load of a function, and a store that does not answer delays nothing but what is in it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <variant>

#include "base/background.h"
#include "calls/async_calls.h"
#include "functions/registry.h"
#include "functions/shared_files.h"
#include "gateway/access.h"
#include "gateway/call_log.h"
#include "gateway/metrics.h"
#include "gateway/operations.h"
#include "gateway/server.h"
#include "isolation/boundary.h"
#include "isolation/memory_watch.h"
#include "state/global_tier.h"
#include "worker/worker.h"

namespace spore::gateway {

struct ApiOptions {
  isolation::Boundaries boundaries;  // that the host enforces or does not: /readyz shows them
  uint64_t call_input_bytes_max = 64ull << 20;
  uint64_t web_held_bytes_max = 256 << 10;  // of the body of a web request; what is larger is streamed
  uint64_t web_bytes_max = 64ull << 30;     // of such a stream
  uint64_t module_bytes_max = 256ull << 20;
  functions::SharedFiles* shared_files = nullptr;  // outlives the Api; null: /v1/files is unknown
  uint64_t file_bytes_max = 256ull << 20;
  state::GlobalTier* state = nullptr;       // outlives the Api; null: /v1/state is unknown
  uint64_t value_bytes_max = 256ull << 20;  // of a request's body; values may be larger
  unsigned state_threads = 4;
  size_t state_requests_max = 1'000;    // under way, with those whose values are being taken by slow clients
  calls::AsyncCalls* calls = nullptr;   // outlives the Api; null: there are no durable calls
  unsigned calls_threads = 16;          // those that store calls at once share what it costs
  size_t calls_requests_max = 10'000;   // that wait for one of them
  const MemoryBooks* memory = nullptr;  // outlives the Api; null: metrics have none of it
  const isolation::MemoryWatch* memory_watch = nullptr;  // the same
  unsigned publish_threads = 2;
  size_t publish_queue_max = 64;
  unsigned catalogue_threads = 2;  // changes but publishing, and first loads
  size_t catalogue_queue_max = 1'000;
};

class Api final : public Application {
 public:
  // `registry` and `worker` outlive it.
  Api(functions::Registry& registry, worker::Worker& worker, Access access, ApiOptions options);
  ~Api() override { finish(); }

  // The server that this answers for; before its first request.
  void serve(Server& server) { server_ = &server; }
  // For ChainHooks::ended.
  void chained_call_ended(worker::CallResult& result, const functions::LoadedFunction& function, uint64_t input_bytes);
  // From now on calls and changes are refused, and /readyz says so.
  void drain() { draining_.store(true, std::memory_order_relaxed); }
  // Publishes, changes and requests about state and durable calls that wait or run.
  size_t pending() const {
    return publishing_.pending() + catalogue_.pending() + state_requests_.load() + calls_work_.pending();
  }
  // Gives up compilations of publishes under way, and returns when no thread of this works on a request any more. Calls
  // are the worker's affair.
  void finish();

  std::variant<BodyRule, Response> admit(Request& request) override;
  void handle(Request& request, Responder responder) override;
  Response error(unsigned status, std::string_view detail) override;

 private:
  struct Publish;
  struct StateRequest;
  // What a request asks about images.
  struct SnapshotQuery {
    std::string tenant, name;         // "": all
    bool describe = false;            // one version, else a list
    std::optional<uint64_t> version;  // default: the current one
    size_t limit = 0;
    std::optional<std::pair<functions::FunctionId, uint64_t>> after;
    std::string path;
  };

  Response answer(const Request& request, Response response);
  Response get(const Request& request);
  Response list(const Request& request);
  Response describe(const Request& request, const functions::FunctionId& id);
  Response versions(const functions::FunctionId& id);
  Response config(const Request& request, const functions::FunctionId& id);
  Response logs(const Request& request, const functions::FunctionId& id);
  Response operation(const Request& request);

  void snapshots(Request& request, Responder responder);
  Response list_snapshots(const SnapshotQuery& query);
  Response describe_snapshot(const SnapshotQuery& query);

  void files(Request& request, Responder responder);

  void state(Request& request, Responder responder);
  // On a thread of `state_work_`. get_value() gives nothing where it streams the answer.
  Response list_values(const StateRequest& request);
  std::optional<Response> get_value(StateRequest& request);
  Response change_value(const StateRequest& request);

  // What a request for a call says beside the input.
  struct CallOptions {
    bool async = false;
    std::string key;        // idempotency; "": none
    uint32_t attempts = 0;  // 0: not said
    uint64_t timeout_ms = 0;
    worker::Priority priority = worker::Priority::kNormal;
  };
  Result<CallOptions> call_options_of(const Request& request) const;
  struct CallsRequest;
  struct CallEvents;
  // A call that is stored before anything else: asynchronous, or with an idempotency key.
  void durable_call(Request& request, functions::FunctionId id, CallOptions options, Responder responder);
  void calls(Request& request, Responder responder);
  // On a thread of `calls_work_`, as those below; false, and the request answered, where they are all busy.
  bool work_on_calls(const std::shared_ptr<CallsRequest>& request, void (Api::*work)(std::shared_ptr<CallsRequest>));
  void respond(CallsRequest& request, Response response);
  void accept_call(std::shared_ptr<CallsRequest> request);
  void ask_about_call(std::shared_ptr<CallsRequest> request);
  // Answers when the call has ended, or with what is known when the time is up.
  void wait_for_end(std::shared_ptr<CallsRequest> request);
  void begin_events(std::shared_ptr<CallsRequest> request);
  void go_on_with_events(std::shared_ptr<CallEvents> events);
  Response call_graph(const Request& request) const;
  Response list_calls(const CallsRequest& request);
  Response change_call(const CallsRequest& request, const calls::CallRecord& record);
  // The answer to who waited for the call.
  Response outcome_of(const calls::CallRecord& record, bool replayed);

  // What a call's output is to its caller: the body as it is, or a CGI response.
  struct Output {
    bool is_cgi = false;
    Verb method = Verb::unknown;  // of the request
    Listener listener = Listener::kAll;
  };
  void call(Request& request, functions::FunctionId id, Responder responder);
  void web(Request& request, functions::FunctionId id, Responder responder);
  // A call with all that its answer takes.
  struct Pending;
  // Loads the function first where it has to be.
  void begin_call(Request& request, functions::FunctionId id, Pending pending);
  void start_call(std::shared_ptr<const functions::LoadedFunction> function, Pending pending);
  void end_call(worker::CallResult result, const functions::LoadedFunction& function, Pending& pending);
  // `streamed`: the status that the client has got already, with the beginning of the answer; 0: none.
  Response response_of(worker::CallResult result, const functions::LoadedFunction& function, const Output& output,
                       uint64_t input_bytes, unsigned streamed);
  std::optional<Response> admit_at(const Request& request) const;

  void publish(Request& request, functions::FunctionId id, Responder responder);
  void change(Request& request, functions::FunctionId id, Responder responder);
  Response configure(const functions::FunctionId& id, const Bytes& body, std::optional<Digest> expected);
  Response roll_back(const functions::FunctionId& id, std::optional<uint64_t> version);
  Response remove(const functions::FunctionId& id, std::optional<Digest> expected);

  functions::Registry& registry_;
  worker::Worker& worker_;
  const Access access_;
  const ApiOptions options_;
  Server* server_ = nullptr;
  std::atomic<bool> draining_{false};
  std::stop_source stop_publishing_;
  Metrics metrics_;
  CallLog call_log_;
  Operations operations_;
  std::atomic<size_t> state_requests_{0};
  Background state_work_;
  Background calls_work_;
  Background catalogue_;
  Background publishing_;
};

}  // namespace spore::gateway
