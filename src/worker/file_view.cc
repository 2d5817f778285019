#include "worker/file_view.h"

namespace spore::worker {

Result<std::vector<host::Preopen>> file_view(const functions::FunctionId& function,
                                             const functions::FunctionConfig& config, const FileRoots& roots) {
  using Source = host::Preopen::Source;
  std::vector<host::Preopen> out;
  if (host::call_files()) {
    if (config.local_bytes_max > 0)
      out.push_back({.guest_path = "/", .access = host::Access::kReadWrite, .source = Source::kLocalLayer});
    out.push_back({.guest_path = "/spore", .source = Source::kCallFiles});
  }
  for (const auto& [at, what] : config.mounts) {
    const std::string name = what.substr(what.find(':') + 1);
    if (what.starts_with("files:")) {
      if (!roots.shared_files) return fail(ErrorCode::kInvalidArgument, "mounts: this host has no shared files");
      ASSIGN_OR_RETURN(auto path, roots.shared_files->directory_of(function.tenant, name));
      out.push_back({.host_path = std::move(path), .guest_path = at});
    } else {
      const auto found = roots.directories.find(name);
      if (found == roots.directories.end())
        return fail(ErrorCode::kInvalidArgument, "mounts: this host offers no directory \"" + name + "\"");
      out.push_back({.host_path = found->second.path, .guest_path = at, .access = found->second.access});
    }
  }
  return out;
}

}  // namespace spore::worker
