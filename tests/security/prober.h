// A guest that calls any host function with any arguments.
//
// Its module imports all of the table of imports (host/imports.h) and interprets a script that the test writes into its
// memory: a list of steps, each a host function with its arguments, which may be relative to what an earlier step gave.
// So one compiled module stands for every hostile guest, and what it did is read from its memory afterwards. Where the
// test is not in the same process, the call's input is the memory to begin with.
//
//   0 ------------ kArguments ------------ kScript ------------ 0x30000 ------------ kMemoryBytes
//     untouched      what good pointers       the steps and        untouched
//                    point to                 what they gave
//
// Not safe for several threads, but several threads may have a Prober::Probe each.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/host_state.h"
#include "host/imports.h"
#include "host/run.h"
#include "host/watchdog.h"
#include "support/runtime.h"

namespace spore::security {

constexpr uint32_t kPageBytes = 0x10000;
constexpr uint32_t kArguments = 1 * kPageBytes;
constexpr uint32_t kScript = 2 * kPageBytes;
constexpr uint32_t kMemoryBytes = 4 * kPageBytes;
constexpr size_t kStepsMax = 64;

struct Operand {
  uint64_t value = 0;
  std::optional<size_t> added_to;  // the result of that step
};

struct Step {
  // "module.name" of a host function, or one of the prober's own:
  //   copy (to, from, bytes)                 as memory.copy
  //   alternate (to, from, other, bytes)     copies the one and the other there by turns, for ever
  std::string_view function;
  std::vector<Operand> operands;
  uint32_t repeat = 1;
};

struct Placed {
  uint32_t address;
  Bytes bytes;
};

struct Probe {
  std::vector<Step> steps;
  std::vector<Placed> memory;        // before the first step; what does not fit is left out
  bool malloc_closes_calls = false;  // the exported malloc() calls spore.call_close(1)
};

struct Probed {
  host::CallResult result;
  host::HostState state;
  Bytes before, after;          // the guest's memory
  std::vector<uint64_t> given;  // by the steps that were reached and returned, in order
  std::chrono::steady_clock::duration took{};

  bool all_returned(const Probe& probe) const { return given.size() == probe.steps.size(); }
};

class Prober {
 public:
  Prober();

  // In a Faaslet of its own, on the calling thread. Ends at the deadline at the latest, which is told by the result;
  // `on_start` gets what ends it earlier, from any thread, until run() returns.
  Probed run(const Probe& probe, host::CallSetup setup, std::chrono::milliseconds time_max,
             const std::function<void(std::function<void()>)>& on_start = {});
  // One that runs nothing: a neighbour. Its memory holds `bytes`, again and again.
  std::unique_ptr<faaslet::Faaslet> neighbour(ByteSpan bytes, host::HostState& state);

  // For a host elsewhere: the module, and the input that has it do the same.
  const Bytes& module() const { return module_; }
  Bytes memory_of(const Probe& probe) const;

 private:
  uint32_t table_index(std::string_view function) const;
  void write(const Probe& probe, uint8_t* memory) const;

  std::vector<std::string> names_;  // of table elements
  Bytes module_;
  testing::Ready ready_;
  std::vector<faaslet::HostFunction> links_;
  host::Entry entry_;
  host::Watchdog watchdog_;
};

}  // namespace spore::security
