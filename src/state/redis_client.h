// Requests to a Redis or a Redis Cluster: connections kept open, requests sent to the server that has their slot, and
// tried again within the deadline where that does no harm.
//
// What is tried again: connections that cannot be made, answers that say "not now" or "not here" (LOADING, TRYAGAIN,
// CLUSTERDOWN, MOVED, ASK, ...), and, unless a request must happen at most once, connections that are lost before the
// answer. Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/guarded.h"
#include "state/redis_connection.h"
#include "state/redis_scripts.h"

namespace spore::state {

struct RedisClientOptions {
  RedisTlsOptions tls;
  size_t connections_max = 8;  // to each server
  std::chrono::milliseconds connect_timeout{5'000};
  // A server that sends nothing for so long while it is asked something is taken for lost.
  std::chrono::milliseconds silence_max{10'000};
};

constexpr uint16_t kRedisSlots = 16384;
// By CRC16 of the key, or of what is between its first { and the next }.
uint16_t redis_slot(std::string_view key);

// One request, and its answer.
struct RedisCall {
  RedisRequest request;
  uint16_t slot = 0;
  bool has_sink = false;
  std::span<uint8_t> sink;              // where its bulk string goes
  const RedisScript* script = nullptr;  // that the request names, to be loaded where it is not known
  uint64_t work_bytes = 0;              // that the server has to move for it, beyond what is sent: takes it time

  RedisReply reply;

  // EVALSHA of a script with one key; more arguments may be added.
  static RedisCall of_script(const RedisScript& script, std::string_view key);
  // A command whose first argument is the key.
  static RedisCall of_command(std::string_view command, std::string_view key);
};

class RedisClient {
 public:
  enum class Again : uint8_t { kAlways, kOnlyIfNotCarriedOut };
  struct Ran {
    bool in_order = true;       // all in one go: calls of one slot were carried out in the order they stand in
    bool maybe_before = false;  // a call may have been carried out before the time that gave its answer
  };

  // Connects once, so that what is wrong with the URL, the certificates or the password is known at once.
  static Result<std::unique_ptr<RedisClient>> connect(RedisUrl url, RedisClientOptions options, Deadline deadline);
  ~RedisClient();

  // Fills in the replies. The first answer that is an error and will stay one ends it, with Redis's own words:
  // kResourceExhausted (OOM), kPermissionDenied, kUnavailable, kInternal. kDeadlineExceeded where no answer came in
  // time, or with kOnlyIfNotCarriedOut where the connection was lost: it may have been carried out or not.
  Result<Ran> run(std::span<RedisCall> calls, Again again, Deadline deadline);
  Result<Ran> run(RedisCall& call, Again again, Deadline deadline) { return run(std::span(&call, 1), again, deadline); }
  // To each server that is known now: for CONFIG and the like. An error is a reply.
  Result<std::vector<RedisReply>> ask_all(const RedisRequest& request, Deadline deadline);

  const RedisUrl& url() const { return url_; }
  struct Traffic {
    uint64_t sent_bytes = 0;
    uint64_t received_bytes = 0;
  };
  Traffic traffic() const { return {sent_bytes_, received_bytes_}; }

 private:
  struct Node;
  struct Round;
  using NodePtr = std::shared_ptr<Node>;
  struct Map {
    std::map<std::string, NodePtr> nodes;  // by endpoint
    std::vector<NodePtr> slots;            // empty: not known yet; else kRedisSlots
    Clock::time_point asked_at;
  };

  RedisClient(RedisUrl url, RedisClientOptions options, std::shared_ptr<const RedisTlsContext> tls);
  NodePtr node_at(const RedisEndpoint& endpoint);
  NodePtr node_of(uint16_t slot);
  Result<void> learn_slots(Deadline deadline, bool at_once);
  Result<std::unique_ptr<RedisConnection>> acquire(Node& node, Deadline deadline);
  void give_back(Node& node, std::unique_ptr<RedisConnection> connection, bool good);
  Result<void> run_on(const NodePtr& node, std::span<RedisCall> calls, std::span<const size_t> which, bool asking,
                      Again again, Round& round, Deadline deadline);

  const RedisUrl url_;
  const RedisClientOptions options_;
  const std::shared_ptr<const RedisTlsContext> tls_;
  Guarded<Map> map_;
  std::atomic<uint64_t> sent_bytes_ = 0, received_bytes_ = 0;
};

}  // namespace spore::state
