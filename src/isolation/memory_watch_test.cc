// Against the kernel's own files where this machine has them, and against a directory in their place.
#include "isolation/memory_watch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <fstream>
#include <mutex>

namespace spore::isolation {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using Clock = MemoryJudge::Clock;

constexpr uint64_t kMiB = 1 << 20;

void write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::string text_of(const fs::path& path) {
  const auto bytes = read_file(path);
  return bytes ? std::string(as_text(*bytes)) : "<" + bytes.error().message + ">";
}

// A directory that looks like /proc and /sys/fs/cgroup.
class MemoryFiles : public ::testing::Test {
 protected:
  MemoryFiles() {
    std::string name = (fs::temp_directory_path() / "spore-memory-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    places_ = {.process = root_ / "self", .meminfo = root_ / "meminfo", .pressure = root_ / "pressure"};
    put_available(4'096);
  }
  ~MemoryFiles() override { fs::remove_all(root_); }

  void put_available(uint64_t mib) {
    write(places_.meminfo, "MemTotal:        8388608 kB\nMemFree:          100 kB\nMemAvailable:   " +
                               std::to_string(mib << 10) + " kB\nSwapTotal: 0 kB\n");
  }
  void put_version_2() {
    write(places_.process / "cgroup", "0::/system.slice/spore.service\n");
    write(places_.process / "mountinfo", "35 25 0:30 / " + root_.string() + "/sys rw - cgroup2 cgroup2 rw\n");
    group_ = root_ / "sys/system.slice/spore.service";
    write(group_ / "cgroup.controllers", "cpu memory pids\n");
    write(group_ / "memory.max", "max\n");
    write(group_ / "memory.current", "0\n");
  }
  void put_version_1() {
    write(places_.process / "cgroup", "9:cpu:/a\n4:memory:/outer/inner\n0::/\n");
    write(places_.process / "mountinfo", "35 31 0:32 / " + root_.string() + "/memory rw - cgroup cgroup rw,memory\n");
    group_ = root_ / "memory/outer/inner";
    write(group_ / "memory.limit_in_bytes", "9223372036854771712\n");
    write(root_ / "memory/memory.limit_in_bytes", "9223372036854771712\n");
  }

  fs::path root_, group_;
  MemoryPlaces places_;
};

TEST_F(MemoryFiles, WithoutCgroupsTheMachineIsTheBound) {
  const MemorySupply supply(places_);
  EXPECT_EQ(supply.in_all().bytes, 8'192 * kMiB);
  EXPECT_EQ(supply.left().bytes, 4'096 * kMiB);
  EXPECT_EQ(supply.left().bound_by, "the machine");
  fs::remove(places_.meminfo);
  EXPECT_EQ(supply.left().bytes, 0u) << "nothing is known to be left";
}

TEST_F(MemoryFiles, Version2CountsTheTightestGroupAbove) {
  put_version_2();
  const MemorySupply supply(places_);
  EXPECT_EQ(supply.in_all().bytes, 8'192 * kMiB);
  const fs::path slice = group_.parent_path();
  write(slice / "memory.max", std::to_string(2'000 * kMiB) + "\n");
  write(slice / "memory.current", std::to_string(1'500 * kMiB) + "\n");
  write(slice / "memory.stat", "anon 1\nfile 2\nactive_file 7\ninactive_file " + std::to_string(300 * kMiB) + "\n");
  write(group_ / "memory.max", std::to_string(1'900 * kMiB) + "\n");
  write(group_ / "memory.current", std::to_string(1'000 * kMiB) + "\n");
  EXPECT_EQ(supply.in_all().bytes, 1'900 * kMiB);
  EXPECT_EQ(supply.left().bytes, 800 * kMiB);
  EXPECT_EQ(supply.left().bound_by, slice.string());
  write(group_ / "memory.current", std::to_string(1'950 * kMiB) + "\n");
  EXPECT_EQ(supply.left().bytes, 0u);
  EXPECT_EQ(supply.left().bound_by, group_.string());
  put_available(0);
  EXPECT_EQ(supply.left().bytes, 0u);
}

TEST_F(MemoryFiles, Version1CountsTheTightestGroupAbove) {
  put_version_1();
  const MemorySupply supply(places_);
  EXPECT_EQ(supply.left().bytes, 4'096 * kMiB) << "no limit is a very large one";
  const fs::path outer = group_.parent_path();
  write(outer / "memory.limit_in_bytes", std::to_string(1'000 * kMiB) + "\n");
  write(outer / "memory.usage_in_bytes", std::to_string(900 * kMiB) + "\n");
  write(outer / "memory.stat", "inactive_file 5\ntotal_inactive_file " + std::to_string(100 * kMiB) + "\n");
  EXPECT_EQ(supply.in_all().bound_by, outer.string());
  EXPECT_EQ(supply.left().bytes, 200 * kMiB);
}

TEST(PressureFileText, IsParsed) {
  const auto both = PressureFile::parse(
      "some avg10=12.34 avg60=1.00 avg300=0.50 total=3394221\nfull avg10=3.05 avg60=0.00 avg300=0.00 total=2268927\n");
  ASSERT_TRUE(both.has_value()) << both.error().message;
  EXPECT_DOUBLE_EQ(both->some, 12.34);
  EXPECT_DOUBLE_EQ(both->full, 3.05);
  EXPECT_TRUE(PressureFile::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=0").has_value());
  for (const char* wrong : {"", "\n", "full avg10=1.00 total=1\n", "some avg60=1.00\n", "some avg10=x\n",
                            "some avg10=-1\n", "some avg10=101\n", "some avg10=nan\n", "other avg10=1\n"})
    EXPECT_FALSE(PressureFile::parse(wrong).has_value()) << wrong;
}

TEST_F(MemoryFiles, ATriggerIsWrittenAsTheKernelWantsIt) {
  write(places_.pressure, "");
  const auto file = PressureFile::open(places_.pressure, milliseconds(150), milliseconds(1'000));
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(text_of(places_.pressure), std::string("some 150000 1000000", 20)) << "with its NUL";
  const auto none = PressureFile::open(root_ / "nothing", milliseconds(150), milliseconds(1'000));
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(none.error().message.find("nothing"), std::string::npos);
}

TEST(PressureFileOfTheKernel, TakesTheTrigger) {
  const MemoryPlaces places;
  if (!fs::exists(places.pressure)) GTEST_SKIP() << "this kernel has no " << places.pressure;
  const auto averages = PressureFile::read(places.pressure);
  ASSERT_TRUE(averages.has_value()) << averages.error().message;
  const auto file = PressureFile::open(places.pressure, milliseconds(150), milliseconds(1'000));
  EXPECT_TRUE(file.has_value()) << file.error().message;
  // A window that it does not give at all.
  EXPECT_FALSE(PressureFile::open(places.pressure, milliseconds(3'000), milliseconds(2'000)).has_value());
}

TEST(MemoryJudge, WhatIsLeftDecidesAndACalmMustLast) {
  MemoryJudge judge(100);
  Clock::time_point now;
  const auto look = [&](uint64_t left) { return judge.look({.left_bytes = left}, now += milliseconds(250)); };
  EXPECT_EQ(look(100), MemoryLevel::kCalm);
  EXPECT_EQ(look(99), MemoryLevel::kTight);
  EXPECT_EQ(look(49), MemoryLevel::kShort);
  EXPECT_EQ(look(60), MemoryLevel::kTight);
  EXPECT_EQ(look(124), MemoryLevel::kTight) << "it would begin again at once";
  EXPECT_EQ(look(125), MemoryLevel::kCalm);
  EXPECT_EQ(look(101), MemoryLevel::kCalm);
}

TEST(MemoryJudge, AStallCountsForAWhileAndOthersStallsOnlyWhereMemoryIsScarce) {
  MemoryJudge judge(100);
  Clock::time_point now;
  EXPECT_EQ(judge.look({.machine_stalls = true, .left_bytes = 400}, now), MemoryLevel::kCalm);
  EXPECT_EQ(judge.look({.machine_stalls = true, .left_bytes = 399}, now), MemoryLevel::kTight);
  EXPECT_EQ(judge.look({.left_bytes = 399}, now + milliseconds(2'000)), MemoryLevel::kTight);
  EXPECT_EQ(judge.look({.left_bytes = 99}, now + milliseconds(2'000)), MemoryLevel::kShort);
  EXPECT_EQ(judge.look({.left_bytes = 399}, now + milliseconds(2'500)), MemoryLevel::kCalm);
  EXPECT_EQ(judge.look({.group_stalls = true, .left_bytes = 10'000}, now + milliseconds(3'000)), MemoryLevel::kTight);
  EXPECT_EQ(judge.look({.left_bytes = 10'000}, now + milliseconds(6'000)), MemoryLevel::kCalm);
}

TEST_F(MemoryFiles, AWatchTellsOfShortageAndOfItsEndAlsoWithoutAPressureFile) {
  put_version_2();
  MemoryWatch watch({.places = places_, .left_min_bytes = 0, .interval = milliseconds(1)});
  EXPECT_EQ(watch.left_min_bytes(), 8'192 * kMiB / 20);
  EXPECT_NE(watch.how().find("no stalls"), std::string::npos) << watch.how();
  EXPECT_NE(watch.how().find("memory.pressure"), std::string::npos) << watch.how();
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<MemoryLevel> levels;
  watch.start([&](MemoryLevel level) {
    const std::scoped_lock lock(mutex);
    levels.push_back(level);
    changed.notify_all();
  });
  const auto wait_for = [&](MemoryLevel level) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(30), [&] { return !levels.empty() && levels.back() == level; });
  };
  // Replaced as a whole: it is read meanwhile.
  const auto replace_available = [&](uint64_t mib) {
    const fs::path kept = places_.meminfo;
    places_.meminfo = root_ / "next";
    put_available(mib);
    fs::rename(places_.meminfo, kept);
    places_.meminfo = kept;
  };
  replace_available(300);
  EXPECT_TRUE(wait_for(MemoryLevel::kTight));
  replace_available(100);
  EXPECT_TRUE(wait_for(MemoryLevel::kShort));
  EXPECT_EQ(watch.stats().left_bytes, 100 * kMiB);
  replace_available(4'096);
  EXPECT_TRUE(wait_for(MemoryLevel::kCalm));
  watch.stop();
  EXPECT_EQ(watch.stats().level, MemoryLevel::kCalm);
  EXPECT_GE(watch.stats().tight, 2u);
}

}  // namespace
}  // namespace spore::isolation
