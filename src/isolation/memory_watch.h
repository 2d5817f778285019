// How much memory this process can still get, and whether the machine, or the cgroup that the process is in, runs
// short.
//
//   MemorySupply   /proc/meminfo and the limits of the process's cgroups -> bytes that are left, and who bounds them
//   PressureFile   /proc/pressure/memory, memory.pressure of a cgroup of version 2 -> the kernel tells of stalls
//   MemoryWatch    a thread that looks at both and says how short memory is
//
// Stalls are told by the kernel's pressure stall information: a trigger is written to a pressure file, and poll(2) has
// POLLPRI when tasks have waited for memory longer than the trigger says within its window (Linux,
// Documentation/accounting/psi.rst). All is found, not assumed: where a kernel has no such files, what is left is all
// there is to go by.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "isolation/cgroup_place.h"

namespace spore::isolation {

// Where it looks; others than the kernel's own are for tests.
struct MemoryPlaces {
  std::filesystem::path process = "/proc/self";
  std::filesystem::path meminfo = "/proc/meminfo";
  std::filesystem::path pressure = "/proc/pressure/memory";
};

// What the process can have. Any thread.
class MemorySupply {
 public:
  explicit MemorySupply(const MemoryPlaces& places);

  struct Amount {
    uint64_t bytes = 0;
    std::string bound_by;  // "the machine", or the directory of a cgroup
  };
  // All: of the machine, or of a cgroup that has less.
  Amount in_all() const;
  // Left now: available to the machine, or what a cgroup has below its limit with what the kernel can drop.
  Amount left() const;
  // The host's own group, where it has a memory controller.
  const std::optional<CgroupPlace>& group() const { return group_; }

 private:
  std::filesystem::path meminfo_;
  std::optional<CgroupPlace> group_;
  std::vector<std::filesystem::path> groups_;  // the host's own and those above it
};

// A pressure file with a trigger.
class PressureFile {
 public:
  // Tells when tasks have waited for memory for `stall` within `window`. Where the kernel does not give that window to
  // a process without CAP_SYS_RESOURCE, the same share of two seconds. kUnavailable: there is no such file, or the
  // kernel takes no triggers.
  static Result<PressureFile> open(const std::filesystem::path& path, std::chrono::microseconds stall,
                                   std::chrono::microseconds window);
  int fd() const { return file_.get(); }
  const std::filesystem::path& path() const { return path_; }

  // What such a file says: the share of time that some, or all, tasks waited in the last ten seconds, in percent.
  struct Averages {
    double some = 0;
    double full = 0;
  };
  static Result<Averages> parse(std::string_view text);
  static Result<Averages> read(const std::filesystem::path& path);

 private:
  PressureFile(UniqueFd file, std::filesystem::path path) : file_(std::move(file)), path_(std::move(path)) {}
  UniqueFd file_;
  std::filesystem::path path_;
};

enum class MemoryLevel : uint8_t {
  kCalm,
  kTight,  // what is kept for speed alone should go
  kShort,  // and nothing should begin
};
std::string_view to_string(MemoryLevel level);

// What is seen at one time, and what follows. A function of these alone.
class MemoryJudge {
 public:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    bool group_stalls = false;    // told since the last look: in the host's own cgroup,
    bool machine_stalls = false;  // or somewhere on the machine
    uint64_t left_bytes = 0;
  };
  // Less than `left_min_bytes` left is tight.
  explicit MemoryJudge(uint64_t left_min_bytes) : left_min_(left_min_bytes) {}
  MemoryLevel look(const Seen& seen, Clock::time_point now);

  // Others may stall in cgroups of their own while there is plenty: that is no concern of the host's.
  static constexpr uint64_t kConcernedBelow = 4;  // times left_min
  // A stall is told once a window, and its end not at all.
  static constexpr auto kStallLasts = std::chrono::milliseconds(2'500);

 private:
  const uint64_t left_min_;
  std::optional<Clock::time_point> stalled_at_;
  bool tight_ = false;
};

struct MemoryWatchOptions {
  MemoryPlaces places;
  uint64_t left_min_bytes = 0;  // 0: a 20th of all
  std::chrono::milliseconds interval{250};
};

struct MemoryWatchStats {
  MemoryLevel level = MemoryLevel::kCalm;
  uint64_t left_bytes = 0;
  uint64_t stalls = 0;  // that the kernel told of
  uint64_t tight = 0;   // looks that found memory tight or short
};

class MemoryWatch {
 public:
  // Opens what takes privileges; nothing is watched before start().
  explicit MemoryWatch(MemoryWatchOptions options);
  ~MemoryWatch();
  MemoryWatch(const MemoryWatch&) = delete;
  MemoryWatch& operator=(const MemoryWatch&) = delete;

  const MemorySupply& supply() const { return supply_; }
  uint64_t left_min_bytes() const { return left_min_; }
  // How stalls are found out, or why they are not, for people.
  const std::string& how() const { return how_; }

  // From now on `look` is called, on a thread of this, each time that memory was found tight or short, and once when it
  // is calm again. It may take its time.
  void start(std::function<void(MemoryLevel)> look);
  void stop();
  MemoryWatchStats stats() const;

 private:
  struct Watched {
    PressureFile file;
    bool own_group = false;
  };
  void loop();

  const MemoryWatchOptions options_;
  MemorySupply supply_;
  uint64_t left_min_ = 0;
  std::vector<Watched> files_;
  std::string how_;
  UniqueFd wakes_;
  std::function<void(MemoryLevel)> look_;
  std::atomic<MemoryLevel> level_{MemoryLevel::kCalm};
  std::atomic<uint64_t> left_bytes_{0}, stalls_{0}, tight_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace spore::isolation
