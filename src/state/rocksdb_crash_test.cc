// What a push has answered is there after whatever ends the process or the machine, whole; and no value is torn.
//
// Pushers write values whose every version can be told from its number alone. They are killed, or their machine loses
// its power, at a point drawn at random; the directory is opened again and looked at; and they go on from there.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "base/fd.h"
#include "state/global_tier_conformance.h"
#include "state/merge.h"
#include "state/rocksdb_fault_fs.h"
#include "state/rocksdb_test_world.h"
#include "state/rocksdb_tier.h"

extern char** environ;

namespace spore::state {
namespace {

constexpr uint64_t kPushers = 3;
constexpr uint64_t kSize = 2 * kChunkBytes + 5000;
constexpr std::array<uint64_t, 4> kPlaces{0, 5 * kPageBytes - 4, kChunkBytes + 100, kSize - 8};
constexpr uint64_t kWholeEvery = 7;

// Small enough for files, compactions and pushes in parts to happen all the time.
const RocksDbOptions kBusy{.write_buffer_bytes = 1 << 20, .push_batch_bytes = 64 << 10};

Deadline soon() { return Clock::now() + std::chrono::seconds(60); }
ValueId value_of(uint64_t pusher) { return {.tenant = "tenant", .key = "value-" + std::to_string(pusher)}; }

// Version n of a value has n at kPlaces; all other bytes are those of the last version that wrote everything, of which
// every second one replaced the value, and has the low byte of its number everywhere.
Bytes content(uint64_t number) {
  const uint64_t whole = number / kWholeEvery * kWholeEvery;
  Bytes out(kSize, static_cast<uint8_t>(whole));
  for (const uint64_t place : kPlaces) std::memcpy(out.data() + place, &number, 8);
  return out;
}

// Pushes the next version until that fails; tells of each after it was answered.
template <class Acknowledge>
void push_on(GlobalTier& tier, uint64_t pusher, const Acknowledge& acknowledge) {
  const ValueId id = value_of(pusher);
  const auto there = tier.describe(id, soon());
  if (!there && there.error().code != ErrorCode::kNotFound) return;
  for (uint64_t number = there ? there->version.number + 1 : 1;; ++number) {
    Push push{.size_bytes = kSize, .once = std::to_string(number)};
    Bytes whole;
    if (number % kWholeEvery == 0) {
      whole = content(number);
      push.patches = {{.offset = 0, .bytes = whole}};
      push.replace = number % (2 * kWholeEvery) == 0;
    } else {
      for (const uint64_t place : kPlaces)
        push.patches.push_back({.offset = place, .bytes = {reinterpret_cast<const uint8_t*>(&number), 8}});
    }
    const auto pushed = tier.push(id, push, soon());
    if (!pushed || pushed->after.version.number != number) return;
    acknowledge(number);
  }
}

// Opens the directory as it was left, and looks at all values: each is whole and has what was acknowledged.
// A push that was applied and not acknowledged counts from then on.
void expect_whole(const std::filesystem::path& directory, const RocksDbOptions& options,
                  std::array<uint64_t, kPushers>& acknowledged) {
  auto opened = RocksDbTier::open(directory, options);
  ASSERT_TRUE(opened) << opened.error().message;
  GlobalTier& tier = **opened;
  Usage usage;
  for (uint64_t pusher = 0; pusher < kPushers; ++pusher) {
    auto pin = tier.pin(value_of(pusher), soon());
    if (!pin) {
      EXPECT_EQ(code_of(pin), to_string(ErrorCode::kNotFound));
      EXPECT_EQ(acknowledged[pusher], 0u);
      continue;
    }
    const Manifest manifest = (*pin)->manifest();
    ++usage.keys;
    usage.bytes += manifest.size_bytes;
    EXPECT_GE(manifest.version.number, acknowledged[pusher]) << "an acknowledged push is gone";
    EXPECT_LE(manifest.version.number, acknowledged[pusher] + 1);
    ASSERT_EQ(manifest.size_bytes, kSize);
    Bytes bytes(kSize);
    ASSERT_TRUE((*pin)->read(0, bytes, soon()));
    EXPECT_TRUE(bytes == content(manifest.version.number)) << "torn at version " << manifest.version.number;
    // Its name is remembered with it.
    const auto again = tier.push(value_of(pusher), {.once = std::to_string(manifest.version.number)}, soon());
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->after.version, manifest.version);
    acknowledged[pusher] = manifest.version.number;
  }
  EXPECT_EQ(tier.usage("tenant", soon())->keys, usage.keys);
  EXPECT_EQ(tier.usage("tenant", soon())->bytes, usage.bytes);
}

uint64_t seed_from_environment() {
  const char* text = std::getenv("SPORE_STATE_SEED");
  const uint64_t seed = text ? std::strtoull(text, nullptr, 10) : std::random_device()();
  std::printf("SPORE_STATE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

int rounds_from_environment() {
  const char* text = std::getenv("SPORE_STATE_ROUNDS");
  return text ? std::atoi(text) : 20;
}

constexpr const char* kChildDirectory = "SPORE_STATE_PUSHER_DIRECTORY";
constexpr int kChildPipe = 3;

struct Acknowledgement {
  uint64_t pusher = 0;
  uint64_t number = 0;
};

// A process that pushes in the directory and writes acknowledgements to the pipe, until it is killed.
class PusherProcess {
 public:
  explicit PusherProcess(const std::filesystem::path& directory) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    pipe_.reset(ends[0]);
    UniqueFd write_end(ends[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), kChildPipe);
    ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    std::string variable = std::string(kChildDirectory) + "=" + directory.string();
    std::vector<char*> environment;
    for (char** at = environ; *at; ++at) environment.push_back(*at);
    environment.push_back(variable.data());
    environment.push_back(nullptr);
    const char* arguments[] = {"pusher", "--gtest_filter=RocksDbCrash.DISABLED_PushesUntilKilled",
                               "--gtest_also_run_disabled_tests", nullptr};
    EXPECT_EQ(
        ::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, const_cast<char**>(arguments), environment.data()),
        0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~PusherProcess() { kill(); }

  // Nothing: the process has ended and all has been read.
  std::optional<Acknowledgement> next() {
    Acknowledgement out;
    // Less than PIPE_BUF: comes whole.
    return ::read(pipe_.get(), &out, sizeof out) == sizeof out ? std::optional(out) : std::nullopt;
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    EXPECT_TRUE(WIFSIGNALED(status)) << "it ended by itself";
    pid_ = 0;
  }

 private:
  UniqueFd pipe_;
  pid_t pid_ = 0;
};

// The other process of AcknowledgedPushesSurviveKill.
TEST(RocksDbCrash, DISABLED_PushesUntilKilled) {
  const char* directory = std::getenv(kChildDirectory);
  if (!directory) GTEST_SKIP() << "not started by a test";
  auto tier = RocksDbTier::open(directory, kBusy);
  ASSERT_TRUE(tier) << tier.error().message;
  std::vector<std::jthread> threads;
  for (uint64_t pusher = 0; pusher < kPushers; ++pusher)
    threads.emplace_back([&, pusher] {
      push_on(**tier, pusher, [&](uint64_t number) {
        const Acknowledgement told{.pusher = pusher, .number = number};
        EXPECT_EQ(::write(kChildPipe, &told, sizeof told), ssize_t{sizeof told});
      });
    });
}

TEST(RocksDbCrash, AcknowledgedPushesSurviveKill) {
  std::mt19937_64 random(seed_from_environment());
  const TemporaryDirectory directory;
  std::array<uint64_t, kPushers> acknowledged{};
  for (int round = 0; round < rounds_from_environment() && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    PusherProcess process(directory.path());
    const auto note = [&](const Acknowledgement& told) { acknowledged[told.pusher] = told.number; };
    for (uint64_t left = 1 + random() % 100; left > 0; --left) {
      const auto told = process.next();
      ASSERT_TRUE(told) << "the process has ended";
      note(*told);
    }
    process.kill();
    while (const auto told = process.next()) note(*told);
    expect_whole(directory.path(), kBusy, acknowledged);
  }
}

TEST(RocksDbCrash, AcknowledgedPushesSurviveALossOfPower) {
  std::mt19937_64 random(seed_from_environment());
  const TemporaryDirectory directory;
  const auto fs = std::make_shared<FaultFs>();
  FaultEnv env(fs);
  RocksDbOptions options = kBusy;
  options.env = &env;
  std::array<uint64_t, kPushers> acknowledged{};
  for (int round = 0; round < 2 * rounds_from_environment() && !testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    fs->lose_power_after(static_cast<int64_t>(1 + random() % (round % 2 == 0 ? 600 : 60)));
    {
      auto tier = RocksDbTier::open(directory.path(), options);
      std::vector<std::jthread> threads;
      for (uint64_t pusher = 0; tier && pusher < kPushers; ++pusher)
        threads.emplace_back(
            [&, pusher] { push_on(**tier, pusher, [&](uint64_t number) { acknowledged[pusher] = number; }); });
      threads.clear();
      EXPECT_FALSE(fs->has_power()) << "pushes ended though nothing happened";
    }
    fs->restart();
    expect_whole(directory.path(), options, acknowledged);
  }
}

}  // namespace
}  // namespace spore::state
