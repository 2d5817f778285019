// Runs the guest programs of this folder: compiles each once, and gives every run a Faaslet and a HostState of its own.
// A run is on the thread that asks for it, which has a seat from its first run on; any number of threads.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "host/host_state.h"
#include "host/run.h"

namespace spore::host {

struct GuestRun {
  CallResult result;
  HostState state;
  // One line that tells all, for messages.
  std::string summary() const;
};

// `guest`: the name of a program in guests/, without its suffix. Arguments get the guest's name in front. A run that
// takes longer than 30 seconds, or than its deadline, is interrupted. `while_running` is called on another thread, with
// what interrupts the run.
GuestRun run_guest(const std::string& guest, std::vector<std::string> arguments = {}, CallSetup setup = {},
                   RunLimits limits = {}, std::function<void(std::function<void()> interrupt)> while_running = {});

// A directory that goes with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace spore::host
