// WASI as a guest sees it. Most checks are in the guests; here is the world they run in.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "guest_runner.h"

namespace spore::host {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream in(path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// Every check inside the guest held.
void expect_success(const GuestRun& run) {
  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
}

TEST(Wasi, ArgumentsEnvironmentClocksAndRandomness) {
  CallSetup setup;
  setup.environment = {"A=1", "EMPTY="};
  expect_success(run_guest("process", {"with space", ""}, std::move(setup)));
}

TEST(Wasi, ExitCodeIsTheGuests) {
  for (const int code : {0, 1, 42, 255}) {
    const GuestRun run = run_guest("exit", {std::to_string(code)});
    EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
    EXPECT_EQ(run.result.exit_code, code);
    EXPECT_EQ(as_text(run.state.output), "before");
  }
}

TEST(Wasi, FilesAndNames) {
  TemporaryDirectory root;
  fs::create_directories(root.path() / "rw");
  fs::create_directories(root.path() / "ro/dir");
  std::ofstream(root.path() / "ro/file") << "read only";
  std::ofstream(root.path() / "secret") << "secret";
  fs::create_symlink("..", root.path() / "rw/escape");
  fs::create_symlink("/etc", root.path() / "rw/etc");
  CallSetup setup;
  setup.preopens = {{(root.path() / "rw").string(), "/rw", Access::kReadWrite},
                    {(root.path() / "ro").string(), "/ro", Access::kReadOnly}};
  expect_success(run_guest("files", {}, std::move(setup)));
  // Outside and in the read-only directory nothing changed; inside only what the host made is left.
  EXPECT_EQ(text_of(root.path() / "secret"), "secret");
  EXPECT_EQ(text_of(root.path() / "ro/file"), "read only");
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path()), {}), 3);
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path() / "ro"), {}), 2);
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path() / "rw"), {}), 2);
}

TEST(Wasi, FilesThroughTheCLibrary) {
  TemporaryDirectory root;
  CallSetup setup;
  setup.preopens = {{root.path().string(), "/disk", Access::kReadWrite}};
  expect_success(run_guest("libc", {}, std::move(setup)));
  EXPECT_TRUE(fs::is_empty(root.path()));
}

TEST(Wasi, BadPointersAreFaults) {
  TemporaryDirectory root;
  std::ofstream(root.path() / "file") << "content";
  CallSetup setup;
  setup.environment = {"A=1"};
  setup.preopens = {{root.path().string(), "/data", Access::kReadWrite}};
  expect_success(run_guest("pointers", {}, std::move(setup)));
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path()), {}), 1);
}

TEST(Wasi, PollTellsWhatIsDue) { expect_success(run_guest("wait", {"poll"})); }

TEST(Wasi, SleepTakesAsLongAsItSays) {
  const auto before = faaslet::Clock::now();
  expect_success(run_guest("wait", {"sleep", "20"}));
  EXPECT_GE(faaslet::Clock::now() - before, std::chrono::milliseconds(20));
}

}  // namespace
}  // namespace spore::host
