// In a process of a tenant's: what it asks of its host. Each request is sent and its answer waited for; answers are
// given to delivered() by whoever reads the link, which must not be those who ask. Any thread.
#pragma once

#include <condition_variable>
#include <unordered_map>

#include "base/guarded.h"
#include "processes/link.h"
#include "processes/protocol.h"

namespace spore::processes {

struct Answer {
  Bytes bytes;
  std::vector<UniqueFd> descriptors;
};

class HostLine {
 public:
  explicit HostLine(Link& link) : link_(link) {}

  // kDeadlineExceeded where no answer has come by then.
  Result<Answer> ask(RequestKind kind, ByteSpan arguments, Clock::time_point deadline);
  // Waits for no answer.
  void tell(RequestKind kind, ByteSpan arguments);
  // An answer has come.
  void delivered(Frame answer);

  Link& link() { return link_; }

 private:
  struct Waiter {
    bool answered = false;
    Result<Answer> answer;
  };
  struct State {
    uint64_t last_id = 0;
    std::unordered_map<uint64_t, Waiter*> waiting;
  };
  static Frame request(uint64_t id, RequestKind kind, ByteSpan arguments);

  Link& link_;
  Guarded<State> state_;
  std::condition_variable answered_;
};

}  // namespace spore::processes
