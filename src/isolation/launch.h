// A program that the broker starts for a serving process that may start none: without the broker's rights, with
// descriptors of the serving process's, any number of times.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "isolation/broker.h"

namespace spore::isolation {

struct LaunchProgram {
  std::string path;
  size_t descriptors = 1;   // of each start: the first becomes standard output and error, the others 3, 4, ...
  size_t running_max = 64;  // at once
  // Whether it may be started with these, which come behind its name.
  std::function<Result<void>(const std::vector<std::string>& arguments)> check;
};
// The broker's part: "launch", "launch_ended". What it has started ends with it.
std::vector<BrokerOperation> launch_operations(LaunchProgram program);

struct Launched {
  pid_t pid = 0;
  UniqueFd pid_descriptor;  // readable once it has ended; it is killed by it
};
// Any thread. kResourceExhausted: as many as may be run; kFailedPrecondition: the program cannot be opened.
Result<Launched> launch(Broker& broker, const std::vector<std::string>& arguments, std::span<const int> descriptors,
                        Broker::Clock::time_point deadline);
// The status of one that has ended, as of waitpid; after this it is forgotten. kFailedPrecondition: it still runs.
Result<int> end_of_launched(Broker& broker, pid_t pid, Broker::Clock::time_point deadline);

}  // namespace spore::isolation
