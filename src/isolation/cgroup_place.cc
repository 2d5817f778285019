#include "isolation/cgroup_place.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <sstream>

#include "base/fd.h"

namespace spore::isolation {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kProcFileBytesMax = 4 << 20;

bool has(const std::vector<std::string>& parts, std::string_view part) {
  return std::ranges::find(parts, part) != parts.end();
}

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
std::optional<CgroupPlace> place_in(const std::string& mountinfo, bool version_2, std::string_view controller,
                                    const std::string& path) {
  for (const std::string& line : split(mountinfo, '\n')) {
    const auto fields = split(line, ' ');
    const auto dash = std::ranges::find(fields, "-");
    if (fields.size() < 6 || fields.end() - dash < 4) continue;
    if (*(dash + 1) != (version_2 ? "cgroup2" : "cgroup")) continue;
    if (!version_2 && !has(split(*(dash + 3), ','), controller)) continue;
    const fs::path root = unescaped(fields[3]);
    const fs::path below = fs::path(path).lexically_relative(root);
    if (below.empty() || *below.begin() == "..") continue;
    const fs::path mount = unescaped(fields[4]);
    // Without a slash at its end, so that its parent is the parent.
    return CgroupPlace{below == "." ? mount : (mount / below).lexically_normal(), mount, version_2};
  }
  return std::nullopt;
}

}  // namespace

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

Result<CgroupPlace> find_cgroup(const fs::path& process, std::string_view controller) {
  ASSIGN_OR_RETURN(const std::string memberships, read_text(process / "cgroup"));
  ASSIGN_OR_RETURN(const std::string mountinfo, read_text(process / "mountinfo"));
  std::optional<CgroupPlace> version_1;
  for (const std::string& line : split(memberships, '\n')) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty() && line.starts_with("0:");
    if (!version_2 && !has(split(controllers, ','), controller)) continue;
    const auto place = place_in(mountinfo, version_2, controller, line.substr(second + 1));
    if (!place) continue;
    if (!version_2) {
      version_1 = place;
    } else if (const auto available = read_text(place->directory / "cgroup.controllers");
               available && has(split(available->substr(0, available->find('\n')), ' '), controller)) {
      return *place;
    }
  }
  if (version_1) return *version_1;
  return fail(ErrorCode::kUnavailable, "the host is in no cgroup with a " + std::string(controller) + " controller");
}

}  // namespace spore::isolation
