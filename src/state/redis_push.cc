// Pushes to the global tier in Redis: one script, with all bytes or, where there are many, after they were brought in
// parts under keys that nobody looks at and that go away by themselves.
#include <algorithm>

#include "base/digest.h"
#include "state/merge.h"
#include "state/redis_core.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;
using Again = RedisClient::Again;

constexpr size_t kSmallBytes = 512;            // patches below this go together in one argument
constexpr size_t kPatchesMax = 1 << 20;        // of one push
constexpr uint64_t kAskFirstBytes = 64 << 10;  // from here on it is looked first whether the value must be made
constexpr const char* kStagedLifeMs = "600000";

// An operation of the push script.
enum class Kind : uint32_t { kArgument = 0, kSmall = 1, kStagedPart = 2, kStagedChunk = 3 };
struct Operation {
  uint32_t chunk, offset, length;
  Kind kind;
  uint32_t from;
};
static_assert(sizeof(Operation) == 20);

struct Staged {
  uint32_t chunk;
  bool whole;
  std::vector<ByteSpan> pieces;
};

struct Plan {
  std::vector<Operation> operations;
  std::vector<ByteSpan> arguments;
  Bytes small;
  std::vector<Staged> staged;
};

struct Piece {
  uint32_t chunk, offset;
  ByteSpan bytes;
};

std::vector<Piece> by_chunk(const std::vector<Patch>& patches) {
  std::vector<Piece> out;
  for (const Patch& patch : patches)
    for (size_t taken = 0; taken < patch.bytes.size();) {
      const uint64_t at = patch.offset + taken;
      const size_t size = std::min<uint64_t>(patch.bytes.size() - taken, kChunkBytes - at % kChunkBytes);
      out.push_back({static_cast<uint32_t>(at / kChunkBytes), static_cast<uint32_t>(at % kChunkBytes),
                     patch.bytes.subspan(taken, size)});
      taken += size;
    }
  return out;
}

Plan plan_in_one(const std::vector<Piece>& pieces) {
  Plan plan;
  for (const Piece& piece : pieces) {
    const auto length = static_cast<uint32_t>(piece.bytes.size());
    if (length < kSmallBytes) {
      plan.operations.push_back(
          {piece.chunk, piece.offset, length, Kind::kSmall, static_cast<uint32_t>(plan.small.size())});
      plan.small.insert(plan.small.end(), piece.bytes.begin(), piece.bytes.end());
    } else {
      plan.operations.push_back(
          {piece.chunk, piece.offset, length, Kind::kArgument, static_cast<uint32_t>(plan.arguments.size())});
      plan.arguments.push_back(piece.bytes);
    }
  }
  return plan;
}

Plan plan_staged(const std::vector<Piece>& pieces, const Push& push) {
  Plan plan;
  for (size_t first = 0; first < pieces.size();) {
    const uint32_t chunk = pieces[first].chunk;
    size_t last = first;
    uint32_t end = pieces[first].offset;
    bool without_gaps = end == 0;
    for (; last < pieces.size() && pieces[last].chunk == chunk; ++last) {
      without_gaps = without_gaps && pieces[last].offset == end;
      end = pieces[last].offset + static_cast<uint32_t>(pieces[last].bytes.size());
    }
    const uint64_t begin = chunk * kChunkBytes;
    const bool to_end = end == kChunkBytes || (push.size_bytes && begin + end == *push.size_bytes);
    Staged staged{.chunk = chunk, .whole = without_gaps && to_end && push.merge == MergeOp::kOverwrite, .pieces = {}};
    uint32_t from = 0;
    for (size_t i = first; i < last; ++i) {
      staged.pieces.push_back(pieces[i].bytes);
      const auto length = static_cast<uint32_t>(pieces[i].bytes.size());
      if (!staged.whole) plan.operations.push_back({chunk, pieces[i].offset, length, Kind::kStagedPart, from});
      from += length;
    }
    if (staged.whole) plan.operations.push_back({chunk, 0, end, Kind::kStagedChunk, 0});
    plan.staged.push_back(std::move(staged));
    first = last;
  }
  return plan;
}

std::string staged_key(const std::string& prefix, const std::string& name, uint32_t chunk) {
  return prefix + "t:" + name + ":" + std::to_string(chunk);
}

Result<void> bring(RedisClient& client, const std::string& prefix, const std::string& name, const Plan& plan,
                   Deadline deadline) {
  static constexpr uint8_t kEmptyHeader[kRedisChunkHeaderBytes] = {};
  std::vector<RedisCall> calls;
  for (const Staged& staged : plan.staged) {
    RedisCall& call = calls.emplace_back(RedisCall::of_command("SET", staged_key(prefix, name, staged.chunk)));
    std::vector<ByteSpan> pieces;
    if (staged.whole) pieces.emplace_back(kEmptyHeader);
    pieces.insert(pieces.end(), staged.pieces.begin(), staged.pieces.end());
    call.request.add_borrowed(pieces);
    call.request.add("PX");
    call.request.add(kStagedLifeMs);
  }
  TRY(client.run(calls, Again::kAlways, deadline));
  return {};
}

void take_away(RedisClient& client, const std::string& prefix, const std::string& name, const Plan& plan) {
  std::vector<RedisCall> calls;
  for (const Staged& staged : plan.staged)
    calls.push_back(RedisCall::of_command("UNLINK", staged_key(prefix, name, staged.chunk)));
  // Where that fails they go when their time is over.
  (void)client.run(calls, Again::kAlways, Clock::now() + milliseconds(1000));
}

std::string_view merge_word(MergeOp op) {
  switch (op) {
    case MergeOp::kOverwrite: return "";
    case MergeOp::kSum: return "sum";
    case MergeOp::kMin: return "min";
    case MergeOp::kMax: return "max";
  }
  return "";
}

std::string_view element_word(Element element) {
  switch (element) {
    case Element::kI32: return "i32";
    case Element::kI64: return "i64";
    case Element::kF32: return "f32";
    case Element::kF64: return "f64";
  }
  return "";
}

}  // namespace

Result<Pushed> RedisCore::push_append(const ValueId& id, const Push& push, Deadline deadline) {
  // Where it begins is known only when it is applied: as patches at the version that is there, until that holds.
  while (true) {
    Push patches{.size_bytes = 0, .expected = Version{}, .once = push.once, .lock_token = push.lock_token};
    uint64_t size = 0;
    auto now = describe(id, deadline);
    if (now) {
      patches.expected = now->version;
      size = now->size_bytes;
    } else if (now.error().code != ErrorCode::kNotFound) {
      return std::unexpected(std::move(now).error());
    }
    if (push.append->size() > kValueBytesMax - size)
      return fail(ErrorCode::kInvalidArgument, "the state value " + id.key + " would have " +
                                                   std::to_string(size + push.append->size()) + " bytes, more than " +
                                                   std::to_string(kValueBytesMax));
    const bool meant = !push.expected || *push.expected == *patches.expected;
    if (push.expected) patches.expected = push.expected;
    patches.patches = {{.offset = size, .bytes = *push.append}};
    patches.size_bytes = size + push.append->size();
    auto pushed = this->push(id, patches, deadline);
    if (pushed || pushed.error().code != ErrorCode::kAlreadyExists || push.expected || !meant) return pushed;
  }
}

Result<Pushed> RedisCore::push(const ValueId& id, const Push& push, Deadline deadline) {
  TRY(check_push(id, push));
  const std::string prefix = redis_value_prefix(id);
  uint64_t bytes = push.append ? push.append->size() : 0;
  for (const Patch& patch : push.patches) bytes += patch.bytes.size();
  if (push.patches.size() > kPatchesMax)
    return fail(ErrorCode::kResourceExhausted, "a push of " + std::to_string(push.patches.size()) +
                                                   " patches, more than " + std::to_string(kPatchesMax));
  const bool large = bytes > options_.push_bytes_at_once;
  if (push.append && large) return push_append(id, push, deadline);

  const std::string epoch_text = to_hex(random_bytes(8));
  const uint64_t epoch = *parse_redis_number(epoch_text, 16);
  const bool could_make = push.size_bytes || push.append;
  bool may_make = false;
  const auto announce = [&]() -> Result<void> {
    may_make = true;
    return index(id, {.version = {epoch, 0}, .size_bytes = push.size_bytes.value_or(bytes)}, deadline);
  };
  if (could_make && bytes >= kAskFirstBytes) {
    auto now = describe(id, deadline);
    if (!now && now.error().code != ErrorCode::kNotFound) return std::unexpected(std::move(now).error());
    if (!now) TRY(announce());
  }

  const std::vector<Piece> pieces = by_chunk(push.patches);
  Plan plan = large ? plan_staged(pieces, push) : plan_in_one(pieces);
  const std::string staged_name = large ? draw_redis_name() : "";
  if (push.append) plan.arguments.push_back(*push.append);
  Result<void> brought;
  if (large) brought = bring(*client_, prefix, staged_name, plan, deadline);

  Result<Pushed> out = fail(ErrorCode::kInternal, "not pushed");
  bool applied = false, index_now = may_make;
  if (!brought) out = std::unexpected(std::move(brought).error());
  for (bool again = brought.has_value(); again;) {
    again = false;
    RedisCall call = RedisCall::of_script(RedisScripts::get().push, prefix + "m");
    call.request.add(epoch_text);
    call.request.add(push.size_bytes ? std::to_string(*push.size_bytes) : "");
    call.request.add(push.expected ? redis_version_text(*push.expected) : "");
    call.request.add(push.once);
    call.request.add(push.lock_token == 0 ? "" : std::to_string(push.lock_token));
    call.request.add(merge_word(push.merge));
    call.request.add(element_word(push.element));
    call.request.add(std::string(may_make ? "c" : "") + (push.replace ? "r" : "") + (push.append ? "a" : ""));
    call.request.add(staged_name);
    call.request.add_borrowed(
        ByteSpan(reinterpret_cast<const uint8_t*>(plan.operations.data()), plan.operations.size() * sizeof(Operation)));
    call.request.add_borrowed(plan.small);
    for (const ByteSpan argument : plan.arguments) call.request.add_borrowed(argument);
    call.work_bytes = bytes;
    const auto ran = client_->run(call, push.once.empty() ? Again::kOnlyIfNotCarriedOut : Again::kAlways, deadline);
    if (!ran) {
      out = std::unexpected(ran.error());
      break;
    }
    const auto& got = call.reply.elements;
    const std::string_view verdict = redis_verdict(call.reply);
    if (verdict == "ok" && got.size() == 5) {
      const auto before = parse_redis_version(got[1].text), after = parse_redis_version(got[2].text);
      const auto size = parse_redis_number(got[3].text);
      if (!before || !after || !size) return redis_nonsense(*client_, id);
      out = Pushed{.before = *before, .after = {.version = *after, .size_bytes = *size}};
      applied = true;
      index_now = index_now || !before->exists() || got[4].text != got[3].text;
    } else if (verdict == "make" && !may_make) {
      if (auto announced = announce(); !announced) {
        out = std::unexpected(std::move(announced).error());
      } else {
        again = true;
      }
      index_now = true;
    } else if (verdict == "missing") {
      out = fail(ErrorCode::kNotFound, "there is no state value " + id.key);
    } else if (verdict == "version" && got.size() == 2) {
      const auto is = parse_redis_version(got[1].text);
      if (!is || !push.expected) return redis_nonsense(*client_, id);
      const auto now = is->exists() ? std::optional(Manifest{.version = *is}) : std::nullopt;
      auto mismatch = check_expected(id, push.expected, now);
      if (mismatch) return redis_nonsense(*client_, id);
      out = std::unexpected(std::move(mismatch).error());
    } else if (verdict == "token") {
      out = fail(ErrorCode::kFailedPrecondition,
                 "the lock of " + id.key + " has been granted to somebody else since, or its record is gone");
    } else if (verdict == "size" && got.size() == 2) {
      out = fail(ErrorCode::kInvalidArgument,
                 "push to the state value " + id.key + ": it does not fit a size of " + got[1].text + " bytes");
    } else if (verdict == "staged") {
      out = fail(ErrorCode::kUnavailable,
                 client_->url().text() + ": what a large push had brought was gone before it could be applied");
    } else {
      out = redis_nonsense(*client_, id);
    }
  }
  if (large && !applied) take_away(*client_, prefix, staged_name, plan);
  if (!index_now) return out;
  // The index says what is; where that fails, listing repairs it.
  if (out) {
    (void)index(id, out->after, deadline);
  } else {
    const Deadline soon = std::max(deadline, Clock::now() + milliseconds(500));
    auto now = describe(id, soon);
    if (now) {
      (void)index(id, *now, soon);
    } else if (now.error().code == ErrorCode::kNotFound && out.error().code != ErrorCode::kDeadlineExceeded) {
      (void)unindex(id, epoch_text, milliseconds(0), soon);
    }
  }
  return out;
}

}  // namespace spore::state
