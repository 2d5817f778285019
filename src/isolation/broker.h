// The privileged process: a small, single-threaded child that keeps the capabilities which the serving process gives
// up, and does for it what needs them.
//
//   serving process --request: one packet--> spore-broker: one of a table of operations
//     any thread      <--answer: bytes and descriptors--
//
// The operations are given before the fork and are all that it can do. It does not trust who asks: a request is data
// from outside, which each operation checks in full, so that a serving process that was taken over gains nothing by it
// but what the operations grant within their limits. Requests are answered in the order in which they were sent, by
// whichever thread.
//
// The broker ends with the process that started it, however that ends: its end of the socket closes, and the kernel
// sends a signal. It then destroys its operations, and what they own goes with them.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/guarded.h"
#include "base/result.h"

namespace spore::isolation {

constexpr size_t kBrokerMessageBytesMax = 64 << 10;  // of a request or an answer, with its header
constexpr size_t kBrokerDescriptorsMax = 16;         // of a request or an answer

struct BrokerReply {
  Bytes bytes;
  std::vector<UniqueFd> descriptors;
};

// Runs in the broker alone, one at a time. It must not block for long: everybody waits for it. No descriptor that was
// open before the fork is open there, except standard error.
struct BrokerOperation {
  std::string name;
  std::move_only_function<Result<BrokerReply>(ByteSpan request)> run;
  // Or, where requests come with exactly so many descriptors, which are closed afterwards:
  size_t descriptors = 0;
  std::move_only_function<Result<BrokerReply>(ByteSpan request, std::span<const UniqueFd> given)> run_with = nullptr;
};

class Broker {
 public:
  using Clock = std::chrono::steady_clock;

  // Forks. kFailedPrecondition where this process has more than one thread: the child would have their locks.
  static Result<std::unique_ptr<Broker>> start(std::vector<BrokerOperation> operations);
  // Tells the broker to end and waits until it has, for at most ten seconds; then it is killed. No call may be under
  // way.
  ~Broker();
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  // Any thread. What the operation answers; kDeadlineExceeded where the answer has not come by then (a request that is
  // still waiting is then not carried out); kUnavailable where the broker has ended.
  Result<BrokerReply> call(std::string_view operation, ByteSpan request, Clock::time_point deadline,
                           std::span<const int> descriptors = {});
  // The same, but waits for no answer: later requests find it done. The deadline is for handing it over.
  Result<void> post(std::string_view operation, ByteSpan request, Clock::time_point deadline);

  pid_t pid() const { return pid_; }

 private:
  friend struct BrokerTestAccess;
  struct Waiter {
    bool answered = false;
    Result<BrokerReply> reply;
  };
  struct State {
    bool reading = false;  // one of those that wait reads for all
    bool ended = false;
    uint64_t last_id = 0;
    std::unordered_map<uint64_t, Waiter*> waiting;
  };

  Broker(pid_t pid, UniqueFd socket, std::vector<std::string> names);
  Result<uint32_t> index_of(std::string_view operation) const;
  Result<void> send(uint64_t id, uint32_t operation, bool answer, ByteSpan request, Clock::time_point deadline,
                    std::span<const int> descriptors = {}) const;
  // Waits for one packet until the deadline, and gives it to its waiter. False: there will be no more.
  bool read_one(Clock::time_point deadline);
  std::string ended_message() const;

  const pid_t pid_;
  UniqueFd pid_descriptor_;
  UniqueFd socket_;
  const std::vector<std::string> names_;
  Bytes buffer_;  // of the one that reads
  Guarded<State> state_;
  std::condition_variable changed_;
};

}  // namespace spore::isolation
