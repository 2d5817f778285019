// The model test of state: Faaslets on two hosts write to disjoint pages of one value at once, through windows, copies
// and host calls, while they push and pull; some of them trap, some spin until they are interrupted. After a push by
// each host the value in the global tier is what a plain array is after the same writes.
//
//   state_model [--rounds N] [--seed S] [--tier rocksdb|memory]
//
// A round is one call of every writer, all at the same time, each on a thread and a seat of its own. Between rounds a
// Faaslet keeps its windows, or gives up its slot, or makes room for a new one. What the guests do follows from the
// seed; how they meet does not. The last line is `state model: rounds=… writes=… differences=…`.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <barrier>
#include <cstring>
#include <filesystem>
#include <optional>
#include <thread>

#include "base/check.h"
#include "base/digest.h"
#include "compiler/compiler.h"
#include "faaslet/code_arena.h"
#include "host/entry.h"
#include "host/imports.h"
#include "host/run.h"
#include "host/state_access.h"
#include "host/watchdog.h"
#include "random.h"
#include "state/reference_tier.h"
#include "state/rocksdb_tier.h"

namespace {

using namespace spore;

constexpr uint32_t kWriters = 8;
constexpr uint32_t kPages = 40 * kWriters;  // more than a chunk
constexpr uint64_t kBytes = uint64_t{kPages} * 4096;
const state::ValueId kId{"tenant", "model"};

template <class T>
T value_of(Result<T> result) {
  CHECK(result.has_value(), result.error().message);
  return std::move(*result);
}

state::Deadline soon() { return state::Clock::now() + std::chrono::seconds(60); }

struct Program {
  std::shared_ptr<const faaslet::ProtoFaaslet> proto;
  std::vector<faaslet::HostFunction> links;
  host::Entry entry;
};

struct Host {
  explicit Host(state::GlobalTier& global)
      : tracker(value_of(state::WindowTracker::start(4))), tier(global, tracker.get(), {}) {}
  std::unique_ptr<state::WindowTracker> tracker;
  state::LocalTier tier;
  state::BlockingPool pool{{.threads = 4}};
  host::StateServices services{.tier = &tier, .pool = &pool};
};

struct Pipe {
  Pipe() {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0, errno);
    read_end = UniqueFd(ends[0]);
    write_end = UniqueFd(ends[1]);
  }
  UniqueFd read_end, write_end;
};

// One writer: its thread's part.
class Writer {
 public:
  Writer(const Program& program, Host& host, host::Watchdog& watchdog, uint32_t number, uint64_t seed)
      : program_(program), host_(host), watchdog_(watchdog), number_(number), random_(seed) {}

  // One call; and the same in the model.
  void round(faaslet::Seat& seat, uint64_t round, std::vector<uint8_t>& model, std::atomic<uint64_t>& writes) {
    order order{.seed = next_random(&random_),
                .writer = number_,
                .writers = kWriters,
                .pages = kPages,
                .steps = static_cast<uint32_t>(next_random(&random_) % 200),
                .ending = static_cast<uint32_t>(next_random(&random_) % kEndings)};
    host::CallSetup setup;
    setup.arguments = {"model"};
    setup.input.assign(reinterpret_cast<const uint8_t*>(&order), reinterpret_cast<const uint8_t*>(&order + 1));
    setup.streams.out = said_.write_end.get();
    setup.state_services = &host_.services;
    setup.tenant = kId.tenant;
    setup.call_key = fmt::format("{}.{}", number_, round);
    state_ = value_of(host::HostState::make(std::move(setup)));
    if (!faaslet_)
      faaslet_ = value_of(
          faaslet::Faaslet::restore(value_of(faaslet::Slot::reserve()), program_.proto, program_.links, &state_));
    if (!faaslet_->has_slot()) CHECK(faaslet_->move_into(value_of(faaslet::Slot::reserve())).has_value());

    const uint64_t generation = seat.begin_call();
    const auto deadline = faaslet::Clock::now() + std::chrono::seconds(120);
    host::CallResult result;
    {
      const auto guard = watchdog_.watch(seat, generation, deadline);
      // Who spins says so first, and is interrupted then.
      std::thread interrupter;
      if (order.ending == kEndSpin) {
        interrupter = std::thread([&] {
          char said[8];
          if (::read(said_.read_end.get(), said, sizeof(said)) > 0) seat.interrupt(generation);
        });
      }
      result = host::run(*faaslet_, state_, seat, program_.entry, {.deadline = deadline});
      // A guest that ended otherwise is a failure, told below; its interrupter must end too.
      if (interrupter.joinable() && result.kind != host::CallResult::Kind::kInterrupted)
        CHECK(::write(said_.write_end.get(), "!", 1) == 1, errno);
      if (interrupter.joinable()) interrupter.join();
    }
    seat.end_call();
    using Kind = host::CallResult::Kind;
    const bool as_told = order.ending == kEndReturn ? result.kind == Kind::kExited && result.exit_code == 0
                         : order.ending == kEndTrap
                             ? result.kind == Kind::kTrapped && result.trap.kind == wasm::TrapKind::kUnreachable
                             : result.kind == Kind::kInterrupted;  // in its loop, or still where it said so
    CHECK(as_told, number_, round, order.ending, static_cast<int>(result.kind), result.exit_code, result.trap.message,
          std::string(as_text(state_.log)));

    uint64_t random = order.seed;
    for (uint32_t step = 0; step < order.steps; ++step) {
      const uint64_t r = next_random(&random);
      const uint32_t at = page_of(&order, r) * 4096 + place_of(r);
      const uint64_t value = next_random(&random);
      const uint64_t kind = r % kKinds;
      if (kind <= 4 || (kind >= 8 && kind <= 10)) std::memcpy(&model[at], &value, 8);
      if (kind >= 5 && kind <= 7) std::memset(&model[at], static_cast<int>(value & 0xff), kCopyBytes);
      writes += kind <= 10;
    }
    state_ = {};
    const uint64_t fate = next_random(&random_) % 8;
    if (fate == 0 || !faaslet_->reset()) faaslet_.reset();
    if (fate == 1) value_of(faaslet_->move_out());
    if (fate == 2) faaslet_->unmap_windows();
  }
  void end() { faaslet_.reset(); }

 private:
  const Program& program_;
  Host& host_;
  host::Watchdog& watchdog_;
  const uint32_t number_;
  uint64_t random_;
  Pipe said_;
  host::HostState state_;
  std::unique_ptr<faaslet::Faaslet> faaslet_;
};

Program load(faaslet::CodeArena& arena) {
  Program program;
  const Bytes wasm = value_of(read_file(GUEST_MODULE));
  auto object = value_of(compiler::compile(
      wasm, {.tier = wasm::Tier::kOptimised, .cpu_level = value_of(wasm::cpu_level_of_this_machine())}));
  program.proto = value_of(faaslet::ProtoFaaslet::make_instantiated(value_of(arena.load(std::move(object)))));
  program.links = value_of(host::link(program.proto->module()));
  program.entry = value_of(host::find_entry(program.proto->module()));
  return program;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Random use of state by many Faaslets on two hosts, compared with a model");
  uint64_t rounds = 300, seed = 1;
  std::string kind = "rocksdb";
  app.add_option("--rounds", rounds)->capture_default_str();
  app.add_option("--seed", seed)->capture_default_str();
  app.add_option("--tier", kind)->check(CLI::IsMember({"rocksdb", "memory"}))->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto arena = value_of(faaslet::CodeArena::reserve(as_bytes("state model")));
  CHECK(faaslet::install_signal_handlers().has_value());
  const Program program = load(*arena);

  std::string directory = (std::filesystem::temp_directory_path() / "spore-state-model-XXXXXX").string();
  CHECK(::mkdtemp(directory.data()) != nullptr);
  std::unique_ptr<state::GlobalTier> global = std::make_unique<state::ReferenceTier>();
  if (kind == "rocksdb") global = value_of(state::RocksDbTier::open(directory, {}));
  uint64_t differences = 0, done = 0;
  std::atomic<uint64_t> writes = 0;
  {
    std::array<Host, 2> hosts{Host(*global), Host(*global)};
    host::Watchdog watchdog;
    std::vector<uint8_t> model(kBytes, 0);
    std::vector<std::unique_ptr<Writer>> writers;
    for (uint32_t w = 0; w < kWriters; ++w)
      writers.push_back(std::make_unique<Writer>(program, hosts[w % 2], watchdog, w, seed * 1'000 + w));
    // The value is there before anybody opens it: two hosts that make one at the same time is another test.
    value_of(value_of(hosts[0].tier.open(kId, kBytes, soon()))->push({}, soon()));

    std::atomic<bool> stop = false;
    std::barrier begin(kWriters + 1), end(kWriters + 1);
    std::vector<std::thread> threads;
    for (auto& writer : writers) {
      threads.emplace_back([&] {
        faaslet::Seat seat;
        for (uint64_t round = 0;; ++round) {
          begin.arrive_and_wait();
          if (stop) break;
          writer->round(seat, round, model, writes);
          end.arrive_and_wait();
        }
        writer->end();
      });
    }
    for (; done < rounds && differences == 0; ++done) {
      begin.arrive_and_wait();
      end.arrive_and_wait();
      for (Host& host : hosts)
        if (const auto replica = host.tier.find(kId)) value_of(replica->push({}, soon()));
      std::vector<uint8_t> stored(kBytes);
      CHECK(value_of(global->pin(kId, soon()))->read(0, stored, soon()).has_value());
      for (uint64_t page = 0; page < kPages; ++page) {
        if (std::memcmp(&stored[page * 4096], &model[page * 4096], 4096) == 0) continue;
        ++differences;
        fmt::print("round {}: page {} (of writer {}) differs\n", done, page, page % kWriters);
      }
    }
    stop = true;
    begin.arrive_and_wait();
    for (auto& thread : threads) thread.join();
  }
  global.reset();
  std::filesystem::remove_all(directory);
  fmt::print("state model: rounds={} writes={} differences={} (seed {}, {})\n", done, writes.load(), differences, seed,
             kind);
  return differences == 0 ? 0 : 1;
}
