// Which directories the calls of a function see: its local layer, /spore, and the mounts of its configuration.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "functions/function.h"
#include "functions/shared_files.h"
#include "host/host_state.h"

namespace spore::worker {

// A directory of the host that its administrator lets functions mount, by name.
struct HostDirectory {
  std::string path;
  host::Access access = host::Access::kReadOnly;
};

// Where mounts come from. Outlives who has it; any thread.
struct FileRoots {
  const functions::SharedFiles* shared_files = nullptr;  // null: there are none
  std::map<std::string, HostDirectory> directories;
};

// "/" where the function has a local layer, "/spore", then the mounts; "/" and "/spore" only where this process can
// make them. kInvalidArgument: a mount of something that does not exist, named.
Result<std::vector<host::Preopen>> file_view(const functions::FunctionId& function,
                                             const functions::FunctionConfig& config, const FileRoots& roots);

}  // namespace spore::worker
