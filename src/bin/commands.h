// The subcommands of `spore`, one function a group. Each adds its subcommands to the app; a subcommand's callback does
// the work and leaves the program's exit code in `exit_code` (0 when it leaves it alone). Main thread only.
#pragma once

#include <CLI/CLI.hpp>

namespace spore::bin {

void add_serve(CLI::App& app, int& exit_code);     // serve.cc
void add_run(CLI::App& app, int& exit_code);       // run.cc
void add_new(CLI::App& app, int& exit_code);       // new.cc
void add_build(CLI::App& app, int& exit_code);     // build.cc
void add_compile(CLI::App& app, int& exit_code);   // compile.cc
void add_client(CLI::App& app, int& exit_code);    // client.cc: publish call ls rm versions rollback logs describe
void add_files(CLI::App& app, int& exit_code);     // files.cc: files put, get, ls, rm
void add_calls(CLI::App& app, int& exit_code);     // calls.cc: calls ls, show, wait, output, log, cancel, replay
void add_state(CLI::App& app, int& exit_code);     // state.cc: state ls, get, put, rm, copy
void add_snapshot(CLI::App& app, int& exit_code);  // snapshot.cc: snapshot ls, snapshot inspect
void add_tenant_process(CLI::App& app, int& exit_code);  // tenant_process.cc

}  // namespace spore::bin
