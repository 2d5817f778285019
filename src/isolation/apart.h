// Processes apart: each runs the calls of one tenant, and has nothing of the host but one socket to it.
//
//   serving process --start_apart()--> broker: clone into new namespaces, exec --> process apart
//         `--------------------------- socket, 0 ---------------------------------'  confine(), drop_privileges(), ...
//
// It begins as a fresh program, so that no memory of the host's is in it: not its keys, not what other tenants' calls
// left. It has namespaces of its own of processes, mounts, the network, IPC and host names, from its first instruction
// on; confine() then takes away every file but those that it is shown. It dies with the broker, and that with the host.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "isolation/broker.h"

namespace spore::isolation {

struct ApartProgram {
  std::string path = "/proc/self/exe";  // opened by the broker, whose program is this one's
  std::vector<std::string> arguments;   // the first is its name. It has no environment
  size_t processes_max = 64;            // at once
};
// The broker's part: "apart", "apart_kill" and "apart_ended". What it has started ends with it.
std::vector<BrokerOperation> apart_operations(ApartProgram program);

constexpr int kApartSocket = 3;  // where the process finds it: of packets in order (SOCK_SEQPACKET)

struct ApartProcess {
  pid_t pid = 0;
  UniqueFd pid_descriptor;  // readable once it has ended
  UniqueFd socket;
  UniqueFd standard_error;  // what it says there, to be read
};
// Any thread. kResourceExhausted: there are as many as there may be; kUnavailable: the kernel refuses.
Result<ApartProcess> start_apart(Broker& broker, Broker::Clock::time_point deadline);
// Kills it, where it has not ended. Does not wait for that; an error: the broker has ended, and so will the process.
Result<void> kill_apart(Broker& broker, pid_t pid, Broker::Clock::time_point deadline);
// How it ended, in words, as "was killed by signal 9"; after this it is forgotten. kFailedPrecondition: it still runs.
Result<std::string> end_of_apart(Broker& broker, pid_t pid, Broker::Clock::time_point deadline);

// Whether this process may make the namespaces; else kUnavailable, with the reason.
Result<void> check_apart_rights();

// A directory of the host that the process goes on to see.
struct ShownDirectory {
  std::string from;
  std::string at;  // absolute
  bool writable = false;
};
// In the process apart, of one thread and with its rights still there: from now on there are these directories, /proc
// for reading, and nothing else. Memory files and what is open already are left as they are.
Result<void> confine(const std::vector<ShownDirectory>& shown);

}  // namespace spore::isolation
