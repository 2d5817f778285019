// In a process of a tenant's: the functions of the tenant that it has loaded, each from the parts that the host gives
// for it, and initialised here. Which version is the current one is the host's to say: it tells when that may have
// changed (forget), and is asked at the next use. Any thread.
#pragma once

#include <map>
#include <set>

#include "faaslet/code_arena.h"
#include "functions/registry.h"
#include "processes/host_line.h"
#include "state/operation.h"
#include "worker/function_source.h"

namespace spore::processes {

class RemoteFunctions final : public worker::FunctionSource {
 public:
  using Initialise = decltype(functions::HostHooks::initialise);
  // `host` and `arena` outlive it.
  RemoteFunctions(HostLine& host, faaslet::CodeArena& arena, std::string tenant, Initialise initialise)
      : host_(host),
        arena_(arena),
        tenant_(std::move(tenant)),
        initialise_(std::move(initialise)),
        loaders_({.threads = 2}) {}

  Function find(const functions::FunctionId& id, std::optional<uint64_t> version) override;
  bool exists(const functions::FunctionId& id, std::optional<uint64_t> version) override;
  void load(const functions::FunctionId& id, std::optional<uint64_t> version,
            std::function<void(Result<Function>)> loaded) override;

  // For a call from the host, which says which version it is of. Null: not loaded.
  Function find_exactly(const std::string& name, uint64_t version, const Digest& module_digest) const;
  // Calls back once, with kUnavailable where it was cancelled meanwhile.
  void load_for_call(const CallFrame& call, std::function<void(Result<Function>)> loaded);
  // A call whose function is being loaded; others are unknown here.
  void cancel(const CallId& id);

  // The function has changed, or is gone. Must be told before calls that the host sends later. Does not block.
  void forget(const std::string& name);

 private:
  struct Loaded {
    uint64_t generation = 0;          // how often it was forgotten
    std::optional<uint64_t> current;  // the number of the current version, where it is known
    std::map<uint64_t, Function> versions;
  };
  struct State {
    std::map<std::string, Loaded> functions;
    std::set<std::string> waiting;    // calls, by their ids, for whose functions are being loaded
    std::set<std::string> cancelled;  // of these
  };
  Result<Function> load_now(const std::string& name, std::optional<uint64_t> version);
  Result<Function> make(const std::string& name, std::optional<uint64_t> version);

  HostLine& host_;
  faaslet::CodeArena& arena_;
  const std::string tenant_;
  const Initialise initialise_;
  Guarded<State> state_;
  std::mutex loading_;  // one at a time
  state::BlockingPool loaders_;
};

}  // namespace spore::processes
