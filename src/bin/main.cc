// The program `spore`: puts the parts together, one subcommand at a time.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>

#include "bin/commands.h"

int main(int argc, char** argv) {
  // A client or a reader of our output that goes away is an error of that write, not the end of the process.
  std::signal(SIGPIPE, SIG_IGN);
  // Standard output belongs to the answers of subcommands and to the guest of `spore run`.
  spdlog::set_default_logger(spdlog::stderr_logger_mt("spore"));
  CLI::App app{"Spore: a stateful serverless runtime for WebAssembly functions"};
  app.set_version_flag("--version", std::string("spore ") + SPORE_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  int exit_code = 0;
  spore::bin::add_serve(app, exit_code);
  spore::bin::add_client(app, exit_code);
  spore::bin::add_calls(app, exit_code);
  spore::bin::add_files(app, exit_code);
  spore::bin::add_state(app, exit_code);
  spore::bin::add_snapshot(app, exit_code);
  spore::bin::add_run(app, exit_code);
  spore::bin::add_new(app, exit_code);
  spore::bin::add_build(app, exit_code);
  spore::bin::add_compile(app, exit_code);
  spore::bin::add_tenant_process(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return exit_code;
}
