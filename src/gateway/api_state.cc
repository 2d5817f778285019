// The endpoints of Api for state values, as the global tier has them.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/percent.h"
#include "gateway/api.h"
#include "gateway/api_support.h"
#include "gateway/conditions.h"
#include "gateway/problem.h"

namespace spore::gateway {
namespace asio = boost::asio;
using nlohmann::json;
using state::Manifest;
using state::Version;

namespace {

constexpr size_t kListMax = 1'000;
constexpr auto kStoreTime = std::chrono::seconds(60);  // for all that one request asks of the store
constexpr auto kStreamTime = std::chrono::hours(1);    // for a client to take a value
constexpr auto kReadTime = std::chrono::seconds(30);   // for a piece of it to come from the store
constexpr int kAttemptsMax = 16;                       // at a change that others come in between of
constexpr size_t kPieceBytes = state::kChunkBytes;     // read at once; what is no larger is not streamed
constexpr int kPiecesAtOnce = 16;                      // before others have their turn

std::string tag_text(const Version& version) {
  char text[40];
  const int length = std::snprintf(text, sizeof(text), "%llx-%llx", static_cast<unsigned long long>(version.epoch),
                                   static_cast<unsigned long long>(version.number));
  return {text, static_cast<size_t>(length)};
}

std::string tag_of(const Version& version) { return '"' + tag_text(version) + '"'; }

json json_of(const std::string& key, const Manifest& manifest) {
  return {{"key", key}, {"size_bytes", manifest.size_bytes}, {"version", tag_text(manifest.version)}};
}

Response problem_of_store(const Error& error, std::string_view instance) {
  if (error.code == ErrorCode::kResourceExhausted) return problem(507, error.message, instance);
  if (error.code == ErrorCode::kFailedPrecondition) return problem(503, error.message, instance);
  return problem_of(error, instance);
}

// What is wrong with the query: a parameter that this request has no use for, or one that is not well escaped. A
// misspelt `offset` must not replace the whole value.
std::optional<std::string> fault_of_query(std::string_view query, std::initializer_list<std::string_view> known) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.empty()) continue;
    const std::string_view name = pair.substr(0, pair.find('='));
    if (std::ranges::find(known, name) == known.end()) {
      std::string out = "the query has \"" + std::string(name) + "\", which means nothing here";
      for (const auto& each : known) out += (each == *known.begin() ? "; it may have " : ", ") + std::string(each);
      return out;
    }
    if (!percent_decode(pair)) return "the query has a % that is not followed by two hexadecimal digits";
  }
  return std::nullopt;
}

// One of the requests that are under way, for as long as it lives.
class UnderWay {
 public:
  // Nothing where `most` are under way already. So none of them finds the queue of the work full.
  static std::optional<UnderWay> begin(std::atomic<size_t>& count, size_t most) {
    UnderWay out(count);
    if (count.fetch_add(1) >= most) return std::nullopt;
    return out;
  }
  UnderWay(UnderWay&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
  UnderWay& operator=(UnderWay&&) = delete;
  ~UnderWay() {
    if (count_) count_->fetch_sub(1);
  }

 private:
  explicit UnderWay(std::atomic<size_t>& count) : count_(&count) {}
  std::atomic<size_t>* count_;
};

// A part of a value on its way to a client. step() runs on a thread of `work`, and moves pieces until the client does
// not keep up; then no thread waits for it but the server's reactor. One thread at a time. Ended by its destructor
// where nothing else ends it: the client then has a broken connection.
class ValueStream : public std::enable_shared_from_this<ValueStream> {
 public:
  struct Source {
    std::shared_ptr<state::Snapshot> snapshot;
    ByteRange part;
    MemoryBudget::Share share;  // of kPieceBytes
  };
  // After responder.begin_body() gave `pipe`.
  ValueStream(Source source, Responder responder, int pipe, asio::io_context& io, Background& work, UnderWay under_way)
      : under_way_(std::move(under_way)),
        source_(std::move(source)),
        responder_(std::move(responder)),
        writable_(io),
        work_(work),
        ends_at_(state::Clock::now() + kStreamTime) {
    UniqueFd own(::fcntl(pipe, F_DUPFD_CLOEXEC, 0));
    boost::system::error_code error;
    if (own.valid()) writable_.assign(own.release(), error);
  }
  ~ValueStream() { end(false); }
  ValueStream(const ValueStream&) = delete;
  ValueStream& operator=(const ValueStream&) = delete;

  void step() {
    for (int pieces = 0;; ++pieces) {
      const Written written = write_some();
      if (written != Written::kAll) return go_on_after(written);
      if (source_.part.begin == source_.part.end) return end(true);
      if (pieces == kPiecesAtOnce) return go_on_after(written);
      if (!read_piece()) return end(false);
    }
  }

 private:
  enum class Written : uint8_t { kAll, kBlocked, kFailed };

  Written write_some() {
    while (written_ < piece_.size()) {
      const ssize_t count = ::write(writable_.native_handle(), piece_.data() + written_, piece_.size() - written_);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return errno == EAGAIN ? Written::kBlocked : Written::kFailed;
      written_ += static_cast<size_t>(count);
    }
    return Written::kAll;
  }

  // Up to the next chunk's beginning, so that no chunk is read twice.
  bool read_piece() {
    ByteRange& part = source_.part;
    const auto now = state::Clock::now();
    if (now >= ends_at_) return false;
    piece_.resize(std::min(part.end - part.begin, state::kChunkBytes - part.begin % state::kChunkBytes));
    written_ = 0;
    if (!source_.snapshot->read(part.begin, piece_, now + kReadTime)) return false;
    part.begin += piece_.size();
    return true;
  }

  void go_on_after(Written written) {
    if (written == Written::kFailed) return end(false);
    if (written == Written::kAll) {
      Background::Task task = [self = shared_from_this()] { self->step(); };
      if (!work_.try_submit(task)) end(false);  // the host is being ended
      return;
    }
    writable_.async_wait(asio::posix::stream_descriptor::wait_write,
                         [self = shared_from_this()](const boost::system::error_code& error) {
                           self->go_on_after(error ? Written::kFailed : self->write_some());
                         });
  }

  void end(bool complete) {
    if (std::exchange(ended_, true)) return;
    boost::system::error_code ignored;
    writable_.close(ignored);  // before end_body(), which makes the client's end of the pipe end
    responder_.end_body(complete);
  }

  UnderWay under_way_;
  Source source_;
  Responder responder_;
  asio::posix::stream_descriptor writable_;
  Background& work_;
  const state::Deadline ends_at_;
  Bytes piece_;
  size_t written_ = 0;
  bool ended_ = false;
};

}  // namespace

struct Api::StateRequest {
  UnderWay under_way;
  std::optional<Responder> responder;
  Verb method;
  state::ValueId id;  // the key is empty for a list
  std::string path;

  Conditions conditions;
  std::optional<std::string> range, if_range;
  std::optional<uint64_t> offset;  // of PUT: where the body goes; nothing: it is the whole value
  Bytes body;
  MemoryBudget::Share share;

  std::string prefix, cursor;
  size_t limit = 0;
};

void Api::state(Request& request, Responder responder) {
  const Route& route = request.route;
  const auto refuse = [&](unsigned status, std::string_view detail) {
    responder.respond(answer(request, problem(status, detail, request.path())));
  };
  if (!options_.state) return refuse(404, "this host has no state");
  const auto field = [&](Field which) {
    return request.has(which) ? std::optional(request.field(which)) : std::nullopt;
  };
  auto under_way = UnderWay::begin(state_requests_, options_.state_requests_max);
  if (!under_way) return refuse(503, "too many requests about state are under way");
  auto asked =
      std::make_shared<StateRequest>(StateRequest{.under_way = std::move(*under_way),
                                                  .method = request.method,
                                                  .id = {.tenant = route.tenant, .key = {}},
                                                  .path = std::string(request.path()),
                                                  .conditions = {field(Field::kIfMatch), field(Field::kIfNoneMatch)},
                                                  .range = field(Field::kRange),
                                                  .if_range = field(Field::kIfRange)});
  if (const auto named = functions::check_name_part("the tenant's name", route.tenant); !named) {
    return refuse(400, named.error().message);
  }
  std::optional<std::string> fault;
  if (route.endpoint == Endpoint::kValues) {
    fault = fault_of_query(request.query(), {"prefix", "limit", "cursor"});
    if (fault) return refuse(400, *fault);
    asked->prefix = request.parameter("prefix").value_or("");
    asked->limit = limit_of(request, 100, kListMax);
    const auto cursor = percent_decode(request.parameter("cursor").value_or(""));
    if (!cursor) return refuse(400, "the cursor is none that this host gave");
    asked->cursor = *cursor;
  } else {
    auto key = percent_decode(route.rest);
    if (!key) return refuse(400, "the key has a % that is not followed by two hexadecimal digits; % itself is %25");
    if (const auto good = state::check_key(*key); !good) return refuse(400, good.error().message);
    asked->id.key = std::move(*key);
    if (request.method == Verb::put) {
      fault = fault_of_query(request.query(), {"offset"});
    } else if (request.method == Verb::post) {
      fault = fault_of_query(request.query(), {"append"});
      if (!fault && !request.parameter("append")) fault = "POST appends to a value: /v1/state/TENANT/KEY?append";
    } else {
      fault = fault_of_query(request.query(), {});
    }
    if (fault) return refuse(400, *fault);
    if (request.has_body() && request.has(Field::kContentRange)) {
      return refuse(400, "Content-Range is not understood: PUT writes a part of a value with ?offset=");
    }
    if (const auto offset = request.parameter("offset")) {
      asked->offset = parse_number(*offset);
      if (!asked->offset) return refuse(400, "offset is a whole number of bytes, not \"" + *offset + "\"");
    }
  }
  asked->body = std::move(request.body);
  asked->share = std::move(request.body_share);
  asked->responder.emplace(std::move(responder));
  Background::Task task = [this, asked] {
    std::optional<Response> response;
    if (asked->id.key.empty()) {
      response = list_values(*asked);
    } else if (asked->method == Verb::get || asked->method == Verb::head) {
      response = get_value(*asked);
    } else {
      response = change_value(*asked);
    }
    asked->share.release();
    if (!response) return;
    metrics_.count_response(response->status);
    asked->responder->respond(std::move(*response));
  };
  if (!state_work_.try_submit(task)) {
    asked->responder->respond(
        answer(request, problem(503, "draining", "The host is shutting down", "", request.path())));
  }
}

Response Api::list_values(const StateRequest& request) {
  const auto page = options_.state->list(request.id.tenant, request.prefix, request.cursor, request.limit,
                                         state::Clock::now() + kStoreTime);
  if (!page) return problem_of_store(page.error(), request.path);
  json values = json::array();
  for (const auto& entry : page->entries) values.push_back(json_of(entry.key, entry.manifest));
  json out = {{"values", std::move(values)}};
  if (!page->next.empty()) out["cursor"] = percent_encode(page->next);
  return json_response(200, out);
}

std::optional<Response> Api::get_value(StateRequest& request) {
  const auto deadline = state::Clock::now() + kStoreTime;
  std::shared_ptr<state::Snapshot> snapshot;
  Manifest manifest;
  if (request.method == Verb::head) {
    const auto described = options_.state->describe(request.id, deadline);
    if (!described) return problem_of_store(described.error(), request.path);
    manifest = *described;
  } else {
    auto pinned = options_.state->pin(request.id, deadline);
    if (!pinned) return problem_of_store(pinned.error(), request.path);
    snapshot = std::move(*pinned);
    manifest = snapshot->manifest();
  }
  const std::string tag = tag_of(manifest.version);
  const auto with_tag = [&](Response response) {
    response.add_field("ETag", tag);
    return response;
  };
  switch (request.conditions.judge(tag)) {
    case Conditions::Verdict::kHold: break;
    case Conditions::Verdict::kIfMatchFails:
      return with_tag(problem(412, "If-Match: the value is at version " + tag, request.path));
    case Conditions::Verdict::kIfNoneMatchFails: return with_tag(Response{.status = 304});
  }
  Response response = with_tag(Response{});
  response.add_field("Accept-Ranges", "bytes");
  if (request.method == Verb::head) {
    response.length = Response::Length::kInFields;
    response.add_field("Content-Length", std::to_string(manifest.size_bytes));
    return response;
  }
  ByteRange part{0, manifest.size_bytes};
  if (request.range && (!request.if_range || range_counts(*request.if_range, tag))) {
    const RangeAnswer range = range_of(*request.range, manifest.size_bytes);
    const std::string size = std::to_string(manifest.size_bytes);
    if (range.kind == RangeAnswer::Kind::kUnsatisfiable) {
      Response refusal = with_tag(problem(416, "the value has " + size + " bytes", request.path));
      refusal.add_field("Content-Range", "bytes */" + size);
      return refusal;
    }
    if (range.kind == RangeAnswer::Kind::kPart) {
      part = range.part;
      response.status = 206;
      response.add_field("Content-Range",
                         "bytes " + std::to_string(part.begin) + "-" + std::to_string(part.end - 1) + "/" + size);
    }
  }
  if (part.end - part.begin <= kPieceBytes) {
    response.body.resize(part.end - part.begin);
    if (!response.body.empty()) {
      if (const auto read = snapshot->read(part.begin, response.body, deadline); !read) {
        return problem_of_store(read.error(), request.path);
      }
    }
    return response;
  }
  CHECK(server_ != nullptr);
  MemoryBudget::Share share;
  const bool has_memory = share.grow_to(server_->memory(), kPieceBytes);
  const unsigned status = response.status;
  const int pipe = has_memory ? request.responder->begin_body(response, part.end - part.begin) : -1;
  if (pipe < 0) return problem(503, "the means for streamed bodies are all in use", request.path);
  metrics_.count_response(status);
  const auto stream = std::make_shared<ValueStream>(ValueStream::Source{std::move(snapshot), part, std::move(share)},
                                                    std::move(*request.responder), pipe, server_->io(), state_work_,
                                                    std::move(request.under_way));
  stream->step();
  return std::nullopt;
}

// A change whose conditions or place depend on the value as it is now is made only to that version, and looked at again
// where somebody else was faster.
Response Api::change_value(const StateRequest& request) {
  state::GlobalTier& tier = *options_.state;
  const auto deadline = state::Clock::now() + kStoreTime;
  const bool removes = request.method == Verb::delete_, appends = request.method == Verb::post;
  const auto body_bytes = request.body.size();
  const auto too_large = [&] {
    return problem(413, "a value has at most " + std::to_string(state::kValueBytesMax) + " bytes", request.path);
  };
  const auto changed = [&](unsigned status, const Manifest& manifest) {
    Response response = json_response(status, json_of(request.id.key, manifest));
    response.add_field("ETag", tag_of(manifest.version));
    return response;
  };
  if (request.offset.value_or(0) > state::kValueBytesMax - std::min(state::kValueBytesMax, body_bytes)) {
    return too_large();
  }
  Error last;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    std::optional<Version> expected;
    Manifest now;
    if (request.conditions.any() || request.offset) {
      const auto described = tier.describe(request.id, deadline);
      if (!described && described.error().code != ErrorCode::kNotFound) {
        return problem_of_store(described.error(), request.path);
      }
      if (described) now = *described;
      const auto tag = described ? std::optional(tag_of(now.version)) : std::nullopt;
      if (const auto verdict = request.conditions.judge(tag); verdict != Conditions::Verdict::kHold) {
        const std::string field = verdict == Conditions::Verdict::kIfMatchFails ? "If-Match" : "If-None-Match";
        Response refusal = problem(
            412, field + ": " + (tag ? "the value is at version " + *tag : "there is no such value"), request.path);
        if (tag) refusal.add_field("ETag", *tag);
        return refusal;
      }
      if (!described && (request.offset || removes)) return problem(404, described.error().message, request.path);
      if (request.conditions.any()) expected = now.version;
      if (request.offset && body_bytes == 0) return changed(200, now);
    }
    if (removes) {
      const auto removed = tier.remove(request.id, expected, deadline);
      if (removed) return Response{.status = 204};
      last = removed.error();
      if (last.code == ErrorCode::kAlreadyExists) continue;
      return problem_of_store(last, request.path);
    }
    state::Push push{.expected = expected};
    if (appends) {
      push.append = request.body;
    } else {
      if (body_bytes > 0) push.patches.push_back({.offset = request.offset.value_or(0), .bytes = request.body});
      if (!request.offset) {
        push.size_bytes = body_bytes;
        push.replace = true;
      } else if (body_bytes > 0 && *request.offset + body_bytes > now.size_bytes) {
        push.size_bytes = *request.offset + body_bytes;
        push.expected = now.version;
      }
    }
    const auto pushed = tier.push(request.id, push, deadline);
    if (pushed) return changed(pushed->before.exists() ? 200 : 201, pushed->after);
    last = pushed.error();
    // The second: it has become smaller meanwhile.
    const bool again = last.code == ErrorCode::kAlreadyExists ||
                       (request.offset && !push.size_bytes && last.code == ErrorCode::kInvalidArgument);
    if (appends && last.code == ErrorCode::kInvalidArgument) return too_large();
    if (!again) return problem_of_store(last, request.path);
  }
  return problem(503, "others change the value all the time: " + last.message, request.path);
}

}  // namespace spore::gateway
