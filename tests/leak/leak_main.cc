// The leak test: whatever a call has done and however it ended, the next one finds the instance as its ProtoFaaslet
// says.
//
//   leak_test [--calls N] [--seed S] [--threads T] [--mode plain|no-scan|scan-fails|swap|compact|thp]
//
// Faaslets of random modules (modules.h) lie in a pool. Threads, each with a seat, take one out, go on with it and put
// it back, so that a Faaslet and a call of it wander between seats. A call is, in this order:
//
//   1. the whole instance is compared with the image, byte for byte (instance_check.h)
//   2. the guest looks at some values itself
//   3. the guest changes random places of memories, tables, globals, stack and segments, and grows what can grow;
//      what has grown must be zero. It may park, and goes on later, perhaps on another seat and in another slot. Now
//      and then it runs on a second seat while the thread that resets it stands still, or has taken as many page faults
//      as the one that did: a reset must not be deceived by either
//   4. it ends: returns, traps, exits, is interrupted by another thread, or is given up while it is parked
//   5. reset()
//
// Now and then the same call is made many times in a row on one seat: the steady state, in which a reset asks the
// kernel for nothing.
//
// Between calls a Faaslet may move to another slot, lie without one for a while, or make room for another function's.
//
// docs/testing-resets.md says what the modes are for. The last line is `leak test: mode=.. calls=.. differences=..`
// with what happened how often. Ends with 0 where there is no difference, 1 where there is one, 77 where this machine
// refuses the mode. The seed replays modules and what each thread does, but not how the threads meet.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <fstream>
#include <functional>
#include <latch>
#include <map>
#include <thread>

#include "base/check.h"
#include "base/guarded.h"
#include "base/mapping.h"
#include "faaslet/page_scan.h"
#include "leak/instance_check.h"
#include "leak/modules.h"
#include "leak/system_settings.h"
#include "support/runtime.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace {

using namespace spore;
using namespace spore::leak;
using faaslet::Faaslet;
using faaslet::HostCall;
using faaslet::HostResult;
using faaslet::Outcome;
using faaslet::ProtoFaaslet;
using faaslet::Seat;
using faaslet::Slot;
using wasm::TrapKind;

constexpr int kSkipped = 77;
constexpr uint64_t kHugePageBytes = 2ull << 20;
constexpr uint64_t kSwapBytes = 1ull << 30;
constexpr uint32_t kStepsMax = 24;
constexpr uint32_t kParksMax = 3;      // of one call
constexpr uint32_t kRepeatsMax = 400;  // of the same call

enum class Mode { kPlain, kNoScan, kScanFails, kSwap, kCompact, kHugePages };

struct Options {
  uint64_t calls = 20'000;
  uint64_t seed = 1;
  unsigned threads = 3;
  unsigned modules = 24;
  unsigned faaslets = 32;
  Mode mode = Mode::kPlain;
};

// ---- what runs ------------------------------------------------------------------------------------------------------

struct Function {
  std::string description;
  std::shared_ptr<const ProtoFaaslet> proto;
  uint32_t check = 0;
  uint32_t act = 0;
};

// What host functions know of the call that they are of.
struct World {
  Random random{0};
  const ProtoFaaslet* proto = nullptr;
  InstanceCheck* check = nullptr;  // of the thread that runs it
  bool collapse = false;
  bool parked = false;
  uint32_t parks_left = 0;
  std::string wrong;  // what the guest or a host function has found
};

// A Faaslet and what has become of its call. One thread at a time.
struct Place {
  const Function* function = nullptr;
  std::unique_ptr<Faaslet> faaslet;
  World world;
  bool parked = false;
  uint64_t act_seed = 0;
  uint32_t steps = 0;
  Ending ending = Ending::kReturn;
  uint32_t repeats_left = 0;  // of the same call, undisturbed and on the same seat
  bool interrupt_sent = false;
  std::string previous;  // how the call before ended
  const void* reset_seat = nullptr;
  uint64_t reset_faults = 0;
};

uint64_t faults_of_thread() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return static_cast<uint64_t>(usage.ru_minflt) + static_cast<uint64_t>(usage.ru_majflt);
}

// What khugepaged does at a time of its choosing, now: makes one huge page of each 2 MiB that hold something.
uint64_t collapse(InstanceCheck& check, uint64_t begin, uint64_t end) {
  uint64_t collapsed = 0;
  for (uint64_t at = (begin + kHugePageBytes - 1) & ~(kHugePageBytes - 1); at + kHugePageBytes <= end;
       at += kHugePageBytes)
    if (check.has_own_page(at, at + kHugePageBytes) &&
        ::madvise(reinterpret_cast<void*>(at), kHugePageBytes, MADV_COLLAPSE) == 0)
      ++collapsed;
  return collapsed;
}

std::atomic<uint64_t> g_collapsed{0};

HostResult ask(HostCall& call) {
  auto& world = call.state<World>();
  if (!world.parked && world.parks_left > 0 && world.random.one_in(4)) {
    --world.parks_left;
    world.parked = true;
    return call.park({});
  }
  world.parked = false;
  call.set_result<uint32_t>(0, call.argument<uint32_t>(0) * 3 + 1);
  return HostResult::kDone;
}

HostResult grown(HostCall& call) {
  auto& world = call.state<World>();
  const auto memory = call.argument<uint32_t>(0);
  auto begin = reinterpret_cast<uint64_t>(call.faaslet().memory());
  if (memory > 0) begin += static_cast<uint64_t>(world.proto->regions()[memory].offset);
  const uint64_t from = begin + call.argument<uint32_t>(1) * wasm::kPageBytes;
  const uint64_t to = begin + call.argument<uint32_t>(2) * wasm::kPageBytes;
  if (world.collapse) g_collapsed += collapse(*world.check, from, to);
  if (auto found = world.check->expect_zeros(from, to))
    world.wrong = fmt::format("memory {} has grown by something that is not zero: {}", memory, *found);
  return HostResult::kDone;
}

HostResult wrong(HostCall& call) {
  call.state<World>().wrong = fmt::format("the guest computed something wrong (number {})", call.argument<uint32_t>(0));
  return HostResult::kDone;
}

HostResult exit_call(HostCall& call) { return call.exit(static_cast<int32_t>(call.argument<uint32_t>(0))); }

constexpr faaslet::HostFunction kLinks[] = {ask, grown, wrong, exit_call};
static_assert(std::size(kLinks) == static_cast<size_t>(Import::kCount));

Result<Function> make_function(uint64_t seed) {
  Random random(seed);
  const ModuleText module = make_module(seed);
  const auto tier = [&] { return random.one_in(2) ? wasm::Tier::kFast : wasm::Tier::kOptimised; };
  const wasm::Tier runs_at = tier();
  ASSIGN_OR_RETURN(const testing::Ready ready, testing::prepare(module.text, {.tier = runs_at}));
  Function function{.description = fmt::format("module {} ({} tier{}; {})", seed, wasm::to_string(runs_at),
                                               module.has_initialiser ? ", captured" : "", module.description),
                    .proto = ready.proto};
  if (module.has_initialiser) {
    // By way of an image file, and perhaps from the other tier.
    ASSIGN_OR_RETURN(const testing::Ready before, testing::prepare(module.text, {.tier = tier()}));
    World world;
    const auto faaslet = testing::restore(before, kLinks, &world);
    CHECK(testing::call(*faaslet, "initialise").kind == Outcome::Kind::kReturned, function.description);
    ASSIGN_OR_RETURN(const faaslet::InstanceState state, faaslet->capture());
    const Digest& digest = ready.object->object().module_digest;
    ASSIGN_OR_RETURN(const faaslet::InstanceState read,
                     faaslet::parse_instance_state(faaslet::serialize(state, digest), ready.object->module(), digest,
                                                   wasm::kMemory32PagesMax));
    ASSIGN_OR_RETURN(function.proto, ProtoFaaslet::make(ready.object, read));
  }
  function.check = testing::exported_function(ready.object->module(), "check");
  function.act = testing::exported_function(ready.object->module(), "act");
  return function;
}

// ---- interrupts -----------------------------------------------------------------------------------------------------

// A thread that interrupts the calls that it is told, each after spinning for a while, so that it hits them anywhere.
class Interrupter {
 public:
  Interrupter() : thread_([this] { loop(); }) {}
  ~Interrupter() {
    requests_.lock()->stopping = true;
    wakes_.notify_one();
    thread_.join();
  }
  Interrupter(const Interrupter&) = delete;
  Interrupter& operator=(const Interrupter&) = delete;

  // The seat outlives this.
  void interrupt_soon(Seat& seat, uint64_t generation, uint64_t spins) {
    requests_.lock()->queue.push_back({&seat, generation, spins});
    wakes_.notify_one();
  }

 private:
  struct Request {
    Seat* seat = nullptr;
    uint64_t generation = 0;
    uint64_t spins = 0;
  };
  struct Requests {
    std::deque<Request> queue;  // at most one a worker's call
    bool stopping = false;
  };

  void loop() {
    for (;;) {
      Request request;
      {
        auto requests = requests_.lock();
        wakes_.wait(requests.lock(), [&] { return requests->stopping || !requests->queue.empty(); });
        if (requests->queue.empty()) return;
        request = requests->queue.front();
        requests->queue.pop_front();
      }
      for (uint64_t i = 0; i < request.spins; ++i) __builtin_ia32_pause();
      request.seat->interrupt(request.generation);
    }
  }

  Guarded<Requests> requests_;
  std::condition_variable wakes_;
  std::thread thread_;
};

// ---- what a worker needs
// ---------------------------------------------------------------------------------------------

// A second seat, on a thread that runs what it is given while the caller waits.
class Companion {
 public:
  Companion() : thread_([this] { loop(); }) {
    auto state = state_.lock();
    changes_.wait(state.lock(), [&] { return state->seat != nullptr; });
  }
  ~Companion() {
    state_.lock()->stopping = true;
    changes_.notify_all();
    thread_.join();
  }
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;

  void run(const std::function<void(Seat&)>& piece) {
    auto state = state_.lock();
    state->piece = &piece;
    changes_.notify_all();
    changes_.wait(state.lock(), [&] { return state->piece == nullptr; });
  }

 private:
  struct State {
    Seat* seat = nullptr;
    const std::function<void(Seat&)>* piece = nullptr;  // while it runs
    bool stopping = false;
  };

  void loop() {
    Seat seat;
    auto state = state_.lock();
    state->seat = &seat;
    changes_.notify_all();
    for (;;) {
      changes_.wait(state.lock(), [&] { return state->stopping || state->piece; });
      if (state->stopping) return;
      (*state->piece)(seat);
      state->piece = nullptr;
      changes_.notify_all();
    }
  }

  Guarded<State> state_;
  std::condition_variable changes_;
  std::thread thread_;
};

// Makes the calling thread take page faults.
class FaultTaker {
 public:
  static Result<FaultTaker> make() {
    void* at = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return fail_errno("map pages to fault in");
    FaultTaker taker;
    taker.pages_ = Mapping(at, kBytes);
    ::madvise(at, kBytes, MADV_NOHUGEPAGE);
    return taker;
  }
  // Until the thread has taken `wanted` in all. False where it has taken more, or very many fewer.
  bool take_until(uint64_t wanted) {
    for (;;) {
      const uint64_t taken = faults_of_thread();
      if (taken == wanted) return true;
      if (taken > wanted || wanted - taken > kFaultsMax) return false;
      ::madvise(pages_.data(), kBytes, MADV_DONTNEED);
      const uint64_t now = std::min(wanted - taken, kBytes / kPageBytes);
      for (uint64_t i = 0; i < now; ++i) static_cast<volatile uint8_t*>(pages_.data())[i * kPageBytes] = 1;
    }
  }

 private:
  FaultTaker() = default;
  static constexpr uint64_t kPageBytes = 4096;
  static constexpr uint64_t kBytes = 500 * kPageBytes;
  static constexpr uint64_t kFaultsMax = 50'000;
  Mapping pages_;
};

// ---- the pool and those who work on it ------------------------------------------------------------------------------

struct Counts {
  uint64_t fast_resets = 0;  // on the seat of the last one, without a page fault since
  uint64_t returned = 0, trapped = 0, exited = 0, interrupted = 0, cancelled = 0;
  uint64_t parked = 0, moved_parked = 0, moved_idle = 0, rebound = 0;
  uint64_t repeated = 0;
  uint64_t on_companion = 0;  // pieces
  uint64_t same_faults = 0;   // resets on another seat than the last one, after as many faults
  uint64_t pages_compared = 0;

  void add(const Counts& other) {
    fast_resets += other.fast_resets;
    returned += other.returned;
    trapped += other.trapped;
    exited += other.exited;
    interrupted += other.interrupted;
    cancelled += other.cancelled;
    parked += other.parked;
    moved_parked += other.moved_parked;
    moved_idle += other.moved_idle;
    rebound += other.rebound;
    repeated += other.repeated;
    on_companion += other.on_companion;
    same_faults += other.same_faults;
    pages_compared += other.pages_compared;
  }
};

struct Shared {
  explicit Shared(const Options& chosen) : options(chosen), all_done(static_cast<ptrdiff_t>(chosen.threads)) {}

  const Options options;
  std::vector<Function> functions;
  Guarded<std::vector<std::unique_ptr<Place>>> pool;
  Guarded<std::vector<Slot>> spare_slots;  // empty ones
  std::atomic<uint64_t> calls{0};
  std::atomic<bool> failed{false};
  Guarded<std::string> difference;  // the first
  Guarded<Counts> counts;
  Interrupter* interrupter = nullptr;
  std::latch all_done;
  std::latch seats_may_go{1};
};

class Worker {
 public:
  Worker(Shared& shared, unsigned number, InstanceCheck check, FaultTaker faults)
      : shared_(shared),
        random_(shared.options.seed * 1000 + number),
        check_(std::move(check)),
        faults_(std::move(faults)) {}

  void run() {
    std::unique_ptr<Place> place;
    while (!shared_.failed && shared_.calls < shared_.options.calls) {
      // Mostly it goes on with the same: only then a reset can know its pages from the fault count.
      const bool repeats = place && place->repeats_left > 0;
      if (!place || (!repeats && random_.one_in(place->parked ? 2 : 12))) place = exchange(std::move(place));
      place->world.check = &check_;
      Wrong wrong;
      if (!repeats && random_.one_in(20))
        companion_.run([&](Seat& seat) {
          here_ = &seat;
          wrong = go_on(*place);
          here_ = &seat_;
        });
      else
        wrong = go_on(*place);
      if (wrong) report(*place, *wrong);
    }
    counts_.pages_compared = check_.pages_compared();
    shared_.counts.lock()->add(counts_);
  }

 private:
  using Wrong = std::optional<std::string>;

  std::unique_ptr<Place> exchange(std::unique_ptr<Place> place) {
    auto pool = shared_.pool.lock();
    auto& taken = (*pool)[random_.below(pool->size())];
    std::swap(taken, place);
    if (!taken) {
      std::swap(taken, pool->back());
      pool->pop_back();
    }
    return place;
  }

  void report(const Place& place, const std::string& wrong) {
    auto difference = shared_.difference.lock();
    if (shared_.failed.exchange(true)) return;
    *difference = fmt::format("after {} calls: {}\n  {}\n  this call: seed {}, {} steps, then {}; the one before {}",
                              shared_.calls.load(), wrong, place.function->description, place.act_seed, place.steps,
                              to_string(place.ending), place.previous.empty() ? "none" : place.previous);
  }

  Wrong go_on(Place& place) {
    if (!place.faaslet->has_slot())
      if (auto wrong = move_in(place)) return wrong;
    if (place.repeats_left == 0) disturb(place);
    return place.parked ? go_on_with_parked(place) : begin_call(place);
  }

  Wrong go_on_with_parked(Place& place) {
    const uint64_t choice = random_.below(8);
    if (choice == 0) {
      ++counts_.cancelled;
      return end_call(place, "was given up while parked");
    }
    if (choice < 4 && place.faaslet->can_move()) {
      ++counts_.moved_parked;
      if (auto wrong = move_out(place)) return wrong;
      if (random_.one_in(3)) return {};  // lies without a slot until somebody takes it up
      if (auto wrong = move_in(place)) return wrong;
    }
    place.parked = false;
    return run_piece(place, [&](Seat& seat) { return place.faaslet->resume(seat); });
  }

  Wrong begin_call(Place& place) {
    if (place.repeats_left > 0) {
      --place.repeats_left;
      ++counts_.repeated;
      return check_and_act(place);
    }
    if (random_.one_in(500))
      if (auto wrong = rebind(place)) return wrong;
    if (random_.one_in(60)) {
      ++counts_.moved_idle;
      if (auto wrong = move_out(place)) return wrong;
      if (place.faaslet->parked_bytes() != 0) return "a Faaslet that was reset still differs from its image";
      if (random_.one_in(3)) return {};
      if (auto wrong = move_in(place)) return wrong;
    }
    place.act_seed = random_.next() | 1;
    place.steps = static_cast<uint32_t>(random_.below(kStepsMax));
    place.ending =
        random_.one_in(2) ? Ending::kReturn : static_cast<Ending>(random_.below(static_cast<uint64_t>(Ending::kCount)));
    if (place.ending == Ending::kStackOverflow && !random_.one_in(4)) place.ending = Ending::kUnreachable;
    place.world.parks_left = kParksMax;
    if (random_.one_in(300)) {
      place.repeats_left = static_cast<uint32_t>(random_.below(kRepeatsMax));
      place.ending = Ending::kReturn;
      place.world.parks_left = 0;
    }
    return check_and_act(place);
  }

  Wrong check_and_act(Place& place) {
    if (auto found =
            check_.compare(*place.faaslet, *place.function->proto, place.repeats_left == 0 && random_.one_in(400)))
      return found;

    here_->begin_call();
    const Outcome checked = place.faaslet->start(*here_, place.function->check);
    here_->end_call();
    if (!place.world.wrong.empty()) return place.world.wrong;
    if (checked.kind != Outcome::Kind::kReturned) return "the guest's check ended with a trap: " + checked.trap.message;
    if (const auto number = static_cast<uint32_t>(place.faaslet->result(0).low))
      return fmt::format("the guest finds a wrong value (number {})", number);

    place.interrupt_sent = false;
    place.world.random = Random(place.act_seed);
    place.world.parked = false;
    const wasm::Cell arguments[] = {{place.act_seed, 0}, {place.steps, 0}, {static_cast<uint64_t>(place.ending), 0}};
    return run_piece(place, [&](Seat& seat) { return place.faaslet->start(seat, place.function->act, arguments); });
  }

  // Where the guest will not end by itself, and now and then elsewhere, somebody interrupts it.
  template <class Piece>
  Wrong run_piece(Place& place, Piece piece) {
    const bool repeats = place.repeats_left > 0;
    const bool interrupt = place.ending == Ending::kLoop || (!repeats && random_.one_in(20));
    const uint64_t spins = random_.below(2000);
    if (interrupt) place.interrupt_sent = true;
    Outcome outcome;
    const auto run = [&](Seat& seat) {
      const uint64_t generation = seat.begin_call();
      if (interrupt) shared_.interrupter->interrupt_soon(seat, generation, spins);
      outcome = piece(seat);
      seat.end_call();
    };
    if (here_ == &seat_ && !repeats && random_.one_in(10)) {
      ++counts_.on_companion;
      companion_.run(run);
    } else {
      run(*here_);
    }
    return after_piece(place, outcome);
  }

  Wrong after_piece(Place& place, const Outcome& outcome) {
    if (!place.world.wrong.empty()) return place.world.wrong;
    if (outcome.kind == Outcome::Kind::kParked) {
      ++counts_.parked;
      place.parked = true;
      return {};
    }
    if (outcome.kind == Outcome::Kind::kTrapped && outcome.trap.kind == TrapKind::kInterrupted) {
      ++counts_.interrupted;
      if (!place.interrupt_sent) return "an interrupt that nobody sent";
      return end_call(place, "was interrupted");
    }
    const bool has_memory = !place.faaslet->module().memories.empty();
    const auto expected = [&]() -> TrapKind {
      switch (place.ending) {
        case Ending::kUnreachable: return TrapKind::kUnreachable;
        case Ending::kOutOfBounds: return has_memory ? TrapKind::kMemoryOutOfBounds : TrapKind::kUnreachable;
        case Ending::kLoop: return TrapKind::kInterrupted;
        case Ending::kStackOverflow: return TrapKind::kStackOverflow;
        case Ending::kException: return TrapKind::kUncaughtException;
        case Ending::kDivideByZero: return TrapKind::kIntegerDivideByZero;
        default: return TrapKind::kNone;
      }
    }();
    switch (outcome.kind) {
      case Outcome::Kind::kReturned:
        ++counts_.returned;
        if (place.ending != Ending::kReturn) return "it returned";
        break;
      case Outcome::Kind::kExited:
        ++counts_.exited;
        if (place.ending != Ending::kExit || outcome.exit_code != 7) return "it exited";
        break;
      case Outcome::Kind::kTrapped:
        ++counts_.trapped;
        if (outcome.trap.kind != expected) {
          std::string wrong = "it trapped: " + outcome.trap.message;
          for (const faaslet::Frame& frame : outcome.trap.stack)
            wrong += fmt::format("\n    in {} + {:#x}", frame.function, frame.code_offset);
          return wrong;
        }
        break;
      case Outcome::Kind::kParked: break;
    }
    return end_call(place, std::string(to_string(place.ending)));
  }

  Wrong end_call(Place& place, std::string how) {
    if (place.repeats_left == 0) disturb(place);
    place.parked = false;
    place.previous = fmt::format("ended so: {} (seed {}, {} steps)", how, place.act_seed, place.steps);
    if (place.reset_seat != here_ && random_.one_in(2) && faults_.take_until(place.reset_faults)) ++counts_.same_faults;
    const uint64_t faults = faults_of_thread();
    if (place.reset_seat == here_ && place.reset_faults == faults) ++counts_.fast_resets;
    if (shared_.options.mode == Mode::kScanFails) faaslet::set_page_scan_available(!random_.one_in(4));
    if (!place.faaslet->reset()) return "reset failed";
    place.reset_seat = here_;
    place.reset_faults = faults;
    ++shared_.calls;
    return {};
  }

  // ---- slots --------------------------------------------------------------------------------------------------------

  void put_back(Slot slot) { shared_.spare_slots.lock()->push_back(std::move(slot)); }

  Result<Slot> take_slot() {
    {
      auto spare = shared_.spare_slots.lock();
      if (!spare->empty() && !random_.one_in(20)) {
        std::swap((*spare)[random_.below(spare->size())], spare->back());
        Slot slot = std::move(spare->back());
        spare->pop_back();
        return slot;
      }
    }
    return Slot::reserve();
  }

  Wrong move_out(Place& place) {
    auto slot = place.faaslet->move_out();
    if (!slot) return slot.error().message;
    if (auto cleared = slot->clear(); !cleared) return cleared.error().message;
    put_back(std::move(*slot));
    return {};
  }

  Wrong move_in(Place& place) {
    auto slot = take_slot();
    if (!slot) return slot.error().message;
    if (auto moved = place.faaslet->move_into(std::move(*slot)); !moved) return moved.error().message;
    return {};
  }

  // Its slot goes to another function.
  Wrong rebind(Place& place) {
    ++counts_.rebound;
    Slot slot = place.faaslet->take_slot();
    place.faaslet.reset();
    if (auto cleared = slot.clear(); !cleared) return cleared.error().message;
    const ProtoFaaslet& before = *place.function->proto;
    for (const faaslet::ImageRegion& region : before.regions())
      if (InstanceCheck::is_accessible(reinterpret_cast<uint64_t>(slot.memory()) +
                                       static_cast<uint64_t>(region.offset)))
        return "a slot that was cleared is still accessible";
    place.function = &shared_.functions[random_.below(shared_.functions.size())];
    place.world.proto = place.function->proto.get();
    place.previous = "was another function's";
    auto restored = Faaslet::restore(std::move(slot), place.function->proto, kLinks, &place.world);
    if (!restored) return restored.error().message;
    place.faaslet = std::move(*restored);
    return {};
  }

  // What the kernel may do to a slot at any time, by the mode.
  void disturb(Place& place) {
    place.world.collapse = shared_.options.mode == Mode::kHugePages && random_.one_in(4);
    const bool page_out = shared_.options.mode == Mode::kSwap && random_.one_in(8);
    if (!place.world.collapse && !page_out) return;
    const auto memory = reinterpret_cast<uint64_t>(place.faaslet->memory());
    for (size_t i = 0; i < place.function->proto->regions().size(); ++i) {
      const faaslet::ImageRegion& region = place.function->proto->regions()[i];
      const uint64_t begin = memory + static_cast<uint64_t>(region.offset);
      // With what it may have grown by.
      const uint64_t grown_max = place.faaslet->module().memories.empty()
                                     ? region.image_bytes
                                     : place.faaslet->module().memories[i].pages.max.value_or(0) * wasm::kPageBytes;
      const uint64_t end = std::max(begin + region.image_bytes, (i == 0 ? memory : begin) + grown_max);
      if (begin == end) continue;
      if (place.world.collapse) g_collapsed += collapse(check_, begin, end);
      if (page_out) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_PAGEOUT);
    }
  }

  Shared& shared_;
  Random random_;
  InstanceCheck check_;
  FaultTaker faults_;
  Seat seat_;
  Companion companion_;
  Seat* here_ = &seat_;  // of the thread that runs now, this one or the companion's
  Counts counts_;
};

// ---- all of it ------------------------------------------------------------------------------------------------------

// A count of the kernel's, for the whole machine since it started; 0 where it keeps none of that name.
uint64_t kernel_count(std::string_view wanted) {
  std::ifstream file("/proc/vmstat");
  uint64_t value = 0;
  for (std::string name; file >> name >> value;)
    if (name == wanted) return value;
  return 0;
}

SystemSettings::Wanted settings_of(Mode mode) {
  SystemSettings::Wanted wanted;
  const std::string huge_pages = "/sys/kernel/mm/transparent_hugepage/";
  switch (mode) {
    case Mode::kPlain:
    case Mode::kNoScan:
    case Mode::kScanFails: break;
    case Mode::kSwap: wanted.swap_bytes = kSwapBytes; break;
    case Mode::kCompact: wanted.compact = true; break;
    case Mode::kHugePages:
      wanted.values = {{huge_pages + "enabled", "always"},
                       {huge_pages + "shmem_enabled", "always"},
                       {huge_pages + "khugepaged/scan_sleep_millisecs", "1"},
                       {huge_pages + "khugepaged/alloc_sleep_millisecs", "1"}};
      break;
  }
  return wanted;
}

Result<int> run(const Options& options, std::string_view mode_name) {
  std::optional<SystemSettings> settings;
  const SystemSettings::Wanted wanted = settings_of(options.mode);
  if (!wanted.values.empty() || wanted.swap_bytes || wanted.compact) {
    auto applied = SystemSettings::apply(wanted);
    if (!applied) {
      std::printf("leak test: mode=%s skipped: %s\n", std::string(mode_name).c_str(), applied.error().message.c_str());
      return kSkipped;
    }
    settings.emplace(std::move(*applied));
  }
  faaslet::set_page_scan_available(options.mode != Mode::kNoScan);

  const auto began = std::chrono::steady_clock::now();
  const uint64_t swapped_before = kernel_count("pswpout");
  const uint64_t migrated_before = kernel_count("pgmigrate_success");
  Shared shared(options);
  testing::seat();
  for (unsigned i = 0; i < options.modules; ++i) {
    ASSIGN_OR_RETURN(Function function, make_function(options.seed * 10'000 + i));
    shared.functions.push_back(std::move(function));
  }
  Random random(options.seed);
  for (unsigned i = 0; i < options.faaslets; ++i) {
    auto place = std::make_unique<Place>();
    place->function = &shared.functions[i < options.modules ? i : random.below(options.modules)];
    place->world.proto = place->function->proto.get();
    ASSIGN_OR_RETURN(Slot slot, Slot::reserve());
    ASSIGN_OR_RETURN(place->faaslet, Faaslet::restore(std::move(slot), place->function->proto, kLinks, &place->world));
    shared.pool.lock()->push_back(std::move(place));
  }
  std::vector<InstanceCheck> checks;
  std::vector<FaultTaker> takers;
  for (unsigned i = 0; i < options.threads; ++i) {
    ASSIGN_OR_RETURN(InstanceCheck check, InstanceCheck::make());
    checks.push_back(std::move(check));
    ASSIGN_OR_RETURN(FaultTaker taker, FaultTaker::make());
    takers.push_back(std::move(taker));
  }

  auto interrupter = std::make_unique<Interrupter>();
  shared.interrupter = interrupter.get();
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.threads; ++i)
    threads.emplace_back([&shared, i, check = std::move(checks[i]), taker = std::move(takers[i])]() mutable {
      Worker worker(shared, i, std::move(check), std::move(taker));
      worker.run();
      shared.all_done.count_down();
      shared.seats_may_go.wait();
    });
  shared.all_done.wait();
  interrupter.reset();
  shared.seats_may_go.count_down();
  for (std::thread& thread : threads) thread.join();

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const std::string difference = *shared.difference.lock();
  const Counts counts = *shared.counts.lock();
  const uint64_t calls = shared.calls;
  // A test that no longer does what it is for must not pass.
  std::string missing;
  const auto need = [&](std::string_view what, uint64_t count) {
    if (calls >= 5'000 && count * 500 < calls) missing += fmt::format(" {}", what);
  };
  need("returned", counts.returned);
  need("trapped", counts.trapped);
  need("exited", counts.exited);
  need("interrupted", counts.interrupted);
  need("cancelled", counts.cancelled);
  need("moved_parked", counts.moved_parked);
  need("moved_idle", counts.moved_idle);
  need("rebound", counts.rebound * 100);  // one in 2,500 calls is usual, and they bunch
  need("repeated", counts.repeated);
  need("on_companion", counts.on_companion);
  if (options.mode == Mode::kPlain) need("same_faults", counts.same_faults);
  if (options.mode == Mode::kPlain) need("fast_resets", counts.fast_resets / 20);

  const uint64_t swapped = kernel_count("pswpout") - swapped_before;
  const uint64_t migrated = kernel_count("pgmigrate_success") - migrated_before;
  if (options.mode == Mode::kSwap) need("swapped out", swapped);

  if (!difference.empty()) std::fprintf(stderr, "leak test: %s\n", difference.c_str());
  if (!missing.empty()) std::fprintf(stderr, "leak test: too few:%s\n", missing.c_str());
  fmt::print(
      "leak test: mode={} seed={} threads={} calls={} differences={} returned={} trapped={} exited={} interrupted={} "
      "cancelled={} parked={} moved_parked={} moved_idle={} rebound={} repeated={} on_companion={} same_faults={} "
      "fast_resets={} "
      "pages_compared={} swapped={} migrated={} collapsed={} seconds={:.1f}\n",
      mode_name, options.seed, options.threads, calls, difference.empty() ? 0 : 1, counts.returned, counts.trapped,
      counts.exited, counts.interrupted, counts.cancelled, counts.parked, counts.moved_parked, counts.moved_idle,
      counts.rebound, counts.repeated, counts.on_companion, counts.same_faults, counts.fast_resets,
      counts.pages_compared, swapped, migrated, g_collapsed.load(), seconds);
  return difference.empty() && missing.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Every call finds its instance as the image says"};
  Options options;
  std::string mode = "plain";
  const std::map<std::string, Mode> modes = {{"plain", Mode::kPlain},          {"no-scan", Mode::kNoScan},
                                             {"scan-fails", Mode::kScanFails}, {"swap", Mode::kSwap},
                                             {"compact", Mode::kCompact},      {"thp", Mode::kHugePages}};
  app.add_option("--calls", options.calls, "How many")->check(CLI::Range(1, 1'000'000'000))->capture_default_str();
  app.add_option("--seed", options.seed, "Of modules and calls")->capture_default_str();
  app.add_option("--threads", options.threads, "Seats")->check(CLI::Range(2, 64))->capture_default_str();
  app.add_option("--modules", options.modules, "How many")->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_option("--faaslets", options.faaslets, "More than threads")
      ->check(CLI::Range(8, 1000))
      ->capture_default_str();
  app.add_option("--mode", mode, "What goes on meanwhile")->check(CLI::IsMember(modes))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  options.mode = modes.at(mode);
  if (options.faaslets <= options.threads) {
    std::fprintf(stderr, "leak test: needs more Faaslets than threads\n");
    return 2;
  }
  const auto done = run(options, mode);
  if (!done) std::fprintf(stderr, "leak test: %s\n", done.error().message.c_str());
  return done ? *done : 1;
}
