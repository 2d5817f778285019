// Where the host is in the tree of cgroups, as /proc/self/cgroup and /proc/self/mountinfo say (Linux,
// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/), and how their files are read.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spore::isolation {

struct CgroupPlace {
  std::filesystem::path directory;  // the host's own group
  std::filesystem::path mount;      // that is at or below this: where the hierarchy can be seen from
  bool version_2 = false;
};

// In the hierarchy that has the controller: version 2 where it is available to the host there, else version 1.
// `process`: /proc/self, or a test's. kUnavailable: in neither.
Result<CgroupPlace> find_cgroup(const std::filesystem::path& process, std::string_view controller);

Result<std::string> read_text(const std::filesystem::path& path);
std::vector<std::string> split(const std::string& text, char separator);

}  // namespace spore::isolation
