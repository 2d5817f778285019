// A host with state, for guest tests: its local tier and what serves it, over a global tier that several may share.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "guest_runner.h"
#include "host/state_access.h"
#include "state/local_tier.h"
#include "state/locks.h"

namespace spore::host {

struct StateHostCall {
  Bytes input;
  std::string tenant = "t";
  bool push_on_success = false;
  std::function<void(std::function<void()> interrupt)> meanwhile;  // as run_guest() has it
};

struct StateHost {
  using Call = StateHostCall;
  explicit StateHost(state::GlobalTier& global, state::LocalTierOptions options = {})
      : tracker(*state::WindowTracker::start(2)), tier(global, tracker.get(), options), locks(global, {}) {}

  // Runs the guest in a call of its own. Any thread.
  GuestRun run(const std::string& guest, std::vector<std::string> arguments, Call call = {}) {
    CallSetup setup;
    setup.state_services = &services;
    setup.tenant = std::move(call.tenant);
    static std::atomic<int> calls = 0;  // names a call among those of all hosts
    setup.call_key = "call " + std::to_string(++calls);
    setup.input = std::move(call.input);
    setup.push_on_success = call.push_on_success;
    GuestRun out = run_guest(guest, std::move(arguments), std::move(setup), {}, std::move(call.meanwhile));
    if (out.state.locks_taken)  // as the worker does
      locks.release_all(out.state.call_key, out.result.kind != CallResult::Kind::kExited);
    return out;
  }
  // Of a value that has been opened here, how many bytes were fetched.
  uint64_t fetched_bytes(const std::string& key) {
    const auto replica = tier.find({"t", key});
    return replica ? replica->fetched_bytes() : 0;
  }

  std::unique_ptr<state::WindowTracker> tracker;
  state::LocalTier tier;
  state::BlockingPool pool{{.threads = 2}};
  state::LockService locks;
  StateServices services{.tier = &tier, .pool = &pool, .locks = &locks};
};

}  // namespace spore::host
