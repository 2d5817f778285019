#include "guest_runner.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>
#include <thread>

#include "base/check.h"
#include "base/guarded.h"
#include "compiler/compiler.h"
#include "faaslet/code_arena.h"
#include "faaslet/proto_faaslet.h"
#include "host/imports.h"
#include "host/watchdog.h"

namespace spore::host {

namespace {

constexpr auto kRunTimeMax = std::chrono::seconds(30);

// What outlives the single run: the process has one code arena.
struct World {
  std::unique_ptr<faaslet::CodeArena> arena;
  Guarded<std::map<std::string, std::shared_ptr<const faaslet::ProtoFaaslet>>> protos;
  Watchdog watchdog;

  World() {
    auto reserved = faaslet::CodeArena::reserve(as_bytes("guest tests"));
    CHECK(reserved, reserved.error().message);
    arena = std::move(*reserved);
    auto installed = faaslet::install_signal_handlers();
    CHECK(installed, installed.error().message);
  }

  std::shared_ptr<const faaslet::ProtoFaaslet> load(const std::string& guest) {
    auto all = protos.lock();
    auto& proto = (*all)[guest];
    if (proto) return proto;
    auto wasm = read_file(std::filesystem::path(GUEST_MODULES) / (guest + ".wasm"));
    CHECK(wasm, wasm.error().message);
    auto level = wasm::cpu_level_of_this_machine();
    CHECK(level, level.error().message);
    auto object = compiler::compile(*wasm, {.tier = wasm::Tier::kFast, .cpu_level = *level});
    CHECK(object, guest, object.error().message);
    auto loaded = arena->load(std::move(*object));
    CHECK(loaded, guest, loaded.error().message);
    auto made = faaslet::ProtoFaaslet::make_instantiated(*loaded);
    CHECK(made, guest, made.error().message);
    return proto = *made;
  }
};

World& world() {
  static World* const kWorld = new World;
  return *kWorld;
}

// The calling thread's; made after the world, which installs the handlers.
faaslet::Seat& seat_of_this_thread() {
  thread_local faaslet::Seat seat;
  return seat;
}

}  // namespace

std::string GuestRun::summary() const {
  static constexpr const char* kKinds[] = {"exited", "trapped", "interrupted", "not pushed"};
  return std::string(kKinds[static_cast<int>(result.kind)]) + " " + std::to_string(result.exit_code) + " '" +
         result.trap.message + result.error.message + "' log: " + std::string(as_text(state.log));
}

GuestRun run_guest(const std::string& guest, std::vector<std::string> arguments, CallSetup setup, RunLimits limits,
                   std::function<void(std::function<void()>)> while_running) {
  World& all = world();
  const auto proto = all.load(guest);
  faaslet::Seat& seat = seat_of_this_thread();
  arguments.insert(arguments.begin(), guest);
  setup.arguments = std::move(arguments);
  auto state = HostState::make(std::move(setup));
  CHECK(state, state.error().message);
  GuestRun run{{}, std::move(*state)};
  const auto links = link(proto->module());
  CHECK(links, links.error().message);
  const auto entry = find_entry(proto->module());
  CHECK(entry, entry.error().message);
  auto slot = faaslet::Slot::reserve();
  CHECK(slot, slot.error().message);
  auto faaslet = faaslet::Faaslet::restore(std::move(*slot), proto, *links, &run.state);
  CHECK(faaslet, faaslet.error().message);

  const uint64_t generation = seat.begin_call();
  auto guard = all.watchdog.watch(seat, generation, limits.deadline.value_or(faaslet::Clock::now() + kRunTimeMax));
  std::thread other;
  if (while_running) {
    other = std::thread([&] { while_running([&] { seat.interrupt(generation); }); });
  }
  run.result = host::run(**faaslet, run.state, seat, *entry, limits);
  if (other.joinable()) other.join();
  EXPECT_FALSE(guard.fired() && !limits.deadline) << guest << " did not end in time";
  seat.end_call();
  return run;
}

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "spore-guest-XXXXXX").string();
  CHECK(::mkdtemp(name.data()) != nullptr, name);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() { std::filesystem::remove_all(path_); }

}  // namespace spore::host
