// Pins of the global tier in Redis, and reading what they hold.
//
// A read takes the chunks from their places and then looks whether the value is still at the pinned version, in one
// pipeline. Where it is, all that was read is of that version. Where it is not, Redis is asked where each chunk of the
// pinned version is now: in its place (then what was read is good, as it was read before), kept for pins, or zero.
#include <algorithm>

#include "state/redis_core.h"

namespace spore::state {
namespace {

constexpr size_t kPinsMax = 4096;       // of one value
constexpr size_t kChunksAtOnce = 1024;  // asked about in one script

struct Part {
  uint32_t chunk;
  uint64_t offset;  // in the chunk
  std::span<uint8_t> to;
};

RedisCall get_range(const std::string& key, const Part& part) {
  RedisCall call = RedisCall::of_command("GETRANGE", key);
  call.request.add(std::to_string(kRedisChunkHeaderBytes + part.offset));
  call.request.add(std::to_string(kRedisChunkHeaderBytes + part.offset + part.to.size() - 1));
  call.has_sink = true;
  call.sink = part.to;
  return call;
}

// What the string does not have is zero.
void fill_rest(const RedisCall& call) {
  std::ranges::fill(call.sink.subspan(std::min(call.reply.sunk_bytes, call.sink.size())), 0);
}

class RedisSnapshot final : public Snapshot {
 public:
  RedisSnapshot(std::shared_ptr<RedisCore> core, ValueId id, Manifest manifest, std::string zeroed,
                std::shared_ptr<RedisPin> pin)
      : Snapshot(manifest),
        core_(std::move(core)),
        id_(std::move(id)),
        prefix_(redis_value_prefix(id_)),
        zeroed_(std::move(zeroed)),
        pin_(std::move(pin)) {
    core_->keep(pin_);
  }
  ~RedisSnapshot() override { core_->drop(pin_); }

  Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) override;
  Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                              Deadline deadline) override;

 private:
  std::unexpected<Error> lost() const {
    return fail(ErrorCode::kFailedPrecondition, "version " + std::to_string(manifest_.version.number) +
                                                    " of the state value " + id_.key + " is not kept any more");
  }
  RedisCall ask_version() const {
    RedisCall call = RedisCall::of_command("HMGET", prefix_ + "m");
    call.request.add("e");
    call.request.add("n");
    return call;
  }
  bool is_still(const RedisCall& version) const {
    const auto& fields = version.reply.elements;
    return fields.size() == 2 && fields[0].text == redis_epoch_text(manifest_.version.epoch) &&
           fields[1].text == std::to_string(manifest_.version.number);
  }
  Result<void> read_moved(std::span<const Part> parts, Deadline deadline);

  const std::shared_ptr<RedisCore> core_;
  const ValueId id_;
  const std::string prefix_;
  const std::string zeroed_;
  const std::shared_ptr<RedisPin> pin_;
};

Result<void> RedisSnapshot::read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) {
  if (offset > manifest_.size_bytes || to.size() > manifest_.size_bytes - offset)
    return fail(ErrorCode::kInvalidArgument, "a read of " + std::to_string(to.size()) + " bytes at " +
                                                 std::to_string(offset) + " goes beyond the size of the state value " +
                                                 id_.key + ", " + std::to_string(manifest_.size_bytes));
  if (pin_->lost) return lost();
  std::vector<Part> parts;
  std::vector<RedisCall> calls;
  for (size_t taken = 0; taken < to.size();) {
    const uint64_t at = offset + taken;
    const size_t size = std::min<uint64_t>(to.size() - taken, kChunkBytes - at % kChunkBytes);
    parts.push_back({static_cast<uint32_t>(at / kChunkBytes), at % kChunkBytes, to.subspan(taken, size)});
    calls.push_back(get_range(prefix_ + "c:" + std::to_string(parts.back().chunk), parts.back()));
    taken += size;
  }
  calls.push_back(ask_version());
  ASSIGN_OR_RETURN(const auto ran, core_->client().run(calls, RedisClient::Again::kAlways, deadline));
  if (!ran.in_order) {
    calls.back() = ask_version();
    TRY(core_->client().run(calls.back(), RedisClient::Again::kAlways, deadline));
  }
  for (size_t i = 0; i < parts.size(); ++i) fill_rest(calls[i]);
  if (is_still(calls.back())) return {};
  for (size_t first = 0; first < parts.size(); first += kChunksAtOnce)
    TRY(read_moved(std::span(parts).subspan(first, std::min(kChunksAtOnce, parts.size() - first)), deadline));
  return {};
}

Result<void> RedisSnapshot::read_moved(std::span<const Part> parts, Deadline deadline) {
  ByteWriter chunks;
  for (const Part& part : parts) chunks.write(part.chunk);
  RedisCall locate = RedisCall::of_script(RedisScripts::get().locate, prefix_ + "m");
  locate.request.add(pin_->member);
  locate.request.add(as_text(chunks.bytes()));
  TRY(core_->client().run(locate, RedisClient::Again::kAlways, deadline));
  if (redis_verdict(locate.reply) == "lost") {
    pin_->lost = true;
    return lost();
  }
  if (locate.reply.elements.size() != parts.size() + 1) return redis_nonsense(core_->client(), id_);
  std::vector<RedisCall> calls;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string& place = locate.reply.elements[i + 1].text;
    if (place.empty()) continue;
    if (place == "z") {
      std::ranges::fill(parts[i].to, 0);
      continue;
    }
    calls.push_back(get_range(place, parts[i]));
    calls.push_back(RedisCall::of_command("EXISTS", place));
  }
  if (calls.empty()) return {};
  ASSIGN_OR_RETURN(const auto ran, core_->client().run(calls, RedisClient::Again::kAlways, deadline));
  if (!ran.in_order) {
    std::vector<RedisCall> again;
    for (size_t i = 1; i < calls.size(); i += 2) {
      RedisCall call;
      call.request = calls[i].request;
      call.slot = calls[i].slot;
      again.push_back(std::move(call));
    }
    TRY(core_->client().run(again, RedisClient::Again::kAlways, deadline));
    for (size_t i = 0; i < again.size(); ++i) calls[2 * i + 1].reply = std::move(again[i].reply);
  }
  for (size_t i = 0; i < calls.size(); i += 2) {
    if (calls[i + 1].reply.integer != 1) return lost();
    fill_rest(calls[i]);
  }
  return {};
}

Result<std::vector<uint64_t>> RedisSnapshot::changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                                           Deadline deadline) {
  if (pin_->lost) return lost();
  std::vector<uint64_t> out;
  out.reserve(chunks.size());
  for (const uint32_t chunk : chunks)
    if (chunk >= chunks_of(manifest_.size_bytes))
      return fail(ErrorCode::kInvalidArgument, "chunk " + std::to_string(chunk) +
                                                   " is beyond the size of the state value " + id_.key + ", " +
                                                   std::to_string(manifest_.size_bytes));
  std::vector<RedisCall> calls;
  for (size_t first = 0; first < chunks.size(); first += kChunksAtOnce) {
    ByteWriter some;
    for (const uint32_t chunk : chunks.subspan(first, std::min(kChunksAtOnce, chunks.size() - first)))
      some.write(chunk);
    RedisCall& call = calls.emplace_back(RedisCall::of_script(RedisScripts::get().changed, prefix_ + "m"));
    call.request.add(pin_->member);
    call.request.add(std::to_string(since));
    call.request.add(zeroed_);
    call.request.add(as_text(some.bytes()));
  }
  TRY(core_->client().run(calls, RedisClient::Again::kAlways, deadline));
  for (const RedisCall& call : calls) {
    if (redis_verdict(call.reply) == "lost") {
      pin_->lost = true;
      return lost();
    }
    if (call.reply.elements.size() != 2) return redis_nonsense(core_->client(), id_);
    ByteReader pages(as_bytes(call.reply.elements[1].text));
    while (!pages.at_end() && pages.ok()) out.push_back(pages.read<uint64_t>());
  }
  if (out.size() != chunks.size()) return redis_nonsense(core_->client(), id_);
  // Only pages that a value of this size has.
  for (size_t i = 0; i < chunks.size(); ++i) {
    const uint64_t begin = chunks[i] * kChunkBytes;
    const uint64_t pages = (std::min(manifest_.size_bytes - begin, kChunkBytes) + kPageBytes - 1) / kPageBytes;
    if (pages < kPagesPerChunk) out[i] &= (1ull << pages) - 1;
  }
  return out;
}

}  // namespace

Result<std::shared_ptr<Snapshot>> RedisCore::pin(const ValueId& id, Deadline deadline) {
  const std::string key = redis_value_prefix(id) + "m";
  RedisCall call = RedisCall::of_script(RedisScripts::get().pin, key);
  const std::string name = draw_redis_name();
  call.request.add(name);
  call.request.add(std::to_string(options_.pin_lease.count()));
  call.request.add(std::to_string(kPinsMax));
  TRY(client_->run(call, RedisClient::Again::kAlways, deadline));
  const auto& got = call.reply.elements;
  const std::string_view verdict = redis_verdict(call.reply);
  if (verdict == "missing") return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
  if (verdict == "many")
    return fail(ErrorCode::kResourceExhausted,
                "the state value " + id.key + " is pinned " + std::to_string(kPinsMax) + " times already");
  if (verdict != "ok" || got.size() != 5) return redis_nonsense(*client_, id);
  const auto epoch = parse_redis_number(got[1].text, 16);
  const auto number = parse_redis_number(got[2].text);
  const auto size = parse_redis_number(got[3].text);
  if (!epoch || !number || !size || *number == 0 || *size > kValueBytesMax) return redis_nonsense(*client_, id);
  auto pin = std::make_shared<RedisPin>();
  pin->manifest_key = key;
  pin->member = got[1].text + ":" + got[2].text + ":" + name;
  return std::make_shared<RedisSnapshot>(
      shared_from_this(), id, Manifest{.version = {*epoch, *number}, .size_bytes = *size}, got[4].text, std::move(pin));
}

}  // namespace spore::state
