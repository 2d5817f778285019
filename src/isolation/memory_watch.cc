#include "isolation/memory_watch.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace spore::isolation {

namespace fs = std::filesystem;

namespace {

// Some task waited for 150 ms of the last second: a reclaim that others notice, not one that keeps up.
constexpr auto kStall = std::chrono::milliseconds(150);
constexpr auto kWindow = std::chrono::seconds(1);
// The kernel gives windows of whole multiples of this to everybody (kernel/sched/psi.c, WINDOW_MULTIPLE).
constexpr auto kWindowOfAll = std::chrono::seconds(2);
constexpr int kGroupsMax = 64;

std::optional<uint64_t> number_behind(std::string_view text, std::string_view name) {
  for (size_t at = text.find(name); at != std::string_view::npos; at = text.find(name, at + 1)) {
    if (at != 0 && text[at - 1] != '\n') continue;
    const size_t digits = text.find_first_not_of(" \t", at + name.size());
    if (digits == std::string_view::npos || digits == at + name.size()) continue;
    uint64_t value = 0;
    const auto parsed = std::from_chars(text.data() + digits, text.data() + text.size(), value);
    if (parsed.ec == std::errc()) return value;
  }
  return std::nullopt;
}

// The number that a file consists of; nothing for "max" or where there is no such file.
std::optional<uint64_t> number_in(const fs::path& path) {
  const auto text = read_text(path);
  uint64_t value = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<uint64_t> limit_of(const fs::path& group, bool version_2) {
  const auto limit = number_in(group / (version_2 ? "memory.max" : "memory.limit_in_bytes"));
  constexpr uint64_t kNone = 1ull << 62;  // version 1 says the largest number of whole pages
  return limit && *limit < kNone ? limit : std::nullopt;
}

// What cannot be dropped at once: all but pages of files that nobody has looked at lately.
uint64_t used_by(const fs::path& group, bool version_2) {
  const uint64_t used = number_in(group / (version_2 ? "memory.current" : "memory.usage_in_bytes")).value_or(0);
  const auto stat = read_text(group / "memory.stat");
  const uint64_t files =
      stat ? number_behind(*stat, version_2 ? "inactive_file" : "total_inactive_file").value_or(0) : 0;
  return used - std::min(used, files);
}

std::string names_of(const auto& files) {
  std::string out;
  for (const auto& watched : files) out += (out.empty() ? "" : ", ") + watched.file.path().string();
  return out;
}

}  // namespace

// ---- supply ---------------------------------------------------------------------------------------------------------

MemorySupply::MemorySupply(const MemoryPlaces& places) : meminfo_(places.meminfo) {
  auto group = find_cgroup(places.process, "memory");
  if (!group) return;
  group_ = std::move(*group);
  fs::path at = group_->directory;
  for (int i = 0; i < kGroupsMax; ++i) {
    groups_.push_back(at);
    if (at == group_->mount || at == at.parent_path()) break;
    at = at.parent_path();
  }
}

MemorySupply::Amount MemorySupply::in_all() const {
  const auto text = read_text(meminfo_);
  Amount out{text ? number_behind(*text, "MemTotal:").value_or(0) << 10 : 0, "the machine"};
  for (const fs::path& group : groups_)
    if (const auto limit = limit_of(group, group_->version_2); limit && *limit < out.bytes)
      out = {*limit, group.string()};
  return out;
}

MemorySupply::Amount MemorySupply::left() const {
  const auto text = read_text(meminfo_);
  Amount out{text ? number_behind(*text, "MemAvailable:").value_or(0) << 10 : 0, "the machine"};
  for (const fs::path& group : groups_) {
    const auto limit = limit_of(group, group_->version_2);
    if (!limit) continue;
    const uint64_t left = *limit - std::min(*limit, used_by(group, group_->version_2));
    if (left < out.bytes) out = {left, group.string()};
  }
  return out;
}

// ---- pressure -------------------------------------------------------------------------------------------------------

Result<PressureFile> PressureFile::open(const fs::path& path, std::chrono::microseconds stall,
                                        std::chrono::microseconds window) {
  const auto attempt = [&](std::chrono::microseconds stalled, std::chrono::microseconds within) -> Result<UniqueFd> {
    UniqueFd file(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!file.valid()) return fail_errno("open " + path.string());
    const std::string trigger = "some " + std::to_string(stalled.count()) + " " + std::to_string(within.count());
    const size_t size = trigger.size() + 1;  // with its NUL
    if (::write(file.get(), trigger.c_str(), size) != static_cast<ssize_t>(size))
      return fail_errno("write the trigger \"" + trigger + "\" to " + path.string());
    return file;
  };
  auto file = attempt(stall, window);
  if (!file && window != kWindowOfAll) {
    constexpr auto kUs = std::chrono::microseconds(kWindowOfAll);
    if (auto again = attempt(stall * kUs.count() / window.count(), kUs)) file = std::move(again);
  }
  if (!file) return fail(ErrorCode::kUnavailable, file.error().message);
  return PressureFile(std::move(*file), path);
}

Result<PressureFile::Averages> PressureFile::parse(std::string_view text) {
  Averages out;
  bool has_some = false;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.empty()) continue;
    const bool some = line.starts_with("some ");
    constexpr std::string_view kName = " avg10=";
    const size_t at = line.find(kName);
    double value = 0;
    if ((!some && !line.starts_with("full ")) || at == std::string_view::npos ||
        std::from_chars(line.data() + at + kName.size(), line.data() + line.size(), value).ec != std::errc() ||
        !(value >= 0 && value <= 100))
      return fail(ErrorCode::kInvalidArgument, "not a line of a pressure file: " + std::string(line.substr(0, 100)));
    (some ? out.some : out.full) = value;
    has_some = has_some || some;
  }
  if (!has_some) return fail(ErrorCode::kInvalidArgument, "a pressure file without a line of some");
  return out;
}

Result<PressureFile::Averages> PressureFile::read(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(path));
  return parse(text);
}

// ---- judging --------------------------------------------------------------------------------------------------------

std::string_view to_string(MemoryLevel level) {
  switch (level) {
    case MemoryLevel::kCalm: return "calm";
    case MemoryLevel::kTight: return "tight";
    case MemoryLevel::kShort: return "short";
  }
  return "";
}

MemoryLevel MemoryJudge::look(const Seen& seen, Clock::time_point now) {
  if (seen.group_stalls || (seen.machine_stalls && seen.left_bytes / kConcernedBelow < left_min_)) stalled_at_ = now;
  const bool stalls = stalled_at_ && now - *stalled_at_ < kStallLasts;
  // It is over when there is a quarter more than that, or it would begin again at once.
  tight_ = stalls || seen.left_bytes < (tight_ ? left_min_ + left_min_ / 4 : left_min_);
  if (!tight_) return MemoryLevel::kCalm;
  return seen.left_bytes < left_min_ / 2 || (stalls && seen.left_bytes < left_min_) ? MemoryLevel::kShort
                                                                                    : MemoryLevel::kTight;
}

// ---- watching -------------------------------------------------------------------------------------------------------

MemoryWatch::MemoryWatch(MemoryWatchOptions options)
    : options_(std::move(options)), supply_(options_.places), wakes_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  left_min_ = options_.left_min_bytes ? options_.left_min_bytes : supply_.in_all().bytes / 20;
  left_bytes_ = supply_.left().bytes;
  std::string why_not;
  const auto add = [&](const fs::path& path, bool own_group) {
    auto file = PressureFile::open(path, kStall, kWindow);
    if (file)
      files_.push_back({std::move(*file), own_group});
    else
      why_not += (why_not.empty() ? "" : "; ") + file.error().message;
  };
  if (supply_.group() && supply_.group()->version_2) add(supply_.group()->directory / "memory.pressure", true);
  add(options_.places.pressure, false);
  how_ = files_.empty() ? "the kernel tells of no stalls (" + why_not + "); what is left is looked at every " +
                              std::to_string(options_.interval.count()) + " ms"
                        : "the kernel tells of stalls in " + names_of(files_);
}

MemoryWatch::~MemoryWatch() { stop(); }

void MemoryWatch::start(std::function<void(MemoryLevel)> look) {
  look_ = std::move(look);
  thread_ = std::thread([this] { loop(); });
}

void MemoryWatch::stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  ::eventfd_write(wakes_.get(), 1);
  thread_.join();
}

void MemoryWatch::loop() {
  MemoryJudge judge(left_min_);
  while (!stopping_) {
    std::vector<pollfd> polled{{wakes_.get(), POLLIN, 0}};
    for (const Watched& watched : files_) polled.push_back({watched.file.fd(), POLLPRI, 0});
    // A failure shows as no event: then this is only a look at what is left.
    if (::poll(polled.data(), polled.size(), static_cast<int>(options_.interval.count())) < 0)
      for (pollfd& each : polled) each.revents = 0;
    if (stopping_) return;
    MemoryJudge::Seen seen;
    for (size_t i = files_.size(); i-- > 0;) {
      const short events = polled[i + 1].revents;
      if (events & (POLLERR | POLLNVAL)) {
        spdlog::warn("{} tells of no more stalls", files_[i].file.path().string());
        files_.erase(files_.begin() + static_cast<ptrdiff_t>(i));
      } else if (events & POLLPRI) {
        (files_[i].own_group ? seen.group_stalls : seen.machine_stalls) = true;
        stalls_.fetch_add(1, std::memory_order_relaxed);
      }
    }
    seen.left_bytes = supply_.left().bytes;
    left_bytes_.store(seen.left_bytes, std::memory_order_relaxed);
    const MemoryLevel level = judge.look(seen, MemoryJudge::Clock::now());
    const MemoryLevel before = level_.exchange(level);
    if (level != MemoryLevel::kCalm) tight_.fetch_add(1, std::memory_order_relaxed);
    if (level != before)
      spdlog::log(level == MemoryLevel::kCalm ? spdlog::level::info : spdlog::level::warn,
                  "memory is {}: {} MiB are left", to_string(level), seen.left_bytes >> 20);
    if (level != MemoryLevel::kCalm || level != before) look_(level);
  }
}

MemoryWatchStats MemoryWatch::stats() const {
  return {.level = level_.load(),
          .left_bytes = left_bytes_.load(std::memory_order_relaxed),
          .stalls = stalls_.load(std::memory_order_relaxed),
          .tight = tight_.load(std::memory_order_relaxed)};
}

}  // namespace spore::isolation
