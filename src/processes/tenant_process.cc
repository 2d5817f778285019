#include "processes/tenant_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "base/check.h"
#include "host/call_files.h"
#include "host/file_systems.h"

namespace spore::processes {

using functions::FunctionId;
using std::chrono::milliseconds;
using worker::CallResult;
using worker::CallStatus;

namespace {

constexpr size_t kCancelledEarlyMax = 64;
constexpr auto kLook = milliseconds(50);  // how often deadlines are looked at
constexpr auto kBrokerPatience = milliseconds(10'000);
constexpr auto kEndPatience = milliseconds(10'000);
constexpr auto kSaidWindow = milliseconds(10'000);
constexpr size_t kSaidLinesMax = 100;  // of what a process says on standard error, in such a time
constexpr size_t kSaidBytesMax = 512;  // of one

int milliseconds_until(Clock::time_point time) {
  const auto left = std::chrono::ceil<milliseconds>(time - Clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
}

std::unexpected<Error> breaks_protocol(std::string why) {
  return fail(ErrorCode::kInvalidArgument, "it does not keep to the protocol: " + std::move(why));
}

CallId read_id(ByteReader& in) {
  CallId id;
  for (uint8_t& byte : id.bytes) byte = in.read<uint8_t>();
  return id;
}

}  // namespace

struct TenantProcess::Call {
  CallId id;
  worker::CallDone done;
  std::optional<Frame> frame;  // until it is sent
  uint64_t output_bytes_max = 0;
  Clock::time_point deadline;
  bool cancelled = false;
  Clock::time_point kill_at;  // of one that was sent

  // Its streams, and whether it has ended: then they are not asked any more.
  struct Streaming {
    std::shared_ptr<worker::StreamedCall> streams;
    bool ended = false;
  };
  Guarded<Streaming> streaming;
};

struct TenantProcess::Life : std::enable_shared_from_this<Life> {
  Life(isolation::ApartProcess made, state::GlobalTier* state, const std::string& tenant, milliseconds request_max)
      : process(std::move(made)), link(std::move(process.socket), 0), tier(state, tenant, request_max) {}
  isolation::ApartProcess process;
  Link link;
  TierService tier;
  // Of its calls that have opened a socket, by numbers of the process's.
  Guarded<std::unordered_map<uint64_t, isolation::NetworkLease>> networks;
  const Clock::time_point began = Clock::now();
  bool ready = false;
  bool leaves = false;
  std::atomic<bool> deaf{false};  // it does not take its answers
  std::atomic<size_t> requests{0};
  std::atomic<uint64_t> request_bytes{0};
  std::string said;  // of a line that is not whole
  Clock::time_point said_since;
  size_t said_lines = 0;
};

TenantProcess::TenantProcess(TenantProcesses& owner, std::string tenant)
    : owner_(owner), tenant_(std::move(tenant)), wakes_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  CHECK(wakes_.valid(), errno);
  thread_ = std::jthread([this] { run(); });
}

TenantProcess::~TenantProcess() { stop(); }

void TenantProcess::wake() const { ::eventfd_write(wakes_.get(), 1); }

// ---- calls ----------------------------------------------------------------------------------------------------------

CallResult TenantProcess::failed(const CallId& id, CallStatus status, Error error) {
  CallResult result;
  result.id = id;
  result.status = status;
  result.error = std::move(error);
  result.trap.kind = wasm::TrapKind::kInterrupted;
  result.trap.message = "the call ended before it could start";
  return result;
}

void TenantProcess::finish(Call& call, CallResult result) {
  call.streaming.lock()->ended = true;  // who asks them now is waited for
  result.id = call.id;
  call.done(std::move(result));
}

void TenantProcess::start(worker::CallRequest request, Clock::time_point deadline, worker::CallDone done) {
  const auto& function = *request.function;
  auto call = std::make_shared<Call>();
  call->id = request.id;
  call->done = std::move(done);
  call->deadline = deadline;
  call->output_bytes_max = function.version.config.output_max_bytes;
  CallFrame head{.id = request.id,
                 .function = function.id.name,
                 .version = function.version.number,
                 .module_digest = function.version.module_digest,
                 .deadline_ns = to_ns(deadline),
                 .loading_us = request.loading.count(),
                 .priority = request.priority,
                 .has_streams = request.streams != nullptr,
                 .arguments = std::move(request.arguments),
                 .environment = std::move(request.environment)};
  call->frame =
      Frame{.kind = static_cast<uint16_t>(FrameKind::kCall), .body = head.write(), .more = std::move(request.input)};
  if (request.streams) {
    if (const int input = request.streams->input(); input >= 0) {
      call->frame->descriptors.emplace_back(::fcntl(input, F_DUPFD_CLOEXEC, 0));
      if (!call->frame->descriptors.back().valid())
        return finish(*call,
                      failed(call->id, CallStatus::kFailed, {ErrorCode::kResourceExhausted, "no descriptor left"}));
    }
    call->streaming.lock()->streams = std::move(request.streams);
  }

  std::optional<CallStatus> refusal;
  {
    auto state = state_.lock();
    const auto early = std::ranges::find(state->cancelled_early, call->id);
    if (early != state->cancelled_early.end()) {
      state->cancelled_early.erase(early);
      refusal = CallStatus::kCancelled;
    } else if (state->stopping) {
      refusal = CallStatus::kDraining;
    } else if (state->calls.size() >= owner_.options_.calls_max) {
      refusal = CallStatus::kTenantQueueFull;
    } else {
      state->calls.emplace(call->id, call);
      frame_bytes_max_ = std::max<uint64_t>(frame_bytes_max_, call->output_bytes_max + (1 << 20));
      state->last_used = Clock::now();
      if (state->life && !state->leaving && !send(*state, *call)) {
        state->calls.erase(call->id);
        refusal = CallStatus::kTenantQueueFull;
      }
    }
  }
  if (refusal) return finish(*call, failed(call->id, *refusal));
  wake();
}

// False: too much is on the way. A link that is broken is found out by who reads it.
bool TenantProcess::send(State& state, Call& call) {
  Frame frame = std::move(*call.frame);
  call.frame.reset();
  call.kill_at = call.deadline + owner_.options_.grace;
  const auto posted = state.life->link.post(std::move(frame), owner_.options_.queued_bytes_max);
  return posted || posted.error().code != ErrorCode::kResourceExhausted;
}

void TenantProcess::send_waiting() {
  std::vector<CallPtr> refused;
  {
    auto state = state_.lock();
    if (!state->life || state->leaving) return;
    for (const auto& [id, call] : state->calls)
      if (call->frame && !call->cancelled && !send(*state, *call)) refused.push_back(call);
    for (const CallPtr& call : refused) state->calls.erase(call->id);
  }
  for (const CallPtr& call : refused) finish(*call, failed(call->id, CallStatus::kTenantQueueFull));
}

void TenantProcess::cancel(const CallId& id) {
  auto state = state_.lock();
  const auto found = state->calls.find(id);
  if (found == state->calls.end()) {
    state->cancelled_early.push_back(id);
    if (state->cancelled_early.size() > kCancelledEarlyMax) state->cancelled_early.pop_front();
    return;
  }
  Call& call = *found->second;
  if (std::exchange(call.cancelled, true)) return;
  if (!call.frame && state->life) {
    call.kill_at = std::min(call.kill_at, Clock::now() + owner_.options_.grace);
    Frame frame{.kind = static_cast<uint16_t>(FrameKind::kCancel)};
    frame.body.assign(id.bytes.begin(), id.bytes.end());
    (void)state->life->link.post(std::move(frame), 2 * owner_.options_.queued_bytes_max);
  }
  wake();
}

void TenantProcess::forget(const std::string& function) {
  auto state = state_.lock();
  if (!state->life) return;
  ByteWriter out;
  out.write_text(function);
  (void)state->life->link.post({.kind = static_cast<uint16_t>(FrameKind::kForget), .body = out.take()},
                               2 * owner_.options_.queued_bytes_max);
  wake();
}

TenantProcess::CallPtr TenantProcess::find_call(const CallId& id) const {
  auto state = state_.lock();
  const auto found = state->calls.find(id);
  return found == state->calls.end() || found->second->frame ? nullptr : found->second;
}

bool TenantProcess::end_late_calls() {
  const auto now = Clock::now();
  bool stuck = false;
  std::vector<std::pair<CallPtr, CallStatus>> over;
  {
    auto state = state_.lock();
    for (auto at = state->calls.begin(); at != state->calls.end();) {
      Call& call = *at->second;
      if (!call.frame) {
        stuck |= call.kill_at <= now;
      } else if (call.cancelled || call.deadline <= now) {
        over.emplace_back(at->second, call.cancelled ? CallStatus::kCancelled : CallStatus::kTimedOut);
        at = state->calls.erase(at);
        continue;
      }
      ++at;
    }
  }
  for (const auto& [call, status] : over) finish(*call, failed(call->id, status));
  return !stuck;
}

// ---- lives ----------------------------------------------------------------------------------------------------------

void TenantProcess::end_if_idle() {
  auto state = state_.lock();
  if (!state->life || !state->calls.empty()) return;
  state->end_now = true;
  wake();
}

std::optional<Clock::time_point> TenantProcess::idle_since() const {
  auto state = state_.lock();
  if (!state->life || !state->calls.empty() || state->leaving) return std::nullopt;
  return state->last_used;
}

void TenantProcess::stop() {
  state_.lock()->stopping = true;
  wake();
  if (thread_.joinable()) thread_.join();
}

// Until somebody wakes this thread, or `until`.
void TenantProcess::rest(Clock::time_point until) const {
  pollfd woken{wakes_.get(), POLLIN, 0};
  ::poll(&woken, 1, milliseconds_until(until));
  eventfd_t ignored;
  ::eventfd_read(wakes_.get(), &ignored);
}

void TenantProcess::run() {
  for (;;) {
    bool any = false;
    {
      auto state = state_.lock();
      if (state->stopping) break;
      any = !state->calls.empty();
    }
    if (!any) {
      rest(Clock::time_point::max());
      continue;
    }
    if (!end_late_calls() || Clock::now() < not_before_ || !owner_.take_place()) {
      rest(Clock::now() + kLook);
      continue;
    }
    auto life = start_process();
    if (!life) {
      owner_.give_place();
      if (state_.lock()->stopping) break;
      pause_before_next();
      spdlog::error("no process for tenant {}: {}", tenant_, life.error().message);
      end_all(CallStatus::kFailed,
              {ErrorCode::kUnavailable, "no process for tenant " + tenant_ + ": " + life.error().message});
      continue;
    }
    {
      auto state = state_.lock();
      state->life = *life;
      state->last_used = Clock::now();
      state->end_now = false;
    }
    send_waiting();
    const Error why = live(**life);
    end_life(*life, why);
  }
  end_all(CallStatus::kCancelled, {});
}

void TenantProcess::end_all(CallStatus status, const Error& error) {
  std::vector<CallPtr> all;
  {
    auto state = state_.lock();
    for (const auto& [id, call] : state->calls) all.push_back(call);
    state->calls.clear();
  }
  for (const CallPtr& call : all) finish(*call, failed(call->id, status, error));
}

void TenantProcess::pause_before_next() {
  const ProcessOptions& options = owner_.options_;
  auto pause = options.pause_min;
  for (unsigned i = 0; i < quick_ends_ && pause < options.pause_max; ++i) pause *= 2;
  ++quick_ends_;
  not_before_ = Clock::now() + std::min(pause, options.pause_max);
}

Setup TenantProcess::setup() const {
  const ProcessOptions& options = owner_.options_;
  Setup out{.tenant = tenant_,
            .seats = options.seats,
            .queue_max = options.calls_max,
            .log_bytes_max = options.log_bytes_max,
            .tenant_concurrency_max = options.tenant_concurrency_max,
            .precise_clock = options.precise_clocks.contains(tenant_),
            .preempt = options.preempt,
            .chain = options.chain,
            .state = owner_.services_.state != nullptr,
            .state_bytes_max = options.state_bytes_max,
            .state_values_max = options.state_values_max,
            .state_threads = options.state_threads,
            .state_timeout_ms = static_cast<uint64_t>(options.state_timeout.count()),
            .lock_lease_ms = static_cast<uint64_t>(options.lock_lease.count()),
            .initialise_timeout_ms = static_cast<uint64_t>(options.initialise_timeout.count()),
            .slots_max = options.pool.slots_max,
            .idle_max = options.pool.idle_per_tenant_max,
            .idle_per_function_max = options.pool.idle_per_function_max,
            .idle_bytes_max = options.pool.idle_bytes_max,
            .memory_left_min = options.pool.memory_left_min,
            .memory_bytes_max =
                owner_.services_.memory ? owner_.services_.memory->account_of(tenant_)->total().bytes_max() : 0,
            .resolver = owner_.services_.resolver};
  const worker::FileRoots& roots = owner_.services_.file_roots;
  if (roots.shared_files)
    if (const auto directory = roots.shared_files->directory_of(tenant_, "")) {
      std::error_code error;
      out.shared_files = std::filesystem::canonical(*directory, error).string();
    }
  for (const auto& [name, directory] : roots.directories)
    out.mounts.push_back(
        {.name = name, .from = directory.path, .writable = directory.access == host::Access::kReadWrite});
  return out;
}

Result<std::shared_ptr<TenantProcess::Life>> TenantProcess::start_process() {
  const auto deadline = Clock::now() + owner_.options_.start_max;
  ASSIGN_OR_RETURN(auto made, isolation::start_apart(*owner_.services_.broker, deadline));
  ++owner_.started_;
  auto life = std::make_shared<Life>(std::move(made), owner_.services_.state, tenant_,
                                     owner_.options_.state_timeout + milliseconds(5'000));
  ::fcntl(life->process.standard_error.get(), F_SETFL, O_NONBLOCK);
  const auto wait = [&]() -> Result<void> {
    TRY(life->link.post({.kind = static_cast<uint16_t>(FrameKind::kSetup), .body = setup().write()},
                        owner_.options_.queued_bytes_max));
    while (!life->ready) {
      if (Clock::now() >= deadline) return fail(ErrorCode::kDeadlineExceeded, "it is not ready in time");
      if (state_.lock()->stopping) return fail(ErrorCode::kUnavailable, "the host ends");
      end_late_calls();
      if (auto looked = look(*life, Clock::now() + kLook); !looked)
        return looked.error().code == ErrorCode::kUnavailable ? fail(ErrorCode::kUnavailable, "it ended") : looked;
    }
    return {};
  };
  const auto ready = wait();
  if (ready) return life;
  read_error(*life);
  return fail(ready.error().code, ready.error().message + ", and " + kill(*life));
}

// Waits for something to do with the process, and does it.
Result<void> TenantProcess::look(Life& life, Clock::time_point until) {
  const bool blocked = life.link.flush();
  std::array<pollfd, 3> sources{{{life.link.fd(), static_cast<short>(POLLIN | (blocked ? POLLOUT : 0)), 0},
                                 {life.process.standard_error.get(), POLLIN, 0},
                                 {wakes_.get(), POLLIN, 0}}};
  if (::poll(sources.data(), sources.size(), milliseconds_until(until)) <= 0) return {};
  if (sources[2].revents) {
    eventfd_t ignored;
    ::eventfd_read(wakes_.get(), &ignored);
  }
  if (sources[1].revents) read_error(life);
  if (!(sources[0].revents & ~POLLOUT)) return {};
  // A bound, as others have to be looked at too.
  for (int i = 0; i < 64; ++i) {
    ASSIGN_OR_RETURN(auto frame, life.link.receive(std::max(frame_bytes_max_.load(), kRequestBytesMax)));
    if (!frame) return {};
    TRY(take(life, std::move(*frame)));
  }
  return {};
}

// Until it ends or is to be ended: why.
Error TenantProcess::live(Life& life) {
  const ProcessOptions& options = owner_.options_;
  Clock::time_point looked_at, asked_at;
  for (;;) {
    const auto now = Clock::now();
    if (now - looked_at >= kLook) {
      looked_at = now;
      if (!end_late_calls()) return {ErrorCode::kDeadlineExceeded, "it did not end a call in time"};
      if (const auto since = life.link.stuck_since(); since && now - *since > options.grace)
        return {ErrorCode::kDeadlineExceeded, "it did not take what it was sent"};
    }
    if (life.leaves) return {ErrorCode::kUnavailable, ""};
    if (life.deaf) return breaks_protocol("it does not take its answers").error();
    Clock::time_point until = now + kLook;
    {
      auto state = state_.lock();
      if (state->stopping) return {ErrorCode::kUnavailable, ""};
      if (state->calls.empty() && !state->leaving) {
        until = state->end_now ? now : state->last_used + options.idle_max;
        if (until <= now) {
          state->leaving = true;
          asked_at = now;
          (void)life.link.post({.kind = static_cast<uint16_t>(FrameKind::kMayEnd)}, options.queued_bytes_max);
          until = now + kLook;
        }
      }
      if (state->leaving && now - asked_at > options.grace)
        return {ErrorCode::kDeadlineExceeded, "it did not say whether it may end"};
    }
    if (auto looked = look(life, until); !looked) {
      if (looked.error().code == ErrorCode::kUnavailable) return {ErrorCode::kInternal, "it ended"};
      return std::move(looked).error();
    }
  }
}

// Sees to it that it is dead; how it died.
std::string TenantProcess::kill(Life& life) {
  // By the broker: this thread may be one that threads that run guests have begun, which can do no such thing.
  (void)isolation::kill_apart(*owner_.services_.broker, life.process.pid, Clock::now() + kBrokerPatience);
  pollfd ended{life.process.pid_descriptor.get(), POLLIN, 0};
  ::poll(&ended, 1, static_cast<int>(kEndPatience.count()));
  const auto how = isolation::end_of_apart(*owner_.services_.broker, life.process.pid, Clock::now() + kBrokerPatience);
  return how ? *how : "has ended (" + how.error().message + ")";
}

void TenantProcess::end_life(const std::shared_ptr<Life>& life, const Error& why) {
  std::vector<CallPtr> lost;
  bool stopping = false;
  {
    auto state = state_.lock();
    state->life = nullptr;
    state->leaving = false;
    stopping = state->stopping;
    std::erase_if(state->calls, [&](const auto& entry) {
      if (entry.second->frame) return false;  // it waits for the next one
      lost.push_back(entry.second);
      return true;
    });
  }
  // What it said before it died, and how it died of itself.
  read_error(*life);
  const std::string how = kill(*life);
  owner_.give_place();
  const bool expected = stopping || life->leaves;
  if (expected) {
    quick_ends_ = 0;
  } else {
    ++owner_.died_;
    if (Clock::now() - life->began > owner_.options_.quick_end) quick_ends_ = 0;
    pause_before_next();
    spdlog::error("process {} of tenant {}: {}, and {}", life->process.pid, tenant_, why.message, how);
  }
  for (const CallPtr& call : lost)
    finish(*call, stopping ? failed(call->id, CallStatus::kCancelled)
                           : failed(call->id, CallStatus::kProcessEnded,
                                    {ErrorCode::kUnavailable, "the process of tenant " + tenant_ +
                                                                  " ended while it had the call: " + why.message +
                                                                  ", and " + how}));
}

// ---- what the process says ------------------------------------------------------------------------------------------

void TenantProcess::read_error(Life& life) {
  std::array<char, 4096> buffer;
  const ssize_t got = ::read(life.process.standard_error.get(), buffer.data(), buffer.size());
  if (got <= 0) {
    if (got == 0) life.process.standard_error.reset();  // poll passes over it from now on
    return;
  }
  const auto now = Clock::now();
  for (const char c : std::string_view(buffer.data(), static_cast<size_t>(got))) {
    if (c != '\n') {
      if (life.said.size() < kSaidBytesMax) life.said += c >= ' ' && c < 0x7f ? c : '?';
      continue;
    }
    if (now - life.said_since > kSaidWindow) {
      life.said_since = now;
      life.said_lines = 0;
    }
    if (++life.said_lines <= kSaidLinesMax)
      spdlog::warn("process {} of tenant {}: {}", life.process.pid, tenant_, life.said);
    else if (life.said_lines == kSaidLinesMax + 1)
      spdlog::warn("process {} of tenant {} says more than is shown", life.process.pid, tenant_);
    life.said.clear();
  }
}

Result<void> TenantProcess::take(Life& life, Frame frame) {
  switch (static_cast<FrameKind>(frame.kind)) {
    case FrameKind::kReady: life.ready = true; return {};
    case FrameKind::kEnded: return take_ended(std::move(frame));
    case FrameKind::kChained: return take_chained(std::move(frame));
    case FrameKind::kRequest: return take_request(life, std::move(frame));
    case FrameKind::kStays: {
      {
        auto state = state_.lock();
        if (!state->leaving) return breaks_protocol("it answers what it was not asked");
        state->leaving = false;
        state->end_now = false;
        state->last_used = Clock::now();
      }
      send_waiting();
      return {};
    }
    case FrameKind::kLeaves:
      if (!state_.lock()->leaving) return breaks_protocol("it leaves without being asked");
      life.leaves = true;
      return {};
    default: return breaks_protocol("a frame of kind " + std::to_string(frame.kind));
  }
}

Result<void> TenantProcess::take_ended(Frame frame) {
  ByteReader in(frame.body);
  const CallId id = read_id(in);
  auto result = read_ended(in);
  if (!result) return breaks_protocol("the end of a call cannot be read");
  const CallPtr call = find_call(id);
  if (!call) return breaks_protocol("the end of a call that it does not have");
  if (result->output.size() > call->output_bytes_max || result->log.size() > owner_.options_.log_bytes_max + 1024)
    return breaks_protocol("more output or log than a call may have");
  {
    auto state = state_.lock();
    state->calls.erase(id);
    state->last_used = Clock::now();
  }
  finish(*call, std::move(*result));
  return {};
}

Result<void> TenantProcess::take_chained(Frame frame) {
  ByteReader in(frame.body);
  const CallId id = read_id(in);
  const std::string name = in.read_text();
  const auto version = in.read<uint64_t>();
  const auto input_bytes = in.read<uint64_t>();
  auto result = read_ended(in);
  auto function = FunctionId::make(tenant_, name);
  if (!result || !function || !result->output.empty() || result->log.size() > owner_.options_.log_bytes_max + 1024)
    return breaks_protocol("the end of a chained call cannot be read");
  const auto& told = owner_.services_.hooks.ended;
  if (!told || !owner_.services_.registry || !owner_.services_.registry->describe(*function)) return {};
  result->id = id;
  functions::LoadedFunction named{.id = std::move(*function)};
  named.version.number = version;
  told(*result, named, input_bytes);
  return {};
}

Result<void> TenantProcess::take_request(Life& life, Frame frame) {
  const ProcessOptions& options = owner_.options_;
  if (frame.body.empty() || frame.body[0] > static_cast<uint8_t>(kRequestKindMax))
    return breaks_protocol("a request of no kind");
  ++owner_.asked_;
  const uint64_t id = frame.id;
  const uint64_t bytes = frame.body.size();
  if (!life.ready) return breaks_protocol("a request before it is ready");
  const auto refuse = [&](std::string why) {
    post_answer(life, id, fail(ErrorCode::kResourceExhausted, std::move(why)), {});
  };
  if (life.requests >= options.requests_max || bytes > options.request_bytes_max - life.request_bytes) {
    refuse("too many requests of tenant " + tenant_ + " are under way");
    return {};
  }
  ++life.requests;
  life.request_bytes += bytes;
  const auto work = [this, self = life.shared_from_this(), id,
                     asked = std::make_shared<Frame>(std::move(frame))]() -> Result<int64_t> {
    std::vector<UniqueFd> descriptors;
    auto answered =
        answer(*self, static_cast<RequestKind>(asked->body[0]), ByteSpan(asked->body).subspan(1), descriptors);
    self->request_bytes -= asked->body.size();
    --self->requests;
    post_answer(*self, id, std::move(answered), std::move(descriptors));
    return 0;
  };
  const auto operation = owner_.requests_.start(tenant_, work);
  // One that was refused has ended; one that ran to its end gives no error.
  if (operation->ended() && !operation->result()) {
    life.request_bytes -= bytes;
    --life.requests;
    refuse(operation->result().error().message);
  }
  return {};
}

void TenantProcess::post_answer(Life& life, uint64_t id, Result<Bytes> answered, std::vector<UniqueFd> descriptors) {
  if (id == 0) return;
  const auto posted = life.link.post(answer_frame(id, std::move(answered), std::move(descriptors)),
                                     2 * owner_.options_.queued_bytes_max);
  if (!posted && posted.error().code == ErrorCode::kResourceExhausted) life.deaf = true;
  wake();
}

// A network is as its function's policy says, for whichever of the tenant's functions the process asks.
Result<UniqueFd> TenantProcess::open_socket(Life& life, uint64_t network, const FunctionId& function,
                                            std::optional<uint64_t> version, int family, int type) {
  isolation::NetworkPool* const pool = owner_.services_.network;
  if (!pool) return fail(ErrorCode::kUnavailable, "this host has no networks");
  auto networks = life.networks.lock();
  auto lease = networks->find(network);
  if (lease == networks->end()) {
    if (networks->size() >= owner_.options_.networks_max)
      return fail(ErrorCode::kResourceExhausted, "as many networks are in use as may be");
    networks.lock().unlock();
    ASSIGN_OR_RETURN(const auto loaded, owner_.services_.registry->load(function, version));
    if (!loaded->network) return fail(ErrorCode::kPermissionDenied, function.text() + " has no network");
    ASSIGN_OR_RETURN(auto taken, pool->take(loaded->network));
    networks.lock().lock();
    lease = networks->try_emplace(network, std::move(taken)).first;
  }
  ASSIGN_OR_RETURN(auto socket, lease->second.socket(family, type));
  // The process has the limit of sockets, and knows which of them are closed; one that does not keep to it runs into
  // those of its namespace.
  return std::move(socket).release();
}

Result<Bytes> TenantProcess::answer(Life& life, RequestKind kind, ByteSpan arguments,
                                    std::vector<UniqueFd>& descriptors) {
  if (kind <= RequestKind::kUnlock) return life.tier.answer(kind, arguments);
  const auto malformed = [] { return fail(ErrorCode::kInvalidArgument, "a request that cannot be read"); };
  ByteReader in(arguments);
  switch (kind) {
    case RequestKind::kTmpfs: {
      ASSIGN_OR_RETURN(const auto limits, host::parse_local_layer(arguments));
      ASSIGN_OR_RETURN(auto directory, host::make_local_layer(limits));
      descriptors.push_back(std::move(directory));
      return Bytes();
    }
    case RequestKind::kHoldInput:
    case RequestKind::kBeginOutput: {
      const CallPtr call = find_call(read_id(in));
      if (!in.ok() || !call) return malformed();
      auto streaming = call->streaming.lock();
      if (streaming->ended || !streaming->streams) return malformed();
      if (kind == RequestKind::kHoldInput) {
        const auto bytes = in.read<uint64_t>();
        if (!in.ok() || !in.at_end()) return malformed();
        if (!streaming->streams->hold_input(bytes)) return fail(ErrorCode::kResourceExhausted, "there is no room");
        return Bytes();
      }
      Bytes so_far(in.rest().begin(), in.rest().end());
      const int stream = streaming->streams->begin_output(so_far);
      if (stream < 0) return fail(ErrorCode::kFailedPrecondition, "there is no stream for it");
      descriptors.emplace_back(::fcntl(stream, F_DUPFD_CLOEXEC, 0));
      if (!descriptors.back().valid()) return fail_errno("give a stream away");
      return Bytes();
    }
    default: break;
  }
  if (kind == RequestKind::kEndNetwork) {
    const auto network = in.read<uint64_t>();
    if (!in.ok() || !in.at_end()) return malformed();
    std::optional<isolation::NetworkLease> released;  // outside the lock
    auto networks = life.networks.lock();
    if (const auto found = networks->find(network); found != networks->end()) {
      released.emplace(std::move(found->second));
      networks->erase(found);
    }
    return Bytes();
  }
  const std::string name = in.read_text();
  const auto number = in.read<uint64_t>();
  const auto version = number ? std::optional(number) : std::nullopt;
  ASSIGN_OR_RETURN(const auto function, FunctionId::make(tenant_, name));
  if (!owner_.services_.registry) return fail(ErrorCode::kUnavailable, "this host has no functions");
  functions::Registry& registry = *owner_.services_.registry;
  switch (kind) {
    case RequestKind::kExists: {
      if (!in.ok() || !in.at_end()) return malformed();
      const auto there = registry.describe(function);
      if (there && (!version || std::ranges::find(there->versions, *version, &functions::VersionInfo::number) !=
                                    there->versions.end()))
        return Bytes();
      return fail(ErrorCode::kNotFound, "there is no such function");
    }
    case RequestKind::kLoad: {
      if (!in.ok() || !in.at_end()) return malformed();
      ASSIGN_OR_RETURN(const auto parts, registry.parts(function, version));
      const auto& config = parts.version.config;
      // Directories of shared files are made here, as the process cannot.
      if (const auto* files = owner_.services_.file_roots.shared_files)
        for (const auto& [at, what] : config.mounts)
          if (what.starts_with("files:")) TRY(files->directory_of(tenant_, what.substr(6)));
      ASSIGN_OR_RETURN(auto object, make_memfd("spore object", parts.object));
      if (::fcntl(object.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        return fail_errno("seal an object");
      descriptors.push_back(std::move(object));
      return write(FunctionParts{.version = parts.version.number,
                                 .module_digest = parts.version.module_digest,
                                 .config = config_to_json(config),
                                 .object_bytes = parts.object.size()});
    }
    case RequestKind::kSocket: {
      const auto network = in.read<uint64_t>();
      const auto family = in.read<int32_t>();
      const auto type = in.read<int32_t>();
      if (!in.ok() || !in.at_end()) return malformed();
      ASSIGN_OR_RETURN(auto socket, open_socket(life, network, function, version, family, type));
      descriptors.push_back(std::move(socket));
      return Bytes();
    }
    case RequestKind::kDetached: {
      const std::string once = in.read_text();
      const ByteSpan input = in.read_bytes();
      if (!in.ok() || !in.at_end() || once.size() > 256 || input.size() > owner_.options_.chain.input_bytes_max)
        return malformed();
      if (!owner_.services_.hooks.begin_detached)
        return fail(ErrorCode::kUnavailable, "this host keeps no durable calls");
      ASSIGN_OR_RETURN(const CallId id, owner_.services_.hooks.begin_detached(function, version,
                                                                              Bytes(input.begin(), input.end()), once));
      return Bytes(id.bytes.begin(), id.bytes.end());
    }
    default: return malformed();
  }
}

}  // namespace spore::processes
