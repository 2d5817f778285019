#include "state/redis_core.h"

#include <charconv>

#include "base/digest.h"
#include "base/percent.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPinAskMax(2'000);   // what renewing or dropping may take
constexpr size_t kPinsAtOnce = 256;         // renewed or dropped in one pipeline
constexpr size_t kDroppedPinsMax = 10'000;  // told to Redis; the leases of more run out

}  // namespace

std::string redis_value_prefix(const ValueId& id) {
  return "spore:{" + to_hex(tenant_id(id.tenant)) + ":" + percent_encode(id.key) + "}:";
}

std::string redis_tenant_prefix(const std::string& tenant) { return "spore:{" + to_hex(tenant_id(tenant)) + "}:"; }

std::string redis_epoch_text(uint64_t epoch) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(epoch));
  return text;
}

std::string redis_version_text(const Version& version) {
  return version.exists() ? redis_epoch_text(version.epoch) + ":" + std::to_string(version.number) : "-";
}

std::optional<uint64_t> parse_redis_number(std::string_view text, int base) {
  uint64_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

std::optional<Version> parse_redis_version(std::string_view text) {
  if (text == "-") return Version{};
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto epoch = parse_redis_number(text.substr(0, colon), 16);
  const auto number = parse_redis_number(text.substr(colon + 1));
  if (!epoch || !number || *number == 0) return std::nullopt;
  return Version{*epoch, *number};
}

std::string_view redis_verdict(const RedisReply& reply) {
  return reply.elements.empty() ? std::string_view() : std::string_view(reply.elements[0].text);
}

std::unexpected<Error> redis_nonsense(const RedisClient& client, const ValueId& id) {
  return fail(ErrorCode::kInternal,
              client.url().text() + ": what is stored of the state value " + id.key + " is not what Spore stores");
}

std::string draw_redis_name() { return to_hex(random_bytes(8)); }

RedisCore::RedisCore(std::unique_ptr<RedisClient> redis_client, RedisOptions redis_options)
    : client_(std::move(redis_client)), options_(std::move(redis_options)), keeper_([this] { look_after_pins(); }) {}

RedisCore::~RedisCore() {
  pins_.lock()->stop = true;
  pins_changed_.notify_one();
  keeper_.join();
}

void RedisCore::keep(std::shared_ptr<RedisPin> pin) { pins_.lock()->live.insert(std::move(pin)); }

void RedisCore::drop(const std::shared_ptr<RedisPin>& pin) {
  {
    auto pins = pins_.lock();
    pins->live.erase(pin);
    if (pins->dropped.size() < kDroppedPinsMax) pins->dropped.push_back(pin);
  }
  pins_changed_.notify_one();
}

void RedisCore::look_after_pins() {
  const RedisScripts& scripts = RedisScripts::get();
  const milliseconds period = options_.pin_lease / 3;
  Clock::time_point renew_at = Clock::now() + period;
  while (true) {
    std::list<std::shared_ptr<RedisPin>> drop;
    std::vector<std::shared_ptr<RedisPin>> renew;
    {
      auto pins = pins_.lock();
      while (!pins->stop && pins->dropped.empty() && Clock::now() < renew_at)
        pins_changed_.wait_until(pins.lock(), renew_at);
      if (pins->stop && pins->dropped.empty()) return;
      auto end = pins->dropped.begin();
      for (size_t i = 0; i < kPinsAtOnce && end != pins->dropped.end(); ++i) ++end;
      drop.splice(drop.end(), pins->dropped, pins->dropped.begin(), end);
      if (Clock::now() >= renew_at) renew.assign(pins->live.begin(), pins->live.end());
    }
    bool reached = true;
    std::vector<RedisCall> calls;
    for (const auto& pin : drop) {
      calls.push_back(RedisCall::of_script(scripts.unpin, pin->manifest_key));
      calls.back().request.add(pin->member);
    }
    if (!calls.empty())
      reached = client_->run(calls, RedisClient::Again::kAlways, Clock::now() + kPinAskMax).has_value();
    if (!renew.empty() || Clock::now() >= renew_at) {
      renew_at = Clock::now() + period;
      for (auto at = renew.begin(); at != renew.end();) {
        calls.clear();
        std::vector<std::shared_ptr<RedisPin>> asked;
        for (; at != renew.end() && asked.size() < kPinsAtOnce; ++at) {
          calls.push_back(RedisCall::of_script(scripts.renew_pin, (*at)->manifest_key));
          calls.back().request.add((*at)->member);
          calls.back().request.add(std::to_string(options_.pin_lease.count()));
          asked.push_back(*at);
        }
        // Where that fails the pins are asked about again by the next read, and renewed the next time.
        if (!client_->run(calls, RedisClient::Again::kAlways, Clock::now() + kPinAskMax)) {
          renew_at = Clock::now() + period / 4;
          break;
        }
        for (size_t i = 0; i < asked.size(); ++i)
          if (redis_verdict(calls[i].reply) == "lost") asked[i]->lost = true;
      }
    }
    if (!reached) {
      // Redis is away: what is left to be dropped is left to its lease.
      auto pins = pins_.lock();
      if (pins->stop) pins->dropped.clear();
    }
  }
}

Result<Manifest> RedisCore::describe(const ValueId& id, Deadline deadline) {
  RedisCall call = RedisCall::of_command("HMGET", redis_value_prefix(id) + "m");
  for (const char* field : {"e", "n", "s"}) call.request.add(field);
  TRY(client_->run(call, RedisClient::Again::kAlways, deadline));
  if (call.reply.elements.size() != 3) return redis_nonsense(*client_, id);
  if (call.reply.elements[1].kind == RedisReply::Kind::kNil)
    return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
  const auto epoch = parse_redis_number(call.reply.elements[0].text, 16);
  const auto number = parse_redis_number(call.reply.elements[1].text);
  const auto size = parse_redis_number(call.reply.elements[2].text);
  if (!epoch || !number || !size || *number == 0 || *size > kValueBytesMax) return redis_nonsense(*client_, id);
  return Manifest{.version = {*epoch, *number}, .size_bytes = *size};
}

Result<void> RedisCore::index(const ValueId& id, const Manifest& manifest, Deadline deadline) {
  RedisCall call = RedisCall::of_script(RedisScripts::get().index_set, redis_tenant_prefix(id.tenant) + "i");
  call.request.add(id.key);
  call.request.add(redis_epoch_text(manifest.version.epoch));
  call.request.add(std::to_string(manifest.version.number));
  call.request.add(std::to_string(manifest.size_bytes));
  TRY(client_->run(call, RedisClient::Again::kAlways, deadline));
  return {};
}

Result<void> RedisCore::unindex(const ValueId& id, std::string_view epoch, milliseconds age, Deadline deadline) {
  RedisCall call = RedisCall::of_script(RedisScripts::get().index_remove, redis_tenant_prefix(id.tenant) + "i");
  call.request.add(id.key);
  call.request.add(epoch);
  call.request.add(std::to_string(age.count()));
  TRY(client_->run(call, RedisClient::Again::kAlways, deadline));
  return {};
}

}  // namespace spore::state
