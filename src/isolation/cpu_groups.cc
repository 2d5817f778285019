#include "isolation/cpu_groups.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <string_view>
#include <thread>

#include "isolation/cgroup_place.h"

namespace spore::isolation {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "spore-";
constexpr auto kRemovePatience = std::chrono::seconds(5);

Result<void> write_text(const fs::path& path, std::string_view text, int flags) {
  const UniqueFd file(::open(path.c_str(), flags, 0600));
  if (!file.valid()) return fail_errno("open " + path.string());
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno("write " + std::string(text) + " to " + path.string());
  return {};
}

// When the process began, as its status file counts; nothing: there is no such process.
std::optional<std::string> start_of(const fs::path& process) {
  const auto status = read_text(process / "stat");
  if (!status) return std::nullopt;
  const size_t name_end = status->rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  const auto fields = split(status->substr(name_end + 1), ' ');  // the first is empty, then field 3, ...
  constexpr size_t kStartTime = 22 - 2;
  return fields.size() > kStartTime ? std::optional(fields[kStartTime]) : std::nullopt;
}

// Whether they are gone.
bool remove_groups(const fs::path& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.is_directory(error)) ::rmdir(entry.path().c_str());
  return ::rmdir(directory.c_str()) == 0 || errno == ENOENT;
}

// Of hosts that are gone.
void remove_left(const fs::path& place, const fs::path& processes) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(place, error)) {
    const auto parts = split(entry.path().filename().string(), '-');
    if (parts.size() != 3 || parts[0] + "-" != kPrefix) continue;
    if (start_of(processes / parts[1]) != parts[2]) remove_groups(entry.path());
  }
}

std::string weight_text(uint32_t weight, bool version_2) {
  return std::to_string(version_2 ? weight : std::max(2u, weight * 1024 / kCpuWeightDefault));
}
constexpr const char* weight_name(bool version_2) { return version_2 ? "cpu.weight" : "cpu.shares"; }
constexpr const char* threads_name(bool version_2) { return version_2 ? "cgroup.threads" : "tasks"; }

}  // namespace

Result<void> CpuGroup::enter() {
  // "0" is the writer itself; to name it would take milliseconds.
  if (::pwrite(threads_.get(), "0", 1, 0) != 1) return fail_errno("enter a cgroup");
  return {};
}

Result<void> CpuGroup::write_weight(uint32_t weight) {
  const std::string text = weight_text(weight, version_2_);
  if (::pwrite(weight_file_.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail_errno("set a cgroup's weight to " + text);
  weight_ = weight;
  return {};
}

Result<CpuGroups> CpuGroups::make(unsigned count, const Places& places) {
  auto place = find_cgroup(places.process, "cpu");
  if (!place) return std::unexpected(std::move(place).error());
  remove_left(place->directory, places.processes);
  const auto start = start_of(places.process);
  if (!start) return fail(ErrorCode::kUnavailable, "read " + (places.process / "stat").string());
  CpuGroups out(place->directory / (std::string(kPrefix) + std::to_string(::getpid()) + "-" + *start),
                place->version_2);
  if (::mkdir(out.directory_.c_str(), 0755) != 0) {
    const int error = errno;
    const std::string what = "make the cgroup " + out.directory_.string();
    out.directory_.clear();
    return fail(ErrorCode::kUnavailable, fail_errno(what, error).error().message);
  }
  if (const auto added = out.add_groups(count, places); !added)
    return fail(ErrorCode::kUnavailable, added.error().message);
  return out;
}

Result<void> CpuGroups::add_groups(unsigned count, const Places& places) {
  const int flags = places.open_flags;
  if (version_2_) {
    // A threaded group makes its parent a domain of threads, which may hold the host beside them and still hand on the
    // cpu controller.
    TRY(write_text(directory_ / "cgroup.type", "threaded", flags));
    TRY(write_text(directory_.parent_path() / "cgroup.subtree_control", "+cpu", flags));
    TRY(write_text(directory_ / "cgroup.subtree_control", "+cpu", flags));
  }
  const uint32_t all = std::min(kCpuWeightMax, kCpuWeightDefault * std::max(1u, count));
  TRY(write_text(directory_ / weight_name(version_2_), weight_text(all, version_2_), flags));
  for (unsigned i = 0; i < count; ++i) TRY(add_group("seat-" + std::to_string(i), flags));
  TRY(add_group("watchdog", flags));
  return watchdog().set_weight(kCpuWeightMax);
}

Result<void> CpuGroups::add_group(const std::string& name, int open_flags) {
  const fs::path group = directory_ / name;
  if (::mkdir(group.c_str(), 0755) != 0) return fail_errno("make the cgroup " + group.string());
  if (version_2_) TRY(write_text(group / "cgroup.type", "threaded", open_flags));
  UniqueFd threads(::open((group / threads_name(version_2_)).c_str(), open_flags, 0600));
  UniqueFd weight(::open((group / weight_name(version_2_)).c_str(), open_flags, 0600));
  if (!threads.valid() || !weight.valid()) return fail_errno("open the files of the cgroup " + group.string());
  groups_.emplace_back(std::move(threads), std::move(weight), version_2_);
  return {};
}

CpuGroups::CpuGroups(CpuGroups&& other) noexcept
    : directory_(std::exchange(other.directory_, {})),
      version_2_(other.version_2_),
      groups_(std::move(other.groups_)),
      taken_(other.taken_.load()) {}

CpuGroups::~CpuGroups() {
  if (!directory_.empty()) remove_groups(directory_);
}

CpuGroupsRemover::~CpuGroupsRemover() {
  if (directory_.empty() || ::getpid() == made_by_) return;
  const auto until = std::chrono::steady_clock::now() + kRemovePatience;
  while (!remove_groups(directory_) && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

CpuGroup* CpuGroups::take() {
  const size_t index = taken_.fetch_add(1, std::memory_order_relaxed);
  return index + 1 < groups_.size() ? &groups_[index] : nullptr;
}

}  // namespace spore::isolation
