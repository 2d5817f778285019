// Cgroups for the threads that run guests: a group for each, so that a thread's weight is its own.
//
//   where the host is --> spore-PID-START --> seat-0, seat-1, ..., watchdog
//
// The group of all has as much weight as its threads have together. One more group is for the thread that ends calls
// when their time is up: it has as much weight as there is, so that guests cannot keep it from ending them. Where the
// host is in the tree of cgroups is found in /proc/self/cgroup and /proc/self/mountinfo; it needs the right to make
// directories there: root's, or a delegated tree. Version 2 where its cpu controller is available there (threaded
// groups), else version 1. (Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.)
//
// Weights alone: a cgroup's quota stops a thread wherever it is, with whatever it holds; guests' shares of a core are
// kept by faaslet/cpu_limit.h.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace spore::isolation {

constexpr uint32_t kCpuWeightDefault = 100;
constexpr uint32_t kCpuWeightMax = 10'000;  // from 1

// For a process that was forked after it was made (isolation/broker.h), and there alone: at its end it removes the
// groups below `directory` and then that, when their threads are gone, for which it waits a few seconds. The host
// itself may not do so any more then, or is dead.
class CpuGroupsRemover {
 public:
  explicit CpuGroupsRemover(std::filesystem::path directory) : directory_(std::move(directory)), made_by_(::getpid()) {}
  CpuGroupsRemover(CpuGroupsRemover&& other) noexcept
      : directory_(std::exchange(other.directory_, {})), made_by_(other.made_by_) {}
  CpuGroupsRemover& operator=(CpuGroupsRemover&&) = delete;
  ~CpuGroupsRemover();

 private:
  std::filesystem::path directory_;  // empty: moved from
  pid_t made_by_;
};

// The group of one thread. Used by that thread alone.
class CpuGroup {
 public:
  CpuGroup(UniqueFd threads, UniqueFd weight, bool version_2)
      : threads_(std::move(threads)), weight_file_(std::move(weight)), version_2_(version_2) {}

  // The calling thread is in it from now on.
  Result<void> enter();
  // Of the thread among those that want the same core; does nothing where it has that weight.
  Result<void> set_weight(uint32_t weight) {
    if (weight == weight_) return {};
    return write_weight(weight);
  }
  uint32_t weight() const { return weight_; }

 private:
  Result<void> write_weight(uint32_t weight);

  UniqueFd threads_;
  UniqueFd weight_file_;
  bool version_2_;
  uint32_t weight_ = kCpuWeightDefault;
};

class CpuGroups {
 public:
  // Where it looks; others than the kernel's own are for tests.
  struct Places {
    std::filesystem::path process = "/proc/self";
    std::filesystem::path processes = "/proc";  // of the owners of groups that were left behind
    int open_flags = O_WRONLY | O_CLOEXEC;
  };

  // Groups for `count` threads. Removes what hosts that ended without it have left in the same place. kUnavailable:
  // this machine has no cpu controller here, or the host may not use it; the message says which.
  static Result<CpuGroups> make(unsigned count, const Places& places);
  static Result<CpuGroups> make(unsigned count) { return make(count, Places()); }
  // Removes the groups, which no thread may be in any more.
  ~CpuGroups();
  CpuGroups(CpuGroups&& other) noexcept;
  CpuGroups& operator=(CpuGroups&&) = delete;

  // One that nobody has yet; null: all are taken. Any thread.
  CpuGroup* take();
  // Of the thread that ends calls.
  CpuGroup& watchdog() { return groups_.back(); }

  bool version_2() const { return version_2_; }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  CpuGroups(std::filesystem::path directory, bool version_2)
      : directory_(std::move(directory)), version_2_(version_2) {}
  Result<void> add_groups(unsigned count, const Places& places);
  Result<void> add_group(const std::string& name, int open_flags);

  std::filesystem::path directory_;  // empty: moved from
  bool version_2_ = false;
  std::deque<CpuGroup> groups_;  // each stays where it is; the watchdog's is the last
  std::atomic<size_t> taken_{0};
};

}  // namespace spore::isolation
