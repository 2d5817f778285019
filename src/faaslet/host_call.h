// One call from a guest into the host, as the host function sees it.
//
// A host function takes its arguments from the call, checks every one, and returns at once: Done, a trap, an exit, or
// Park, which names what the guest waits for. It never blocks in its own frame. A parked guest holds no thread; when
// what it waits for has come, the same function is called again with the same arguments, so it must not have had any
// effect before it parked (or must have recorded it in its own state).
#pragma once

#include <chrono>
#include <cstring>
#include <optional>
#include <string>

#include "faaslet/trap.h"
#include "wasm/abi.h"

namespace spore::faaslet {

class Faaslet;

using Clock = std::chrono::steady_clock;

// What a parked guest waits for: whichever comes first.
struct Wait {
  std::optional<Clock::time_point> deadline;
  int fd = -1;             // a descriptor that stays open while parked
  short events = 0;        // POLLIN, POLLOUT
  bool child = false;      // until a call that this one awaits has ended (host/child_calls.h)
  bool preempted = false;  // for nothing: somebody else was to have the seat
};

enum class HostResult : uint32_t { kDone = 0, kTrap, kPark, kExit };

class HostCall {
 public:
  HostCall(Faaslet& faaslet, void* host_state, uint8_t* cells_near, uint8_t* cells_far)
      : faaslet_(faaslet), host_state_(host_state), near_(cells_near), far_(cells_far) {}

  Faaslet& faaslet() { return faaslet_; }
  // Whatever the Faaslet was restored with.
  template <class T>
  T& state() {
    return *static_cast<T*>(host_state_);
  }

  // Arguments by position; a result overwrites the cell of the same position. T: 4, 8 or 16 bytes.
  template <class T>
  T argument(uint32_t index) const {
    T value;
    std::memcpy(&value, cell(index), sizeof(T));
    return value;
  }
  template <class T>
  void set_result(uint32_t index, T value) {
    std::memcpy(cell(index), &value, sizeof(T));
  }

  HostResult trap(wasm::TrapKind kind, std::string message = {});  // default message: message_of(kind)
  HostResult park(Wait wait);
  HostResult exit(int32_t code);

 private:
  uint8_t* cell(uint32_t index) const {
    return index < wasm::kNearCells ? near_ + 16 * index : far_ + 16 * (index - wasm::kNearCells);
  }

  Faaslet& faaslet_;
  void* host_state_;
  uint8_t* near_;
  uint8_t* far_;
};

using HostFunction = HostResult (*)(HostCall& call);

}  // namespace spore::faaslet
