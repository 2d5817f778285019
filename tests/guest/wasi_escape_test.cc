// Nothing escapes from a preopened directory while names in it change: two threads of the host exchange a directory
// for a link that leads out, and move a directory up, as fast as they can while a guest goes through both.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "guest_runner.h"

namespace spore::host {
namespace {

namespace fs = std::filesystem;

TEST(EscapeRace, NothingOutsideIsReadOrChanged) {
  TemporaryDirectory root;
  const fs::path rw = root.path() / "rw";
  fs::create_directories(rw / "swap");
  fs::create_directories(rw / "deep/a/b");
  fs::create_directories(root.path() / "outside");
  std::ofstream(rw / "swap/file") << "inside";
  std::ofstream(rw / "mine") << "mine";
  std::ofstream(root.path() / "outside/file") << "outside!";
  std::ofstream(root.path() / "secret") << "secret";
  fs::create_symlink("../outside", rw / "link");
  struct stat before;
  ASSERT_EQ(::stat((root.path() / "outside/file").c_str(), &before), 0);

  std::atomic<bool> over = false;
  std::atomic<uint64_t> exchanged = 0;
  std::atomic<uint64_t> moved = 0;
  std::thread exchanging([&] {
    while (!over) {
      exchanged += ::renameat2(AT_FDCWD, (rw / "swap").c_str(), AT_FDCWD, (rw / "link").c_str(), RENAME_EXCHANGE) == 0;
    }
  });
  std::thread moving([&] {
    const std::string low = rw / "deep/a/b", high = rw / "b";
    while (!over) moved += ::rename(low.c_str(), high.c_str()) == 0 && ::rename(high.c_str(), low.c_str()) == 0;
  });
  CallSetup setup;
  setup.preopens = {{rw.string(), "/rw", Access::kReadWrite}};
  const GuestRun run = run_guest("race", {}, std::move(setup));
  over = true;
  exchanging.join();
  moving.join();

  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
  EXPECT_GT(exchanged, 0u);
  EXPECT_GT(moved, 0u);
  std::ifstream in(root.path() / "outside/file");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "outside!");
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path() / "outside"), {}), 1);
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path()), {}), 3);
  struct stat after;
  ASSERT_EQ(::stat((root.path() / "outside/file").c_str(), &after), 0);
  EXPECT_EQ(after.st_nlink, 1u);
  EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

}  // namespace
}  // namespace spore::host
