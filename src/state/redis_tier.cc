#include "state/redis_tier.h"

#include <algorithm>

#include "state/merge.h"
#include "state/redis_core.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
using Again = RedisClient::Again;

constexpr size_t kReadersMax = 1024;                   // of one lock
constexpr milliseconds kNamesOutliveValue(3'600'000);  // of named pushes
constexpr milliseconds kMissingFor(60'000);            // before it goes from the index
constexpr size_t kRepairsMax = 100;                    // of the index, by one list

// The value of `name` in what INFO says.
std::string info_field(const std::string& info, const std::string& name) {
  const std::string start = "\n" + name + ":";
  const size_t at = info.find(start);
  if (at == std::string::npos) return "";
  const size_t begin = at + start.size();
  return info.substr(begin, info.find_first_of("\r\n", begin) - begin);
}

struct Setup {
  std::string version, policy, aof, fsync, save;
};

// How much is lost when the machine stops, and in words.
std::pair<int, std::string> durability_of(const Setup& setup) {
  if (setup.aof == "1") {
    if (setup.fsync == "always") return {0, "each push is on disk before it is acknowledged (appendfsync always)"};
    if (setup.fsync == "everysec")
      return {1, "pushes of the last second or two are lost when the machine stops (appendfsync everysec)"};
    if (setup.fsync == "no")
      return {2, "pushes since the system last wrote to disk are lost when the machine stops (appendfsync no)"};
    return {3, "pushes go to an append-only file; how soon to disk, Redis does not tell"};
  }
  if (setup.aof.empty()) return {3, "Redis does not tell what it keeps"};
  if (setup.save == "\"\"") return {5, "nothing is kept when Redis stops (neither appendonly nor save is set)"};
  return {4, "pushes since the last snapshot are lost when Redis stops (appendonly is off" +
                 (setup.save.empty() ? std::string(")") : "; save " + setup.save + ")")};
}

Result<std::vector<Setup>> ask_setup(RedisClient& client, Deadline deadline) {
  ASSIGN_OR_RETURN(const auto infos, client.ask_all({"INFO"}, deadline));
  ASSIGN_OR_RETURN(const auto configs,
                   client.ask_all({"CONFIG", "GET", "appendfsync", "save", "maxmemory-policy"}, deadline));
  std::vector<Setup> out;
  for (size_t i = 0; i < infos.size(); ++i) {
    if (infos[i].is_error() && (infos[i].text.starts_with("NOAUTH") || infos[i].text.starts_with("WRONGPASS")))
      return fail(ErrorCode::kPermissionDenied, client.url().text() + ": " + infos[i].text);
    Setup& setup = out.emplace_back();
    const std::string info = infos[i].is_error() ? "" : "\n" + infos[i].text;
    setup.version = info_field(info, "redis_version");
    setup.policy = info_field(info, "maxmemory_policy");
    setup.aof = info_field(info, "aof_enabled");
    const auto& fields = configs.size() > i ? configs[i].elements : std::vector<RedisReply>();
    for (size_t at = 0; at + 1 < fields.size(); at += 2) {
      if (fields[at].text == "appendfsync") setup.fsync = fields[at + 1].text;
      if (fields[at].text == "save") setup.save = fields[at + 1].text.empty() ? "\"\"" : fields[at + 1].text;
      if (fields[at].text == "maxmemory-policy") setup.policy = fields[at + 1].text;
    }
  }
  return out;
}

}  // namespace

RedisTier::RedisTier(std::shared_ptr<RedisCore> core, std::string durability)
    : core_(std::move(core)), durability_(std::move(durability)) {}
RedisTier::~RedisTier() = default;

Result<std::unique_ptr<RedisTier>> RedisTier::connect(const std::string& url, RedisOptions options) {
  ASSIGN_OR_RETURN(RedisUrl parsed, RedisUrl::parse(url));
  if (options.client.connections_max == 0 || options.pin_lease < milliseconds(100) || options.push_bytes_at_once == 0)
    return fail(ErrorCode::kInvalidArgument,
                "Redis needs at least one connection, a lease of 100 ms and a byte a push");
  const std::string name = parsed.text();
  const Deadline deadline = Clock::now() + options.connect_within;
  ASSIGN_OR_RETURN(auto client, RedisClient::connect(std::move(parsed), options.client, deadline));
  ASSIGN_OR_RETURN(const auto setups, ask_setup(*client, deadline));
  std::pair<int, std::string> durability{-1, ""};
  for (const Setup& setup : setups) {
    if (!setup.version.empty() && setup.version.find('.') < 2 && setup.version[0] < '7')
      return fail(ErrorCode::kFailedPrecondition, name + ": Redis 7 is needed, this is " + setup.version);
    if (!options.allow_eviction && !setup.policy.empty() && setup.policy != "noeviction")
      return fail(ErrorCode::kFailedPrecondition,
                  name + ": its maxmemory-policy is " + setup.policy +
                      ", so that it throws state away when its memory is full; set it to noeviction");
    durability = std::max(durability, durability_of(setup));
  }
  return std::unique_ptr<RedisTier>(
      new RedisTier(std::make_shared<RedisCore>(std::move(client), std::move(options)), std::move(durability.second)));
}

std::string RedisTier::name() const { return core_->client().url().text(); }
RedisClient::Traffic RedisTier::traffic() const { return core_->client().traffic(); }

Result<std::shared_ptr<Snapshot>> RedisTier::pin(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  return core_->pin(id, deadline);
}

Result<Manifest> RedisTier::describe(const ValueId& id, Deadline deadline) {
  TRY(check_key(id.key));
  return core_->describe(id, deadline);
}

Result<Pushed> RedisTier::push(const ValueId& id, const Push& push, Deadline deadline) {
  return core_->push(id, push, deadline);
}

Result<void> RedisTier::remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) {
  TRY(check_key(id.key));
  bool maybe_before = false;
  while (true) {
    // Without an expected version: whatever is there now, but not what somebody may make while this is asked again.
    std::string what;
    if (expected) {
      what = redis_version_text(*expected);
    } else {
      auto now = core_->describe(id, deadline);
      if (!now && now.error().code == ErrorCode::kNotFound && maybe_before) return {};
      if (!now) return std::unexpected(std::move(now).error());
      what = redis_epoch_text(now->version.epoch) + ":";
    }
    RedisCall call = RedisCall::of_script(RedisScripts::get().remove, redis_value_prefix(id) + "m");
    call.request.add(what);
    call.request.add(std::to_string(kNamesOutliveValue.count()));
    ASSIGN_OR_RETURN(const auto ran, core_->client().run(call, Again::kAlways, deadline));
    maybe_before = maybe_before || ran.maybe_before;
    const auto& got = call.reply.elements;
    const std::string_view verdict = redis_verdict(call.reply);
    if (verdict == "ok" && got.size() == 2) {
      const std::string_view is = got[1].text;
      (void)core_->unindex(id, is.substr(0, is.find(':')), milliseconds(0), deadline);
      return {};
    }
    if (verdict == "missing") {
      if (maybe_before) {
        (void)core_->unindex(id, std::string_view(what).substr(0, what.find(':')), milliseconds(0), deadline);
        return {};
      }
      return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
    }
    if (verdict != "version" || got.size() != 2) return redis_nonsense(core_->client(), id);
    const auto is = parse_redis_version(got[1].text);
    if (!is) return redis_nonsense(core_->client(), id);
    if (maybe_before && (!expected || is->epoch != expected->epoch)) return {};
    if (expected) return check_expected(id, expected, Manifest{.version = *is});
  }
}

Result<KeyPage> RedisTier::list(const std::string& tenant, const std::string& prefix, const std::string& from,
                                size_t limit, Deadline deadline) {
  TRY(check_list_limit(limit));
  RedisClient& client = core_->client();
  const std::string base = redis_tenant_prefix(tenant);
  KeyPage page;
  std::string cursor = std::max(prefix, from);
  size_t repairs = 0;
  while (true) {
    const size_t wanted = limit - page.entries.size() + 1;
    RedisCall range = RedisCall::of_command("ZRANGEBYLEX", base + "i");
    range.request.add(cursor.empty() ? "-" : "[" + cursor);
    range.request.add(prefix.empty() ? "+" : "(" + prefix + "\xff");  // no key has that byte
    range.request.add("LIMIT");
    range.request.add("0");
    range.request.add(std::to_string(wanted));
    TRY(client.run(range, Again::kAlways, deadline));
    const auto& keys = range.reply.elements;
    if (keys.empty()) return page;
    std::vector<RedisCall> calls;
    calls.push_back(RedisCall::of_command("HMGET", base + "s"));
    for (const RedisReply& key : keys) calls[0].request.add(key.text);
    for (const RedisReply& key : keys) {
      calls.push_back(RedisCall::of_command("HMGET", redis_value_prefix({tenant, key.text}) + "m"));
      for (const char* field : {"e", "n", "s"}) calls.back().request.add(field);
    }
    TRY(client.run(calls, Again::kAlways, deadline));
    for (size_t i = 0; i < keys.size(); ++i) {
      const ValueId id{tenant, keys[i].text};
      const auto& fields = calls[i + 1].reply.elements;
      const auto& indexed = calls[0].reply.elements;
      if (fields.size() != 3 || indexed.size() != keys.size()) return redis_nonsense(client, id);
      const std::string& known = indexed[i].text;  // EPOCH:NUMBER:SIZE:MS
      if (fields[1].kind == RedisReply::Kind::kNil) {
        if (++repairs <= kRepairsMax)
          (void)core_->unindex(id, std::string_view(known).substr(0, known.find(':')), kMissingFor, deadline);
        continue;
      }
      const auto epoch = parse_redis_number(fields[0].text, 16);
      const auto number = parse_redis_number(fields[1].text);
      const auto size = parse_redis_number(fields[2].text);
      if (!epoch || !number || !size || *number == 0) return redis_nonsense(client, id);
      const Manifest manifest{.version = {*epoch, *number}, .size_bytes = *size};
      if (page.entries.size() == limit) {
        page.next = keys[i].text;
        return page;
      }
      page.entries.push_back({.key = keys[i].text, .manifest = manifest});
      const bool right =
          known.starts_with(fields[0].text + ":") && known.find(":" + fields[2].text + ":", 17) != std::string::npos;
      if (!right && ++repairs <= kRepairsMax) (void)core_->index(id, manifest, deadline);
    }
    if (keys.size() < wanted) return page;
    cursor = keys.back().text + '\0';
  }
}

Result<Usage> RedisTier::usage(const std::string& tenant, Deadline deadline) {
  const std::string base = redis_tenant_prefix(tenant);
  RedisCall calls[2] = {RedisCall::of_command("HLEN", base + "s"), RedisCall::of_command("GET", base + "b")};
  TRY(core_->client().run(calls, Again::kAlways, deadline));
  return Usage{.keys = static_cast<uint64_t>(std::max<int64_t>(calls[0].reply.integer, 0)),
               .bytes = parse_redis_number(calls[1].reply.text).value_or(0)};
}

Result<std::optional<LockGrant>> RedisTier::try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                                     milliseconds lease, Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  RedisCall call = RedisCall::of_script(RedisScripts::get().lock, redis_value_prefix(id) + "m");
  call.request.add(owner);
  call.request.add(mode == LockMode::kWrite ? "w" : "r");
  call.request.add(std::to_string(lease.count()));
  call.request.add(std::to_string(kReadersMax));
  TRY(core_->client().run(call, Again::kAlways, deadline));
  const auto& got = call.reply.elements;
  const std::string_view verdict = redis_verdict(call.reply);
  if (verdict == "held") return std::nullopt;
  if (verdict == "many")
    return fail(ErrorCode::kResourceExhausted,
                "the lock of " + id.key + " has " + std::to_string(kReadersMax) + " readers already");
  if (verdict != "ok" || got.size() != 3) return redis_nonsense(core_->client(), id);
  const auto token = parse_redis_number(got[1].text);
  if (!token || *token == 0) return redis_nonsense(core_->client(), id);
  return LockGrant{.token = *token, .poisoned = got[2].text == "1"};
}

Result<void> RedisTier::renew_lock(const ValueId& id, const std::string& owner, milliseconds lease, Deadline deadline) {
  TRY(check_lock(id, owner, lease));
  RedisCall call = RedisCall::of_script(RedisScripts::get().renew_lock, redis_value_prefix(id) + "m");
  call.request.add(owner);
  call.request.add(std::to_string(lease.count()));
  TRY(core_->client().run(call, Again::kAlways, deadline));
  const std::string_view verdict = redis_verdict(call.reply);
  if (verdict == "ok") return {};
  if (verdict != "lost") return redis_nonsense(core_->client(), id);
  return fail(ErrorCode::kFailedPrecondition, "the lock of " + id.key + " is not held by " + owner);
}

Result<void> RedisTier::unlock(const ValueId& id, const std::string& owner, Deadline deadline) {
  TRY(check_lock(id, owner, kLeaseMax));
  RedisCall call = RedisCall::of_script(RedisScripts::get().unlock, redis_value_prefix(id) + "m");
  call.request.add(owner);
  ASSIGN_OR_RETURN(const auto ran, core_->client().run(call, Again::kAlways, deadline));
  const std::string_view verdict = redis_verdict(call.reply);
  // Given back the first time it was asked, of which the answer was lost.
  if (verdict == "ok" || (verdict == "lost" && ran.maybe_before)) return {};
  if (verdict != "lost") return redis_nonsense(core_->client(), id);
  return fail(ErrorCode::kFailedPrecondition, "the lock of " + id.key + " is not held by " + owner);
}

}  // namespace spore::state
