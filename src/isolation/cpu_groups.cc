#include "isolation/cpu_groups.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

namespace spore::isolation {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "spore-";
constexpr auto kRemovePatience = std::chrono::seconds(5);
constexpr uint64_t kProcFileBytesMax = 4 << 20;

Result<std::string> read_text(const fs::path& path) {
  ASSIGN_OR_RETURN(const Bytes bytes, read_file(path, kProcFileBytesMax));
  return std::string(as_text(bytes));
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) out.push_back(part);
  return out;
}

bool has(const std::vector<std::string>& parts, std::string_view part) {
  return std::ranges::find(parts, part) != parts.end();
}

Result<void> write_text(const fs::path& path, std::string_view text, int flags) {
  const UniqueFd file(::open(path.c_str(), flags, 0600));
  if (!file.valid()) return fail_errno("open " + path.string());
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return fail_errno("write " + std::string(text) + " to " + path.string());
  return {};
}

// A hierarchy of cgroups, and the host's place in it.
struct Place {
  fs::path directory;
  bool version_2 = false;
};

// mountinfo writes a space as \040, and so on.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] == '\\' && i + 4 <= text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ptr == text.data() + i + 4) {
      out += static_cast<char>(value);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The host's directory under a mount of that kind; nothing where the mount does not show it.
std::optional<fs::path> directory_of(const std::string& mountinfo, bool version_2, const std::string& path) {
  for (const std::string& line : split(mountinfo, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::ranges::find(fields, "-");
    if (fields.size() < 6 || fields.end() - dash < 4) continue;
    if (*(dash + 1) != (version_2 ? "cgroup2" : "cgroup")) continue;
    if (!version_2 && !has(split(*(dash + 3), ','), "cpu")) continue;
    const fs::path root = unescaped(fields[3]);
    const fs::path below = fs::path(path).lexically_relative(root);
    if (below.empty() || *below.begin() == "..") continue;
    return (fs::path(unescaped(fields[4])) / below).lexically_normal();
  }
  return std::nullopt;
}

Result<Place> find_place(const CpuGroups::Places& places) {
  ASSIGN_OR_RETURN(const std::string memberships, read_text(places.process / "cgroup"));
  ASSIGN_OR_RETURN(const std::string mountinfo, read_text(places.process / "mountinfo"));
  std::optional<Place> version_1;
  for (const std::string& line : split(memberships, '\n')) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty() && line.starts_with("0:");
    if (!version_2 && !has(split(controllers, ','), "cpu")) continue;
    const auto directory = directory_of(mountinfo, version_2, line.substr(second + 1));
    if (!directory) continue;
    if (!version_2) {
      version_1 = Place{*directory, false};
    } else if (const auto available = read_text(*directory / "cgroup.controllers");
               available && has(split(available->substr(0, available->find('\n')), ' '), "cpu")) {
      return Place{*directory, true};
    }
  }
  if (version_1) return *version_1;
  return fail(ErrorCode::kUnavailable, "the host is in no cgroup with a cpu controller");
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

Result<void> CpuGroup::write_idle(bool idle) {
  if (!idle_file_.valid()) return {};
  if (::pwrite(idle_file_.get(), idle ? "1" : "0", 1, 0) != 1) return fail_errno("set whether a cgroup is idle");
  idle_ = idle;
  return {};
}

Result<CpuGroups> CpuGroups::make(unsigned count, const Places& places) {
  auto place = find_place(places);
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
  UniqueFd idle(::open((group / "cpu.idle").c_str(), open_flags, 0600));
  groups_.emplace_back(std::move(threads), std::move(weight), std::move(idle), version_2_);
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
