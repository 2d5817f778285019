#include "state/redis_client.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <thread>

#include "base/check.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kBackoffMin(1);
constexpr milliseconds kBackoffMax(250);
constexpr int kRedirectsInARowMax = 8;
constexpr milliseconds kSlotsAskedAgainAfter(100);
constexpr size_t kNodesMax = 1024;
constexpr uint64_t kWorkBytesPerMs = 32 << 10;  // of the slowest server

// What an error of Redis means for who asked.
enum class Meaning : uint8_t { kFinal, kNotNow, kNotHere, kUnknownScript };

Meaning meaning_of(std::string_view text, bool cluster) {
  if (text.starts_with("NOSCRIPT")) return Meaning::kUnknownScript;
  for (const std::string_view code : {"LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY "})
    if (text.starts_with(code)) return Meaning::kNotNow;
  // A script in a slot that is just being moved.
  if (text.find("attempted to access a non local key in a cluster") != std::string_view::npos) return Meaning::kNotNow;
  if (text.starts_with("MOVED ") || text.starts_with("ASK ")) return Meaning::kNotHere;
  if (cluster && text.starts_with("READONLY")) return Meaning::kNotNow;  // it became a replica; somebody else is not
  return Meaning::kFinal;
}

ErrorCode code_of(std::string_view text) {
  if (text.starts_with("OOM")) return ErrorCode::kResourceExhausted;
  for (const std::string_view code : {"NOAUTH", "WRONGPASS", "NOPERM"})
    if (text.starts_with(code)) return ErrorCode::kPermissionDenied;
  if (text.find("user executing the script can't") != std::string_view::npos) return ErrorCode::kPermissionDenied;
  for (const std::string_view code : {"READONLY", "MISCONF", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY",
                                      "NOREPLICAS", "MOVED", "ASK", "UNKILLABLE"})
    if (text.starts_with(code)) return ErrorCode::kUnavailable;
  if (text.find("attempted to access a non local key in a cluster") != std::string_view::npos)
    return ErrorCode::kUnavailable;
  return ErrorCode::kInternal;
}

constexpr std::array<uint16_t, 256> kCrcTable = [] {
  std::array<uint16_t, 256> table{};
  for (unsigned i = 0; i < 256; ++i) {
    unsigned crc = i << 8;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 0x8000) ? (crc << 1) ^ 0x1021 : crc << 1;
    table[i] = static_cast<uint16_t>(crc);
  }
  return table;
}();

}  // namespace

uint16_t redis_slot(std::string_view key) {
  if (const size_t open = key.find('{'); open != std::string_view::npos)
    if (const size_t close = key.find('}', open + 1); close != std::string_view::npos && close != open + 1)
      key = key.substr(open + 1, close - open - 1);
  uint16_t crc = 0;
  for (const char c : key)
    crc = static_cast<uint16_t>((crc << 8) ^ kCrcTable[((crc >> 8) ^ static_cast<uint8_t>(c)) & 0xff]);
  return crc % kRedisSlots;
}

RedisCall RedisCall::of_script(const RedisScript& script, std::string_view key) {
  RedisCall out;
  out.request = {"EVALSHA", script.sha1, "1", key};
  out.slot = redis_slot(key);
  out.script = &script;
  return out;
}

RedisCall RedisCall::of_command(std::string_view command, std::string_view key) {
  RedisCall out;
  out.request = {command, key};
  out.slot = redis_slot(key);
  return out;
}

struct RedisClient::Node {
  explicit Node(RedisEndpoint where) : endpoint(std::move(where)) {}
  struct Pool {
    std::vector<std::unique_ptr<RedisConnection>> idle;
    size_t open = 0;  // idle ones too
  };
  const RedisEndpoint endpoint;
  Guarded<Pool> pool;
  std::condition_variable returned;
};

// What one time of asking has come to.
struct RedisClient::Round {
  struct Elsewhere {
    NodePtr node;  // null: wherever its slot is
    bool asking = false;
  };
  std::vector<Elsewhere> elsewhere;  // by call
  std::vector<bool> done;
  std::optional<Error> final;    // an answer that ends it all
  std::optional<Error> not_now;  // why some have to be asked again
  bool redirected = false;
  bool lost = false;
  Ran ran;
};

RedisClient::RedisClient(RedisUrl url, RedisClientOptions options, std::shared_ptr<const RedisTlsContext> tls)
    : url_(std::move(url)), options_(std::move(options)), tls_(std::move(tls)) {}
RedisClient::~RedisClient() = default;

Result<std::unique_ptr<RedisClient>> RedisClient::connect(RedisUrl url, RedisClientOptions options, Deadline deadline) {
  std::shared_ptr<const RedisTlsContext> tls;
  if (url.tls) {
    ASSIGN_OR_RETURN(tls, RedisTlsContext::make(options.tls));
  }
  std::unique_ptr<RedisClient> out(new RedisClient(std::move(url), std::move(options), std::move(tls)));
  if (out->url_.cluster) {
    TRY(out->learn_slots(deadline, true));
  } else {
    const NodePtr node = out->node_of(0);
    ASSIGN_OR_RETURN(auto connection, out->acquire(*node, deadline));
    out->give_back(*node, std::move(connection), true);
  }
  return out;
}

RedisClient::NodePtr RedisClient::node_at(const RedisEndpoint& endpoint) {
  auto map = map_.lock();
  // Nodes that a cluster had long ago: forgotten, whoever uses one keeps it.
  if (map->nodes.size() > kNodesMax) map->nodes.clear();
  NodePtr& node = map->nodes[endpoint.text()];
  if (!node) node = std::make_shared<Node>(endpoint);
  return node;
}

RedisClient::NodePtr RedisClient::node_of(uint16_t slot) {
  if (!url_.cluster) return node_at(url_.endpoints[0]);
  auto map = map_.lock();
  return map->slots.empty() ? nullptr : map->slots[slot];
}

Result<std::unique_ptr<RedisConnection>> RedisClient::acquire(Node& node, Deadline deadline) {
  {
    auto pool = node.pool.lock();
    while (true) {
      while (!pool->idle.empty()) {
        auto connection = std::move(pool->idle.back());
        pool->idle.pop_back();
        if (connection->is_quiet()) return connection;
        --pool->open;
      }
      if (pool->open < options_.connections_max) break;
      if (node.returned.wait_until(pool.lock(), deadline) == std::cv_status::timeout && pool->idle.empty())
        return fail(ErrorCode::kDeadlineExceeded, "all connections to Redis at " + node.endpoint.text() + " are busy");
    }
    ++pool->open;
  }
  auto connection = RedisConnection::open(node.endpoint, tls_,
                                          {.user = url_.user, .password = url_.password, .database = url_.database},
                                          std::min(deadline, Clock::now() + options_.connect_timeout));
  if (!connection) {
    --node.pool.lock()->open;
    node.returned.notify_one();
  }
  return connection;
}

void RedisClient::give_back(Node& node, std::unique_ptr<RedisConnection> connection, bool good) {
  {
    auto pool = node.pool.lock();
    if (good) {
      pool->idle.push_back(std::move(connection));
    } else {
      --pool->open;
    }
  }
  node.returned.notify_one();
}

Result<void> RedisClient::learn_slots(Deadline deadline, bool at_once) {
  std::vector<NodePtr> ask;
  {
    auto map = map_.lock();
    if (!at_once && !map->slots.empty() && Clock::now() - map->asked_at < kSlotsAskedAgainAfter) return {};
    map->asked_at = Clock::now();
    for (const auto& [name, node] : map->nodes) ask.push_back(node);
  }
  for (const auto& endpoint : url_.endpoints)
    if (auto node = node_at(endpoint); std::ranges::find(ask, node) == ask.end()) ask.push_back(std::move(node));
  const RedisRequest request{"CLUSTER", "SLOTS"};
  Error error{ErrorCode::kUnavailable, "no node of the cluster at " + url_.text() + " can be reached"};
  for (const NodePtr& node : ask) {
    const Deadline until = std::min(deadline, Clock::now() + options_.connect_timeout);
    auto connection = acquire(*node, until);
    if (!connection) {
      error = std::move(connection).error();
      if (error.code == ErrorCode::kPermissionDenied) return std::unexpected(std::move(error));
      continue;
    }
    RedisExchange exchange{.request = &request};
    auto answer = (*connection)->exchange(std::span(&exchange, 1), until);
    give_back(*node, std::move(*connection), answer.has_value());
    if (!answer) {
      error = std::move(answer).error();
      continue;
    }
    if (exchange.reply.is_error()) {
      error = {code_of(exchange.reply.text), "Redis at " + node->endpoint.text() + ": " + exchange.reply.text};
      if (exchange.reply.text.find("cluster support disabled") != std::string::npos)
        error.code = ErrorCode::kInvalidArgument;
      continue;
    }
    std::vector<NodePtr> slots(kRedisSlots);
    size_t known = 0;
    for (const RedisReply& range : exchange.reply.elements) {
      if (range.elements.size() < 3 || range.elements[2].elements.size() < 2) continue;
      const int64_t first = range.elements[0].integer, last = range.elements[1].integer;
      const RedisReply& host = range.elements[2].elements[0];
      const int64_t port = range.elements[2].elements[1].integer;
      if (first < 0 || last < first || last >= kRedisSlots || port < 1 || port > 65535) continue;
      // Without a name: the one that was asked.
      const NodePtr owner = node_at(
          {host.text.empty() || host.text == "?" ? node->endpoint.host : host.text, static_cast<uint16_t>(port)});
      for (int64_t slot = first; slot <= last; ++slot) slots[static_cast<size_t>(slot)] = owner;
      known += static_cast<size_t>(last - first + 1);
    }
    if (known == 0) {
      error = {ErrorCode::kUnavailable, "the cluster at " + node->endpoint.text() + " has no slots yet"};
      continue;
    }
    map_.lock()->slots = std::move(slots);
    return {};
  }
  return std::unexpected(std::move(error));
}

Result<void> RedisClient::run_on(const NodePtr& node, std::span<RedisCall> calls, std::span<const size_t> which,
                                 bool asking, Again again, Round& round, Deadline deadline) {
  static const RedisRequest kAsking{"ASKING"};
  const auto not_now = [&](Error error) {
    round.lost = true;
    round.not_now = std::move(error);
  };
  auto connection = acquire(*node, deadline);
  if (!connection) {
    if (connection.error().code == ErrorCode::kPermissionDenied) return std::unexpected(std::move(connection).error());
    not_now(std::move(connection).error());
    return {};
  }
  const size_t step = asking ? 2 : 1;
  std::vector<RedisExchange> exchanges(which.size() * step);
  const auto exchange_of = [&](size_t at) -> RedisExchange& { return exchanges[at * step + step - 1]; };
  for (size_t at = 0; at < which.size(); ++at) {
    if (asking) exchanges[at * 2].request = &kAsking;
    const RedisCall& call = calls[which[at]];
    RedisExchange& exchange = exchange_of(at);
    exchange.request = &call.request;
    exchange.has_sink = call.has_sink;
    exchange.sink = call.sink;
  }
  const uint64_t sent_before = (*connection)->sent_bytes(), received_before = (*connection)->received_bytes();
  milliseconds silence_max = options_.silence_max;
  for (const size_t index : which) silence_max += milliseconds(calls[index].work_bytes / kWorkBytesPerMs);
  auto result = (*connection)->exchange(exchanges, deadline, silence_max);
  sent_bytes_ += (*connection)->sent_bytes() - sent_before;
  received_bytes_ += (*connection)->received_bytes() - received_before;
  bool good = result.has_value();

  std::vector<const RedisScript*> unknown_scripts;
  std::optional<Error> maybe;
  for (size_t at = 0; at < which.size(); ++at) {
    const size_t index = which[at];
    RedisExchange& exchange = exchange_of(at);
    if (!exchange.answered) {
      if (exchange.sent) {
        if (again == Again::kOnlyIfNotCarriedOut)
          maybe = Error{ErrorCode::kDeadlineExceeded,
                        result.error().message + "; what was asked may have been carried out or not"};
        round.ran.maybe_before = true;
      }
      continue;
    }
    if (!exchange.reply.is_error()) {
      calls[index].reply = std::move(exchange.reply);
      round.done[index] = true;
      continue;
    }
    const std::string& text = exchange.reply.text;
    Error error{code_of(text), "Redis at " + node->endpoint.text() + ": " + text};
    switch (meaning_of(text, url_.cluster)) {
      case Meaning::kFinal:
        if (text.starts_with("READONLY")) good = false;  // the name may mean another server by now
        if (!round.final) round.final = std::move(error);
        break;
      case Meaning::kNotNow:
        round.not_now = std::move(error);
        if (text.starts_with("READONLY") || text.starts_with("CLUSTERDOWN")) round.lost = true;
        break;
      case Meaning::kUnknownScript:
        if (const RedisScript* script = calls[index].script;
            script && std::ranges::find(unknown_scripts, script) == unknown_scripts.end())
          unknown_scripts.push_back(script);
        round.redirected = true;
        if (asking) round.elsewhere[index] = {node, true};
        break;
      case Meaning::kNotHere: {
        const std::string_view words = text;
        auto endpoint = parse_redis_endpoint(words.substr(words.rfind(' ') + 1));
        // MOVED 1234 :6379 means the host that was asked.
        if (const auto colon = words.rfind(" :"); !endpoint && colon != std::string_view::npos)
          endpoint = parse_redis_endpoint(node->endpoint.host + std::string(words.substr(colon + 1)));
        if (!endpoint || !url_.cluster) {
          round.final = std::move(error);
          break;
        }
        NodePtr other = node_at(*endpoint);
        if (text.starts_with("MOVED")) {
          auto map = map_.lock();
          if (!map->slots.empty()) map->slots[calls[index].slot] = other;
        }
        round.elsewhere[index] = {std::move(other), text.starts_with("ASK")};
        round.redirected = true;
        round.not_now = std::move(error);
        break;
      }
    }
  }
  if (good)
    for (const RedisScript* script : unknown_scripts) {
      const RedisRequest load{"SCRIPT", "LOAD", script->text};
      RedisExchange exchange{.request = &load};
      if (auto loaded = (*connection)->exchange(std::span(&exchange, 1), deadline, options_.silence_max); !loaded) {
        good = false;
        not_now(std::move(loaded).error());
        break;
      }
      if (exchange.reply.is_error() && !round.final && meaning_of(exchange.reply.text, url_.cluster) == Meaning::kFinal)
        round.final =
            Error{code_of(exchange.reply.text), "Redis at " + node->endpoint.text() + ": " + exchange.reply.text};
    }
  give_back(*node, std::move(*connection), good);
  if (maybe) return std::unexpected(std::move(*maybe));
  if (!result) not_now(std::move(result).error());
  return {};
}

Result<RedisClient::Ran> RedisClient::run(std::span<RedisCall> calls, Again again, Deadline deadline) {
  Round round;
  round.elsewhere.resize(calls.size());
  round.done.resize(calls.size());
  milliseconds backoff = kBackoffMin;
  int redirects = 0;
  bool first = true;
  while (true) {
    // By server, in order.
    std::vector<std::pair<Round::Elsewhere, std::vector<size_t>>> groups;
    bool slots_unknown = false;
    size_t left = 0;
    for (size_t i = 0; i < calls.size(); ++i) {
      if (round.done[i]) continue;
      ++left;
      Round::Elsewhere where = round.elsewhere[i];
      round.elsewhere[i] = {};
      if (!where.node) where = {node_of(calls[i].slot), false};
      if (!where.node) {
        slots_unknown = true;
        continue;
      }
      auto group = std::ranges::find_if(groups, [&](const auto& entry) {
        return entry.first.node == where.node && entry.first.asking == where.asking;
      });
      if (group == groups.end()) group = groups.insert(groups.end(), {where, {}});
      group->second.push_back(i);
    }
    if (left == 0) return round.ran;
    if (Clock::now() >= deadline) {
      if (!round.not_now) return fail(ErrorCode::kDeadlineExceeded, url_.text() + ": the deadline is past");
      return std::unexpected(std::move(*round.not_now));
    }
    if (!first) round.ran.in_order = false;
    first = false;
    round.redirected = round.lost = false;
    for (const auto& [where, which] : groups) {
      TRY(run_on(where.node, calls, which, where.asking, again, round, deadline));
      if (round.final) return std::unexpected(std::move(*round.final));
    }
    if (std::ranges::find(round.done, false) == round.done.end()) return round.ran;
    if (url_.cluster && (round.lost || round.redirected || slots_unknown)) {
      auto learned = learn_slots(deadline, false);
      if (!learned && learned.error().code == ErrorCode::kPermissionDenied)
        return std::unexpected(std::move(learned).error());
      if (!learned && slots_unknown) round.not_now = std::move(learned).error();
    }
    if (round.redirected && !round.lost && ++redirects <= kRedirectsInARowMax) continue;
    redirects = 0;
    std::this_thread::sleep_until(std::min(deadline, Clock::now() + backoff));
    backoff = std::min(backoff * 2, kBackoffMax);
  }
}

Result<std::vector<RedisReply>> RedisClient::ask_all(const RedisRequest& request, Deadline deadline) {
  std::vector<NodePtr> nodes;
  if (url_.cluster) {
    for (const NodePtr& node : map_.lock()->slots)
      if (node && std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
  } else {
    nodes.push_back(node_of(0));
  }
  std::vector<RedisReply> out;
  for (const NodePtr& node : nodes) {
    ASSIGN_OR_RETURN(auto connection, acquire(*node, deadline));
    RedisExchange exchange{.request = &request};
    auto result = connection->exchange(std::span(&exchange, 1), deadline, options_.silence_max);
    give_back(*node, std::move(connection), result.has_value());
    if (!result) return std::unexpected(std::move(result).error());
    out.push_back(std::move(exchange.reply));
  }
  return out;
}

}  // namespace spore::state
