// Against the kernel's own files where this machine has them (the test says which version it found), and against a
// directory in their place for the other.
#include "isolation/cpu_groups.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <fstream>
#include <thread>

namespace spore::isolation {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  const auto bytes = read_file(path);
  return bytes ? std::string(as_text(*bytes)) : "<" + bytes.error().message + ">";
}

void write(const fs::path& path, std::string_view text) { std::ofstream(path) << text; }

// A directory that looks like /proc/PID and /sys/fs/cgroup.
class Double : public ::testing::Test {
 protected:
  Double() {
    std::string name = (fs::temp_directory_path() / "spore-cgroups-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    fs::create_directories(root_ / "proc/self");
    fs::create_directories(root_ / "sys fs");
    write(root_ / "proc/self/stat", "7 (a) b) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 2");
    places_ = {.process = root_ / "proc/self", .processes = root_ / "proc", .open_flags = O_WRONLY | O_CREAT};
  }
  ~Double() override { fs::remove_all(root_); }

  void put_version_2(std::string_view controllers) {
    write(places_.process / "cgroup", "0::/system.slice/spore.service\n");
    write(places_.process / "mountinfo",
          "35 25 0:30 / " + root_.string() + "/sys\\040fs rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    directory_ = root_ / "sys fs/system.slice/spore.service";
    fs::create_directories(directory_);
    write(directory_ / "cgroup.controllers", controllers);
  }

  fs::path root_;
  fs::path directory_;  // where the host is
  CpuGroups::Places places_;
};

TEST_F(Double, Version2GroupsAreThreadedAndHaveTheCpuController) {
  put_version_2("cpuset cpu io memory\n");
  auto groups = CpuGroups::make(3, places_);
  ASSERT_TRUE(groups.has_value()) << groups.error().message;
  EXPECT_TRUE(groups->version_2());
  const fs::path all = directory_ / ("spore-" + std::to_string(::getpid()) + "-4711");
  EXPECT_EQ(groups->directory(), all);
  EXPECT_EQ(text_of(directory_ / "cgroup.subtree_control"), "+cpu");
  EXPECT_EQ(text_of(all / "cgroup.type"), "threaded");
  EXPECT_EQ(text_of(all / "cgroup.subtree_control"), "+cpu");
  EXPECT_EQ(text_of(all / "cpu.weight"), "300");
  EXPECT_EQ(text_of(all / "seat-2/cgroup.type"), "threaded");
  EXPECT_EQ(text_of(all / "watchdog/cpu.weight"), "10000");
  ASSERT_TRUE(groups->watchdog().enter().has_value());
  EXPECT_EQ(text_of(all / "watchdog/cgroup.threads"), "0");

  CpuGroup* first = groups->take();
  CpuGroup* second = groups->take();
  ASSERT_TRUE(first && second && groups->take());
  EXPECT_EQ(groups->take(), nullptr);
  ASSERT_TRUE(second->enter().has_value());
  EXPECT_EQ(text_of(all / "seat-1/cgroup.threads"), "0");
  EXPECT_EQ(text_of(all / "seat-0/cgroup.threads"), "");
  ASSERT_TRUE(second->set_weight(kCpuWeightDefault).has_value());
  EXPECT_EQ(text_of(all / "seat-1/cpu.weight"), "") << "it is so by default";
  ASSERT_TRUE(second->set_weight(300).has_value());
  EXPECT_EQ(text_of(all / "seat-1/cpu.weight"), "300");
}

TEST_F(Double, Version1IsTakenWhereVersion2HasNoCpuController) {
  put_version_2("memory\n");
  write(places_.process / "cgroup", "3:cpuset:/\n1:cpu,cpuacct:/docker/abc\n0::/system.slice/spore.service\n");
  std::ofstream(places_.process / "mountinfo", std::ios::app)
      << "40 25 0:31 /docker/abc " << (root_ / "v1").string() << " rw - cgroup cgroup rw,cpu,cpuacct\n";
  fs::create_directories(root_ / "v1");
  auto groups = CpuGroups::make(1, places_);
  ASSERT_TRUE(groups.has_value()) << groups.error().message;
  EXPECT_FALSE(groups->version_2());
  EXPECT_EQ(groups->directory().parent_path(), root_ / "v1");
  EXPECT_EQ(text_of(groups->directory() / "cpu.shares"), "1024");
  CpuGroup* group = groups->take();
  ASSERT_TRUE(group->enter().has_value());
  EXPECT_EQ(text_of(groups->directory() / "seat-0/tasks"), "0");
  ASSERT_TRUE(group->set_weight(50).has_value());
  EXPECT_EQ(text_of(groups->directory() / "seat-0/cpu.shares"), "512");
}

TEST_F(Double, WithoutAControllerOrTheRightItSaysWhy) {
  put_version_2("memory\n");
  auto none = CpuGroups::make(1, places_);
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().message, "the host is in no cgroup with a cpu controller");

  put_version_2("cpu\n");
  fs::remove_all(directory_);
  write(directory_, "");  // a file where the directory should be
  EXPECT_FALSE(CpuGroups::make(1, places_).has_value());

  fs::remove(directory_);
  put_version_2("cpu\n");
  places_.open_flags = O_WRONLY;  // as with files that may not be written
  auto refused = CpuGroups::make(1, places_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("cgroup.type"), std::string::npos) << refused.error().message;
  EXPECT_TRUE(fs::is_empty(directory_) || !fs::exists(directory_ / ("spore-" + std::to_string(::getpid()) + "-4711")));
}

TEST_F(Double, WhatHostsThatAreGoneHaveLeftIsRemoved) {
  put_version_2("cpu\n");
  fs::create_directories(root_ / "proc/99");
  write(root_ / "proc/99/stat", "99 (spore) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 5000 1 2");
  for (const auto* name : {"spore-98-5000", "spore-99-4999", "spore-99-5000", "other-98-1", "spore-98"})
    fs::create_directories(directory_ / name / "seat-0");
  ASSERT_TRUE(CpuGroups::make(1, places_).has_value());
  EXPECT_FALSE(fs::exists(directory_ / "spore-98-5000")) << "no such process";
  EXPECT_FALSE(fs::exists(directory_ / "spore-99-4999")) << "another process has its number";
  EXPECT_TRUE(fs::exists(directory_ / "spore-99-5000/seat-0")) << "its host lives";
  EXPECT_TRUE(fs::exists(directory_ / "other-98-1/seat-0"));
  EXPECT_TRUE(fs::exists(directory_ / "spore-98/seat-0"));
}

// ---- the kernel's
// ----------------------------------------------------------------------------------------------------

#define GROUPS_OR_SKIP(groups, count)                                         \
  auto groups = CpuGroups::make(count);                                       \
  if (!groups) GTEST_SKIP() << "no cgroups here: " << groups.error().message; \
  std::printf("cgroup version %d\n", groups->version_2() ? 2 : 1)

// Two threads that want the same core for a second, each tuned by `tune`: how much more of it the first had. They are
// in groups of one parent, so what else the machine does changes what both have, not how they share it.
template <class F>
double share_a_core(CpuGroups& groups, F tune) {
  std::atomic<bool> stop{false};
  std::barrier ready(2);
  std::chrono::nanoseconds used[2]{};
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&, i] {
        CpuGroup* group = groups.take();
        ASSERT_TRUE(group && group->enter().has_value());
        tune(*group, i);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(0, &one);
        ASSERT_EQ(::sched_setaffinity(0, sizeof(one), &one), 0);
        ready.arrive_and_wait();
        while (!stop.load(std::memory_order_relaxed)) {
        }
        timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        used[i] = std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1'000));
    stop = true;
  }
  return static_cast<double>(used[0].count()) / static_cast<double>(used[1].count());
}

TEST(CpuGroups, ThreadsShareACoreByWeight) {
  GROUPS_OR_SKIP(groups, 2);
  const double ratio = share_a_core(
      *groups, [](CpuGroup& group, int i) { EXPECT_TRUE(group.set_weight(i == 0 ? 300 : 100).has_value()); });
  EXPECT_GT(ratio, 2.0);
  EXPECT_LT(ratio, 4.5);
}

TEST(CpuGroups, NothingIsLeft) {
  fs::path directory;
  {
    GROUPS_OR_SKIP(groups, 4);
    directory = groups->directory();
    EXPECT_TRUE(fs::exists(directory / "seat-3"));
    std::jthread([&] { EXPECT_TRUE(groups->take()->enter().has_value()); });
  }
  EXPECT_FALSE(fs::exists(directory));
}

TEST(CpuGroups, WhatAKilledHostLeavesGoesWithTheNext) {
  GROUPS_OR_SKIP(mine, 1);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    auto groups = CpuGroups::make(1);
    if (!groups || !groups->take()->enter()) ::_exit(1);
    const std::string path = groups->directory().string();
    if (::write(pipe[1], path.data(), path.size()) < 0) ::_exit(1);
    ::close(pipe[1]);
    ::pause();
    ::_exit(0);
  }
  ::close(pipe[1]);
  const auto path = read_all(pipe[0], 4096);
  ::close(pipe[0]);
  ASSERT_TRUE(path.has_value());
  const fs::path theirs{std::string(as_text(*path))};
  EXPECT_TRUE(fs::exists(theirs / "seat-0"));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(theirs));
  const auto next = CpuGroups::make(1);
  EXPECT_FALSE(next.has_value()) << "this process has its groups";
  EXPECT_FALSE(fs::exists(theirs));
}

}  // namespace
}  // namespace spore::isolation
