// What the broker keeps of the processes that it has started, for one group of operations. Private to src/isolation.
#pragma once

#include <sys/types.h>

#include <set>

#include "isolation/broker.h"

namespace spore::isolation {

// Those that nobody has been told the end of; they end with this. Broker's thread.
class Started {
 public:
  Started() = default;
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;
  ~Started();

  size_t count() const { return pids_.size(); }
  // Takes on a child, and gives a descriptor of it; where there is none, the child is killed.
  Result<UniqueFd> add(pid_t pid);
  // Operations: a request is the number of a process. It is there, at least as what nobody has waited for, so that its
  // number is no other's.
  Result<BrokerReply> kill(ByteSpan request) const;
  Result<BrokerReply> end(ByteSpan request);  // the status, as of waitpid; kFailedPrecondition: it still runs

 private:
  Result<pid_t> one_of(ByteSpan request) const;

  std::set<pid_t> pids_;
};

// Between clone and exec: signals as a new program expects them, and no descriptors but these: `descriptors[i]` becomes
// number `numbers[i]`, and `program` the one behind the last. Then the program.
[[noreturn]] void become(int program, std::span<const int> descriptors, std::span<const int> numbers,
                         const std::vector<std::string>& arguments, char** environment);

}  // namespace spore::isolation
