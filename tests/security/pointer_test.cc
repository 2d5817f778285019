// Every class of bad pointer and length to every parameter of every host function, in this process: the functions and
// what a good call of each looks like come from the table of imports (arguments.h), so a new one is attacked by itself.
//
// After each of these calls: it has ended in time, by an errno, a trap or an exit; a call whose pointer was outside
// has not succeeded; of the guest's memory nothing changed but what its good pointers named; a state value that it had
// mapped read-only is what it was; and of another tenant's Faaslet beside it, whose memory, input, state and log hold a
// secret, nothing changed and nothing was seen.
//
// SPORE_SECURITY_FLIP_MS: for how long bytes are flipped under each function (20). SPORE_SECURITY_CASES: a directory
// that is given the prober's module and one in ten of the calls, for pointers_test.py.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <thread>

#include "arguments.h"
#include "base/guarded.h"
#include "host/child_calls.h"
#include "host/state_access.h"
#include "network_world.h"
#include "prober.h"
#include "state/reference_tier.h"

namespace spore::security {
namespace {

using host::CallResult;
using host::ImportDeclaration;
using std::chrono::milliseconds;

constexpr milliseconds kTimeMax{300};        // of a call
constexpr milliseconds kEndsWithin{20'000};  // the others, whatever else the machine does
constexpr uint64_t kWindowBytes = kArgumentsBytes;

// Functions of the tenant as the guest's calls find them: every one gives back its input. The worker's own are tested
// in src/worker.
class Echoes final : public host::ChildCalls {
 public:
  Result<uint32_t> begin(host::ChildRequest request) override {
    if (!request.table_index && !request.function.starts_with("echo"))
      return fail(ErrorCode::kNotFound, "there is no such function");
    auto& result = results_[++last_];
    result.output = std::move(request.input);
    result.output.resize(std::max<size_t>(result.output.size(), 40));
    return last_;
  }
  Status status(uint32_t handle) override { return results_.contains(handle) ? Status::kEnded : Status::kUnknown; }
  const host::ChildResult& result(uint32_t handle) override { return results_.at(handle); }
  bool await(std::span<const uint32_t>) override { return false; }
  int fd(uint32_t) override { return -1; }
  bool cancel(uint32_t handle) override { return results_.contains(handle); }
  bool close(uint32_t handle) override { return results_.erase(handle) == 1; }
  Result<std::string> begin_detached(const host::ChildRequest&, const std::string&) override {
    return std::string(32, 'd');
  }
  std::vector<std::string> ancestors() const override { return {}; }

 private:
  std::map<uint32_t, host::ChildResult> results_;
  uint32_t last_ = 0;
};

std::string new_secret() {
  uint8_t random[12];
  EXPECT_EQ(::getrandom(random, sizeof(random), 0), static_cast<ssize_t>(sizeof(random)));
  std::string out = "secret: ";
  for (const uint8_t byte : random) out += "0123456789abcdef"[byte & 15];
  return out + "....";
}

// Where a good call's pointees lie, and what names them.
struct Base {
  uint32_t address = kArguments;
};

Bytes argument_bytes(const std::vector<Argument>& arguments, Base base) {
  Bytes bytes(kArgumentsBytes);
  for (const Argument& argument : arguments) {
    std::ranges::copy(argument.pointee, bytes.begin() + argument.place);
    for (const size_t at : argument.addresses) {
      uint32_t address;
      std::memcpy(&address, argument.pointee.data() + at, sizeof(address));
      address += base.address;
      std::memcpy(bytes.data() + argument.place + at, &address, sizeof(address));
    }
  }
  return bytes;
}

std::vector<Operand> operands_of(const std::vector<Argument>& arguments, Base base) {
  std::vector<Operand> out;
  for (const Argument& argument : arguments)
    out.push_back({argument.role == Role::kPointer ? base.address + argument.place + argument.lead : argument.value});
  return out;
}

// Those that wait, for something that may never come.
bool may_wait(const ImportDeclaration& declaration) {
  const std::string_view name = declaration.name;
  return name.starts_with("sock_") || name.find("lock") != std::string_view::npos || name == "poll_oneoff" ||
         name.find("await") != std::string_view::npos;
}

class Pointers : public ::testing::Test {
 protected:
  Pointers() : tracker_(make_tracker()), tier_(global_, tracker_.get(), options()), locks_(global_, {}) {
    secret_ = new_secret();
    neighbour_state_.input = Bytes(secret_.begin(), secret_.end());
    neighbour_state_.tenant = "neighbour";
    neighbour_ = prober_.neighbour(as_bytes(secret_), neighbour_state_);
    put("neighbour", "value", secret_);
    neighbour_before_.assign(neighbour_->memory(), neighbour_->memory() + kMemoryBytes);
    read_only_ = Bytes(kWindowBytes, 'r');
    put("attacker", "read only", as_text(read_only_));
    put("attacker", "writable", std::string(kWindowBytes, 'w'));
    if (::geteuid() != 0) {  // there is no layer with limits of its own then
      std::string name = (std::filesystem::temp_directory_path() / "spore-security-XXXXXX").string();
      EXPECT_NE(::mkdtemp(name.data()), nullptr);
      directory_ = name;
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{64 << 20, 64 << 20};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
  }
  ~Pointers() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  void SetUp() override {
    if (!tracker_) GTEST_SKIP() << "this user may not map state (userfaultfd)";
  }
  static std::unique_ptr<state::WindowTracker> make_tracker() {
    auto tracker = state::WindowTracker::start(2);
    return tracker ? std::move(*tracker) : nullptr;
  }
  static state::LocalTierOptions options() {
    return {.bytes_max = 64ull << 20, .bytes_per_tenant_max = 16ull << 20, .replicas_per_tenant_max = 256};
  }

  void put(const std::string& tenant, const std::string& key, std::string_view bytes) {
    const auto deadline = state::Clock::now() + std::chrono::seconds(10);
    auto replica = tier_.open({tenant, key}, bytes.size(), deadline);
    ASSERT_TRUE(replica) << replica.error().message;
    const iovec from{const_cast<char*>(bytes.data()), bytes.size()};
    ASSERT_EQ((*replica)->try_write(0, {&from, 1}), static_cast<ssize_t>(bytes.size()));
    kept_.push_back(*replica);
  }
  Bytes value(const std::string& tenant, const std::string& key) {
    const auto replica = tier_.find({tenant, key});
    if (!replica) return {};
    Bytes bytes(replica->size_bytes());
    const iovec to{bytes.data(), bytes.size()};
    EXPECT_EQ(replica->try_read(0, {&to, 1}), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }

  host::CallSetup setup(milliseconds time_max = kTimeMax) {
    host::CallSetup setup;
    setup.arguments = {"attack", "one"};
    setup.environment = {"A=B"};
    if (directory_.empty()) {
      setup.preopens.push_back(
          {.guest_path = "/", .access = host::Access::kReadWrite, .source = host::Preopen::Source::kLocalLayer});
      setup.local_layer = {.bytes_max = 4 << 20, .files_max = 64};
    } else {
      setup.preopens.push_back({directory_, "/", host::Access::kReadWrite});
    }
    setup.input = Bytes(100, 'i');
    setup.limits.output_bytes_max = 4 << 20;
    setup.limits.input_bytes_max = 4 << 20;
    setup.children = std::make_shared<Echoes>();
    setup.network = network_;
    setup.state_services = &services_;
    setup.tenant = "attacker";
    setup.call_key = "call " + std::to_string(++calls_);
    setup.deadline = faaslet::Clock::now() + time_max;
    return setup;
  }

  // What has to happen before the function's own step; its pointees lie in the second half of the script's page.
  void add_preparation(const ImportDeclaration& declaration, Probe& probe) {
    constexpr uint32_t kHere = kScript + kPageBytes / 2;
    const auto place = [&](uint32_t at, std::string_view bytes) {
      probe.memory.push_back({kHere + at, Bytes(bytes.begin(), bytes.end())});
      return Operand{kHere + at};
    };
    const auto step = [&](std::string_view function, std::vector<Operand> operands) {
      probe.steps.push_back({function, std::move(operands)});
      return probe.steps.size() - 1;
    };
    const std::string_view name = declaration.name;
    const Operand key = place(0, std::string_view("value\0", 6));
    if (name.starts_with("sock_")) {
      // Bound to a free port of 127.0.0.1, and connected to itself: what it sends it receives.
      std::string any(28, '\0');
      any[0] = 1, any[12] = 127, any[15] = 1;
      const Operand address = place(0x40, any);
      const bool accepts = name == "sock_accept" || name == "sock_listen";
      const size_t socket = step("spore.sock_open", {{1}, {accepts ? 6u : 5u}});
      if (name != "sock_bind") step("spore.sock_bind", {{0, socket}, address});
      if (name == "sock_accept") step("spore.sock_listen", {{0, socket}, {4}});
      if (name != "sock_bind") step("spore.sock_getsockname", {{0, socket}, address});
      if (name == "sock_accept") step("spore.sock_connect", {{0, step("spore.sock_open", {{1}, {6}})}, address});
      if (!accepts && name != "sock_bind" && name != "sock_connect" && name != "sock_sendto")
        step("spore.sock_connect", {{0, socket}, address});
      if (name.starts_with("sock_recv"))
        for (int i = 0; i < 3; ++i) step("spore.sock_sendto", {{0, socket}, key, {5}, {4}, {0}});
    } else if (declaration.module == "wasi_snapshot_preview1") {
      const Operand file = place(0x40, "file"), link = place(0x50, "link"), directory = place(0x60, "directory");
      constexpr uint64_t kEverything = (1ull << 30) - 1;
      step("wasi_snapshot_preview1.path_open",
           {{3}, {1}, file, {4}, {1}, {kEverything}, {kEverything}, {0}, {kHere + 0x80}});
      std::string list(8, '\0');
      const uint32_t words[] = {static_cast<uint32_t>(key.value), 5};
      std::memcpy(list.data(), words, sizeof(words));
      step("wasi_snapshot_preview1.fd_pwrite", {{4}, place(0x90, list), {1}, {0}, {kHere + 0x80}});
      if (name == "path_readlink") step("wasi_snapshot_preview1.path_symlink", {file, {4}, {3}, link, {4}});
      if (name == "path_remove_directory") step("wasi_snapshot_preview1.path_create_directory", {{3}, directory, {9}});
    } else if (name.find("state") != std::string_view::npos) {
      const Operand appended = place(0x40, "element");
      step("spore.state_map", {key, {5}, {64}, {0}});
      step("spore.state_push", {key, {5}, {0}, {0}});
      if (name == "state_unlock" || name.starts_with("__faasm_unlock"))
        step("spore.state_lock", {key, {5}, {name.ends_with("global") ? 3u : name.ends_with("read") ? 0u : 1u}, {100}});
      if (name == "__faasm_read_appended_state") step("env.__faasm_append_state", {key, appended, {7}});
    } else if (name.find("call") != std::string_view::npos || name.find("await") != std::string_view::npos) {
      step("spore.call", {place(0x40, "echo"), {4}, key, {5}});
    }
  }

  // A map of both windows in front, at addresses that are the same in each Faaslet.
  void add_windows(Probe& probe) {
    constexpr uint32_t kHere = kScript + kPageBytes / 2 + 0x200;
    probe.memory.push_back({kHere, Bytes{'r', 'e', 'a', 'd', ' ', 'o', 'n', 'l', 'y'}});
    probe.memory.push_back({kHere + 16, Bytes{'w', 'r', 'i', 't', 'a', 'b', 'l', 'e'}});
    probe.steps.push_back({"spore.state_map", {{kHere}, {9}, {kWindowBytes}, {1}}});
    probe.steps.push_back({"spore.state_map", {{kHere + 16}, {8}, {kWindowBytes}, {0}}});
  }
  void find_windows() {
    Probe probe;
    add_windows(probe);
    const Probed probed = prober_.run(probe, setup(), kTimeMax);
    ASSERT_TRUE(probed.all_returned(probe)) << probed.result.trap.message << as_text(probed.state.log);
    read_only_at_ = static_cast<uint32_t>(probed.given[0]);
    writable_at_ = static_cast<uint32_t>(probed.given[1]);
    ASSERT_LT(writable_at_, read_only_at_);
    ASSERT_GT(writable_at_, 0x80000000u);
  }

  Probe probe_of(const ImportDeclaration& declaration, const std::vector<Argument>& arguments) {
    Probe probe;
    add_windows(probe);
    add_preparation(declaration, probe);
    probe.memory.push_back({kArguments, argument_bytes(arguments, {})});
    names_.push_back(std::make_unique<std::string>(full_name(declaration)));
    probe.steps.push_back({*names_.back(), operands_of(arguments, {})});
    return probe;
  }

  // One in ten, for a test against a real host.
  void store(const Probe& probe) {
    const char* directory = ::getenv("SPORE_SECURITY_CASES");
    if (!directory || runs_++ % 10 != 0) return;
    const std::filesystem::path folder = directory;
    if (runs_ == 1) EXPECT_TRUE(write_file_atomically(folder / "prober.wasm", prober_.module()));
    EXPECT_TRUE(write_file_atomically(folder / (std::to_string(runs_) + ".case"), prober_.memory_of(probe)));
  }

  // In a Faaslet of its own, with none of the tenant's state but what the windows show.
  Probed run(const Probe& probe, milliseconds time_max = kTimeMax) {
    store(probe);
    const auto deadline = state::Clock::now() + std::chrono::seconds(10);
    for (const auto& key : *tier_.list("attacker", "", "", 1 << 20, deadline))
      if (key != "read only" && key != "writable") EXPECT_TRUE(tier_.remove({"attacker", key}, deadline)) << key;
    Probed probed = prober_.run(probe, setup(time_max), time_max);
    if (probed.state.locks_taken) locks_.release_all(probed.state.call_key, false);
    return probed;
  }

  // One that does not wait has time enough, also where the machine is busy.
  Probed run(const ImportDeclaration& declaration, const Probe& probe) {
    return run(probe, may_wait(declaration) ? kTimeMax : kEndsWithin);
  }

  // What holds after any call.
  void expect_kept(const Probed& probed, const std::string& what) {
    EXPECT_EQ(std::memcmp(neighbour_->memory(), neighbour_before_.data(), kMemoryBytes), 0)
        << what << ": another tenant's memory";
    EXPECT_EQ(value("neighbour", "value"), Bytes(secret_.begin(), secret_.end())) << what << ": another tenant's state";
    EXPECT_EQ(value("attacker", "read only"), read_only_) << what << ": a read-only window";
    for (const Bytes* bytes : {&probed.after, &probed.state.output, &probed.state.log})
      EXPECT_EQ(as_text(*bytes).find(secret_), std::string_view::npos) << what << ": another tenant's bytes";
    EXPECT_LT(probed.took, 2 * kEndsWithin) << what;
  }

  state::ReferenceTier global_;
  std::unique_ptr<state::WindowTracker> tracker_;
  state::LocalTier tier_;
  state::BlockingPool pool_{{.threads = 2}};
  state::LockService locks_;
  host::StateServices services_{.tier = &tier_, .pool = &pool_, .locks = &locks_};
  std::shared_ptr<host::TestNetwork> network_ = host::TestNetwork::make();
  std::vector<std::shared_ptr<state::Replica>> kept_;
  std::string directory_;

  Prober prober_;
  std::string secret_;
  host::HostState neighbour_state_;
  std::unique_ptr<faaslet::Faaslet> neighbour_;
  Bytes neighbour_before_, read_only_;
  uint32_t read_only_at_ = 0, writable_at_ = 0;
  std::atomic<int> calls_ = 0;
  size_t runs_ = 0;
  std::vector<std::unique_ptr<std::string>> names_;  // what steps refer to
};

enum class Ended { kWell, kRefused, kInterrupted };

// How the last step ended. WASI gives an error number, Spore's functions a negative one, others trap.
Ended end_of(const ImportDeclaration& declaration, const Probe& probe, const Probed& probed) {
  if (probed.result.kind == CallResult::Kind::kInterrupted) return Ended::kInterrupted;
  if (!probed.all_returned(probe))
    return probed.result.kind == CallResult::Kind::kExited && declaration.name == "proc_exit" ? Ended::kWell
                                                                                              : Ended::kRefused;
  const uint64_t given = probed.given.back();
  if (declaration.module == "wasi_snapshot_preview1") return given == 0 ? Ended::kWell : Ended::kRefused;
  if (declaration.module == "spore" && declaration.signature.results.front() == wasm::ValueType::kI64)
    return static_cast<int64_t>(given) >= 0 ? Ended::kWell : Ended::kRefused;
  return Ended::kWell;
}

std::string shown(const Probed& probed) {
  std::string out = " ended " + std::to_string(static_cast<int>(probed.result.kind)) + " '" +
                    probed.result.trap.message + probed.result.error.message + "' gave";
  for (const uint64_t given : probed.given) out += " " + std::to_string(static_cast<int64_t>(given));
  return out + " log: " + std::string(as_text(probed.state.log).substr(0, 300));
}

// Functions of which a good call does not go well; how it ends instead is their work.
bool refuses_good_calls(const ImportDeclaration& declaration) {
  static const std::set<std::string_view> kNames = {
      "abort",          // ends the call
      "proc_raise",     // ENOSYS
      "state_push_if",  // EAGAIN: the version is another
  };
  return kNames.contains(declaration.name);
}

// A pointer that is outside is no error to these.
bool may_be_outside(const ImportDeclaration& declaration, const Argument& argument) {
  return declaration.name == "trace" && argument.name == "message";  // it says so in its line
}

struct BadValue {
  std::string name;
  uint64_t value;
  bool is_outside = false;      // none of the pointee's bytes, or not all, are there
  bool copies_pointee = false;  // as much of it as there is memory lies there
};

std::vector<BadValue> bad_pointers(const Argument& argument, uint32_t read_only_at, uint32_t writable_at) {
  const uint64_t n = argument.extent();
  std::vector<BadValue> out = {
      {"null", 0},
      {"unaligned", kMemoryBytes - 0x1001, false, true},
      {"the last that fits", kMemoryBytes - n, false, true},
      {"out by one", kMemoryBytes - n + 1, true, true},
      {"the end of memory", kMemoryBytes, argument.lead == 0},  // else what lies below is there
      {"a hole", kMemoryBytes + 0x100000, true},
      {"the middle of the address space", 0x80000000, true},
      {"above all windows", 0xffffffff - 0xfff, true},
      {"the last address", 0xffffffff, true},
      {"wraps", 0x100000000 - n, true},
      {"below a window", uint64_t{writable_at} - 1, true},
      {"past the end of a window", writable_at + kWindowBytes - n + 1, true},
      {"the end of a window", writable_at + kWindowBytes, true},
      {"a read-only window", read_only_at},
      {"past the end of a read-only window", read_only_at + kWindowBytes - n + 1, true},
  };
  if (n > 1) {
    out.push_back({"the last byte of memory", kMemoryBytes - 1, true, true});
    out.push_back({"wraps in its midst", 0x100000000 - n / 2, true});
  }
  if (uint64_t{writable_at} + kWindowBytes == read_only_at) {  // the two windows touch
    std::erase_if(out, [](const BadValue& value) { return value.name == "the end of a window"; });
    if (n == 1) std::erase_if(out, [](const BadValue& value) { return value.name == "past the end of a window"; });
  }
  for (BadValue& value : out) value.value &= 0xffffffff;
  return out;
}

std::vector<BadValue> bad_numbers(bool wide, uint64_t pointer) {
  std::vector<BadValue> out;
  std::vector<uint64_t> values = {0,
                                  1,
                                  0x7fffffff,
                                  0x80000000,
                                  0xffffffff,
                                  0xfffffff0,
                                  0x10000000,
                                  0x10000001,
                                  0x20000000,
                                  0x20000001,
                                  0x40000001,
                                  0x0924924a,
                                  kMemoryBytes,
                                  kMemoryBytes + 1,
                                  0x100000000 - pointer,
                                  0x100000010 - pointer};
  if (wide)
    values.insert(values.end(), {UINT64_MAX, UINT64_MAX - 15, 1ull << 63, (1ull << 63) - 1, 1ull << 32, 1ull << 40});
  for (const uint64_t value : values) out.push_back({std::to_string(value), wide ? value : value & 0xffffffff});
  return out;
}

// Bytes of memory that differ, outside [arguments, + kArgumentsBytes + what malloc gives) and the script.
std::optional<uint32_t> changed_outside(const Probed& probed, uint64_t allowed_begin, uint64_t allowed_end) {
  const auto differs = [&](uint32_t begin, uint32_t end) -> std::optional<uint32_t> {
    if (std::memcmp(probed.before.data() + begin, probed.after.data() + begin, end - begin) == 0) return {};
    for (uint32_t at = begin; at < end; ++at)
      if (probed.before[at] != probed.after[at] && (at < allowed_begin || at >= allowed_end)) return at;
    return {};
  };
  if (const auto at = differs(0, kArguments)) return at;
  return differs(kScript + kPageBytes, kMemoryBytes);
}

}  // namespace

TEST_F(Pointers, GoodCallsOfEveryHostFunctionGoThrough) {
  find_windows();
  for (const ImportDeclaration& declaration : host::imports()) {
    const auto arguments = good_arguments(declaration);
    ASSERT_TRUE(arguments) << arguments.error().message;
    const Probe probe = probe_of(declaration, *arguments);
    const Probed probed = run(declaration, probe);
    EXPECT_GE(probed.given.size() + 1, probe.steps.size()) << full_name(declaration) << shown(probed);
    for (size_t i = 0; i + 1 < probed.given.size(); ++i)  // WASI's give 0, the others nothing below it
      EXPECT_TRUE(static_cast<int64_t>(probed.given[i]) >= 0 &&
                  (!probe.steps[i].function.starts_with("wasi") || probed.given[i] == 0))
          << full_name(declaration) << shown(probed);
    if (!refuses_good_calls(declaration))
      EXPECT_EQ(end_of(declaration, probe, probed), Ended::kWell) << full_name(declaration) << shown(probed);
    expect_kept(probed, full_name(declaration));
    EXPECT_EQ(changed_outside(probed, 0, 0), std::nullopt) << full_name(declaration);
  }
}

TEST_F(Pointers, ANewHostFunctionWhoseParametersNobodyKnowsFailsTheSuite) {
  ImportDeclaration declaration{.module = "spore", .name = "new_one"};
  declaration.signature.params = {wasm::ValueType::kI32, wasm::ValueType::kI32};
  declaration.documentation = "(key): does something.";
  EXPECT_FALSE(good_arguments(declaration));
  declaration.documentation = "(key, moonlight): does something.";
  EXPECT_FALSE(good_arguments(declaration));
  declaration.documentation = "(key, length): does something.";
  EXPECT_TRUE(good_arguments(declaration));
}

TEST_F(Pointers, BadOnesEndInAnErrorOfThatCallAlone) {
  find_windows();
  size_t calls = 0, refused = 0, interrupted = 0;
  for (const ImportDeclaration& declaration : host::imports()) {
    const auto arguments = good_arguments(declaration);
    ASSERT_TRUE(arguments) << arguments.error().message;
    const Probe good = probe_of(declaration, *arguments);
    for (size_t i = 0; i < arguments->size(); ++i) {
      const Argument& argument = (*arguments)[i];
      const auto type = declaration.signature.params[i];
      if (type == wasm::ValueType::kF64 || type == wasm::ValueType::kF32) continue;
      const bool is_pointer = argument.role == Role::kPointer;
      std::vector<BadValue> values;
      if (is_pointer) values = bad_pointers(argument, read_only_at_, writable_at_);
      put("attacker", "writable", std::string(kWindowBytes, 'w'));  // no NUL in it, where a text is looked for
      for (BadValue value : bad_numbers(type == wasm::ValueType::kI64, kArguments)) {
        // As an address: outside where it is, and good memory is somebody else's argument.
        if (is_pointer && value.value < kMemoryBytes) continue;
        value.is_outside = is_pointer && value.value != kMemoryBytes && value.value + argument.extent() <= writable_at_;
        values.push_back(std::move(value));
      }
      for (const BadValue& value : values) {
        const std::string what = full_name(declaration) + ", " + argument.name + " = " + value.name;
        Probe probe = good;
        probe.steps.back().operands[i].value = value.value;
        if (value.copies_pointee) {
          const Bytes all = argument_bytes(*arguments, {});
          probe.memory.push_back(
              {static_cast<uint32_t>(value.value) - argument.lead,
               Bytes(all.begin() + argument.place,
                     all.begin() + argument.place + static_cast<ptrdiff_t>(argument.pointee.size()))});
        }
        const Probed probed = run(declaration, probe);
        const Ended ended = end_of(declaration, probe, probed);
        ++calls;
        refused += ended == Ended::kRefused;
        interrupted += ended == Ended::kInterrupted;
        if (is_pointer && value.is_outside && !may_be_outside(declaration, argument))
          EXPECT_NE(ended, Ended::kWell) << what << shown(probed);
        EXPECT_TRUE(ended != Ended::kInterrupted || may_wait(declaration)) << what << shown(probed);
        expect_kept(probed, what);
        // Only what was asked for and was done.
        const bool wrote = ended == Ended::kWell && is_pointer && !value.is_outside;
        EXPECT_EQ(changed_outside(probed, wrote ? value.value : 0, wrote ? value.value + argument.extent() : 0),
                  std::nullopt)
            << what << shown(probed);
      }
    }
    const Probed after = run(declaration, good);
    if (!refuses_good_calls(declaration))
      EXPECT_EQ(end_of(declaration, good, after), Ended::kWell) << full_name(declaration) << shown(after);
    if (HasFatalFailure()) return;
  }
  std::printf("%zu host functions, %zu calls with a bad argument, %zu refused, %zu ended by their deadline\n",
              host::imports().size(), calls, refused, interrupted);
  EXPECT_GT(calls, 30 * host::imports().size());
}

TEST_F(Pointers, BadWordsInWhatGoodOnesNameDoTheSame) {
  find_windows();
  size_t calls = 0;
  const uint32_t words[] = {1,          0xffffffff,   0x80000000,        0x7fffffff,        0x00ffffff,
                            0xffff0000, kMemoryBytes, kMemoryBytes + 65, read_only_at_ + 5, writable_at_ + 0x3fff};
  for (const ImportDeclaration& declaration : host::imports()) {
    const auto arguments = good_arguments(declaration);
    ASSERT_TRUE(arguments) << arguments.error().message;
    const Probe good = probe_of(declaration, *arguments);
    for (const Argument& argument : *arguments) {
      // Of what is only written to by the host a few words are enough to see that it does not read them.
      const size_t size = std::min<size_t>(argument.pointee.size(), 48);
      for (size_t at = 0; at + 4 <= size; at += 4) {
        for (const uint32_t word : words) {
          Probe probe = good;
          Bytes bytes(4);
          std::memcpy(bytes.data(), &word, 4);
          probe.memory.push_back({kArguments + argument.place + static_cast<uint32_t>(at), bytes});
          const std::string what =
              full_name(declaration) + ", " + argument.name + "[" + std::to_string(at) + "] = " + std::to_string(word);
          const Probed probed = run(declaration, probe);
          ++calls;
          EXPECT_TRUE(end_of(declaration, probe, probed) != Ended::kInterrupted || may_wait(declaration))
              << what << shown(probed);
          expect_kept(probed, what);
          // A buffer at the address 1 is one of the guest's own.
          const bool may_write_low = word == 1 && !argument.addresses.empty();
          EXPECT_EQ(changed_outside(probed, may_write_low ? 1 : 0, may_write_low ? 64 : 0), std::nullopt)
              << what << shown(probed);
        }
      }
    }
  }
  std::printf("%zu calls with a bad word in their arguments' memory\n", calls);
  EXPECT_GT(calls, 1000u);
}

// Arguments in a state value that another Faaslet of the tenant changes as fast as it can, from good to bad and back,
// while the host looks at them.
TEST_F(Pointers, BytesThatAnotherFaasletFlipsMeanwhile) {
  find_windows();
  const char* given = ::getenv("SPORE_SECURITY_FLIP_MS");
  const milliseconds time(given ? std::atoi(given) : 20);
  size_t functions = 0, calls = 0, well = 0;
  for (const ImportDeclaration& declaration : host::imports()) {
    const auto arguments = good_arguments(declaration);
    ASSERT_TRUE(arguments) << arguments.error().message;
    if (std::ranges::none_of(*arguments, [](const Argument& a) { return a.role == Role::kPointer; })) continue;
    ++functions;
    const Base base{writable_at_};
    const Bytes good = argument_bytes(*arguments, base);
    Bytes bad = good;
    // Sizes that are larger and yet inside come last: who looks at one twice would believe them.
    const uint32_t words[] = {0xffffffff, 0x7fffffff,        kMemoryBytes,          0x01010101, 0xfffffff0,
                              0x80000001, read_only_at_ + 1, writable_at_ + 0x3ffe, 0x30,       0x2ff0};
    constexpr size_t kAddresses = 8;
    size_t next = 0;
    for (const Argument& argument : *arguments)
      for (size_t at = 0; at + 4 <= argument.pointee.size(); at += 4) {
        const bool is_address = std::ranges::count(argument.addresses, at) > 0;
        // The first word of a structure is its size, where it has one.
        const size_t word = at == 0 && !is_address ? std::size(words) - 1 : next++ % std::size(words);
        std::memcpy(bad.data() + argument.place + at, &words[is_address ? word % kAddresses : word], 4);
      }
    // A text without its NUL runs on.
    for (const Argument& argument : *arguments)
      if (argument.pointee.size() % 4 != 0)
        std::memset(bad.data() + argument.place + argument.pointee.size() - argument.pointee.size() % 4, 'x', 4);

    Probe flips;
    add_windows(flips);
    flips.memory.push_back({kArguments, good});
    flips.memory.push_back({kArguments + kArgumentsBytes, bad});
    flips.steps.push_back(
        {"alternate", {{base.address}, {kArguments}, {kArguments + kArgumentsBytes}, {kArgumentsBytes}}});
    Probe probe = probe_of(declaration, *arguments);
    probe.memory.pop_back();
    probe.steps.back().operands = operands_of(*arguments, base);
    probe.steps.back().repeat = 50;

    std::atomic<bool> flipping = false;
    Guarded<bool> over(false);  // `stop` is for as long as it is not
    std::function<void()> stop;
    std::thread flipper([&] {
      // Until it is interrupted; its deadline is for a test that has gone wrong.
      const Probed probed = prober_.run(flips, setup(), std::chrono::minutes(2), [&](std::function<void()> interrupt) {
        stop = std::move(interrupt);
        flipping = true;
      });
      EXPECT_EQ(probed.result.kind, CallResult::Kind::kInterrupted) << shown(probed);
      expect_kept(probed, full_name(declaration));
      *over.lock() = true;
    });
    while (!flipping) std::this_thread::yield();
    const auto until = faaslet::Clock::now() + time;
    do {
      const Probed probed = run(probe);
      ++calls;
      well += probed.all_returned(probe);
      expect_kept(probed, full_name(declaration));
      EXPECT_EQ(changed_outside(probed, 0, 0), std::nullopt) << full_name(declaration) << shown(probed);
    } while (faaslet::Clock::now() < until);
    const auto ask = [&] {
      auto ended = over.lock();
      if (!*ended) stop();
      return !*ended;
    };
    while (ask()) std::this_thread::sleep_for(milliseconds(1));
    flipper.join();
    if (HasFatalFailure()) return;
  }
  std::printf("%zu host functions, %zu calls of 50 each while their arguments were flipped, %zu of them undisturbed\n",
              functions, calls, well);
  EXPECT_GT(calls, functions);
}

// malloc() is the guest's; it may close the call whose output is about to be copied into what it gives.
TEST_F(Pointers, AMallocThatClosesTheCallGetsNothingOfIt) {
  find_windows();
  const auto all = host::imports();
  const auto declaration =
      std::ranges::find(all, std::string_view("__faasm_await_call_output"), &ImportDeclaration::name);
  ASSERT_NE(declaration, all.end());
  const auto arguments = good_arguments(*declaration);
  ASSERT_TRUE(arguments);
  Probe probe = probe_of(*declaration, *arguments);
  EXPECT_TRUE(run(probe).all_returned(probe));
  probe.malloc_closes_calls = true;
  const Probed probed = run(probe);
  EXPECT_EQ(probed.result.kind, CallResult::Kind::kTrapped) << shown(probed);
  expect_kept(probed, "malloc");
}

}  // namespace spore::security
