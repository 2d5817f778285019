// `spore tenant-process`: what the host starts for a tenant of its own (isolation = process). Not for people.
#include <spdlog/spdlog.h>

#include <cstdio>

#include "bin/commands.h"
#include "isolation/apart.h"
#include "processes/inside.h"

namespace spore::bin {

void add_tenant_process(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("tenant-process", "")->group("");
  command->callback([&exit_code] {
    spdlog::set_pattern("%v");  // the host says when, and whose
    const auto served = processes::serve_host(UniqueFd(isolation::kApartSocket));
    if (served) return;
    std::fprintf(stderr, "spore: the process of a tenant: %s\n", served.error().message.c_str());
    exit_code = 1;
  });
}

}  // namespace spore::bin
