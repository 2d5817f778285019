#include "processes/inside.h"

#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "base/mapping.h"
#include "faaslet/seat.h"
#include "host/file_systems.h"
#include "host/initialise.h"
#include "isolation/apart.h"
#include "isolation/lockdown.h"
#include "processes/host_line.h"
#include "processes/remote_functions.h"
#include "processes/remote_tier.h"
#include "state/local_tier.h"
#include "state/locks.h"
#include "state/window_tracker.h"
#include "worker/call_network.h"
#include "worker/worker.h"

namespace spore::processes {

using functions::FunctionId;
using std::chrono::milliseconds;
using worker::CallResult;

namespace {

constexpr auto kHostPatience = milliseconds(30'000);
constexpr const char* kFilesAt = "/files";
constexpr const char* kMountsAt = "/mounts";

// The streams of a call, which the host has.
class RemoteStreams final : public worker::StreamedCall {
 public:
  RemoteStreams(HostLine& host, const CallId& id, UniqueFd input) : host_(host), id_(id), input_(std::move(input)) {}

  int input() const override { return input_.valid() ? input_.get() : -1; }
  bool hold_input(uint64_t bytes) override {
    ByteWriter out = begin();
    out.write(bytes);
    return host_.ask(RequestKind::kHoldInput, out.bytes(), Clock::now() + kHostPatience).has_value();
  }
  int begin_output(Bytes& so_far) override {
    Bytes request = begin().take();
    request.insert(request.end(), so_far.begin(), so_far.end());
    auto answer = host_.ask(RequestKind::kBeginOutput, request, Clock::now() + kHostPatience);
    if (!answer || answer->descriptors.size() != 1) return -1;
    output_ = std::move(answer->descriptors.front());
    so_far = {};
    return output_.get();
  }
  // Whoever reads the output sees its end. The call is over.
  void close() {
    input_.reset();
    output_.reset();
  }

 private:
  ByteWriter begin() const {
    ByteWriter out;
    for (const uint8_t byte : id_.bytes) out.write(byte);
    return out;
  }

  HostLine& host_;
  const CallId id_;
  UniqueFd input_;
  UniqueFd output_;
};

// The network of a call, which the host has: sockets come from there.
class RemoteNetwork final : public host::Network {
 public:
  RemoteNetwork(HostLine& host, uint64_t number, std::string function, uint64_t version,
                std::optional<isolation::IpAddress> resolver)
      : host_(host), number_(number), function_(std::move(function)), version_(version), resolver_(resolver) {}
  ~RemoteNetwork() override {
    if (!taken_) return;
    ByteWriter out;
    out.write(number_);
    host_.tell(RequestKind::kEndNetwork, out.bytes());
  }

  Result<UniqueFd> socket(int family, int type) override {
    taken_ = true;
    ByteWriter out;
    out.write_text(function_);
    out.write(version_);
    out.write(number_);
    out.write<int32_t>(family);
    out.write<int32_t>(type);
    ASSIGN_OR_RETURN(Answer answer, host_.ask(RequestKind::kSocket, out.bytes(), Clock::now() + kHostPatience));
    if (answer.descriptors.size() != 1) return fail(ErrorCode::kInternal, "the host gave no socket");
    return std::move(answer.descriptors.front());
  }
  std::vector<sockaddr_storage> resolvers() const override {
    if (!resolver_) return {};
    return {worker::resolver_at(*resolver_)};
  }

 private:
  HostLine& host_;
  const uint64_t number_;
  const std::string function_;
  const uint64_t version_;
  const std::optional<isolation::IpAddress> resolver_;
  bool taken_ = false;
};

class Inside {
 public:
  Inside(Link& link, Setup setup, UniqueFd faults, faaslet::CodeArena& arena);
  // For ever.
  void run();

 private:
  void serve();
  // Waits for something to do, and does it.
  void serve_one();
  void begin_call(Frame frame);
  void submit(CallFrame head, Bytes input, std::shared_ptr<RemoteStreams> streams,
              std::shared_ptr<const functions::LoadedFunction> function);
  void send_ended(FrameKind kind, const CallId& id, const CallResult& result, ByteSpan before = {});
  void answer_may_end();

  const Setup setup_;
  HostLine host_;
  std::optional<MemoryBooks> books_;
  RemoteTier global_;
  std::unique_ptr<state::WindowTracker> tracker_;
  std::optional<state::LocalTier> local_;
  std::optional<state::BlockingPool> state_threads_;
  std::optional<state::LockService> locks_;
  host::StateServices state_services_;
  std::optional<functions::SharedFiles> shared_files_;
  worker::FileRoots file_roots_;
  std::optional<RemoteFunctions> functions_;
  std::atomic<uint64_t> networks_{0};  // numbers of them
  UniqueFd wakes_;                     // a semaphore: so many calls may run
  std::optional<worker::Worker> worker_;
  std::mutex reading_;
};

Inside::Inside(Link& link, Setup setup, UniqueFd faults, faaslet::CodeArena& arena)
    : setup_(std::move(setup)),
      host_(link),
      global_(host_, setup_.tenant),
      wakes_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) {
  CHECK(wakes_.valid(), errno);
  if (setup_.memory_bytes_max)
    books_.emplace(
        MemoryBooksOptions{.bytes_max = setup_.memory_bytes_max, .bytes_per_tenant_max = setup_.memory_bytes_max});
  MemoryBooks* const books = books_ ? &*books_ : nullptr;
  host::set_tmpfs_maker([this](const host::LocalLayer& limits) -> Result<UniqueFd> {
    ASSIGN_OR_RETURN(Answer answer,
                     host_.ask(RequestKind::kTmpfs, host::serialize(limits), Clock::now() + kHostPatience));
    if (answer.descriptors.size() != 1) return fail(ErrorCode::kInternal, "the host gave no file system");
    return std::move(answer.descriptors.front());
  });
  if (setup_.state) {
    auto tracker = state::WindowTracker::start(setup_.seats, std::move(faults));
    if (tracker)
      tracker_ = std::move(*tracker);
    else
      spdlog::warn("functions cannot map state: {}", tracker.error().message);
    local_.emplace(global_, tracker_.get(),
                   state::LocalTierOptions{.bytes_max = setup_.state_bytes_max,
                                           .bytes_per_tenant_max = setup_.state_bytes_max,
                                           .replicas_max = setup_.state_values_max,
                                           .replicas_per_tenant_max = setup_.state_values_max,
                                           .memory = books});
    state_threads_.emplace(state::BlockingPoolOptions{.threads = setup_.state_threads});
    locks_.emplace(global_, state::LockOptions{.lease = milliseconds(setup_.lock_lease_ms)});
    state_services_ = {.tier = &*local_,
                       .pool = &*state_threads_,
                       .locks = &*locks_,
                       .timeout = milliseconds(setup_.state_timeout_ms)};
  }
  if (!setup_.shared_files.empty()) shared_files_.emplace(functions::SharedFiles::shown_at(kFilesAt));
  if (shared_files_) file_roots_.shared_files = &*shared_files_;
  for (const Setup::Mount& mount : setup_.mounts)
    file_roots_.directories[mount.name] = {
        .path = std::string(kMountsAt) + "/" + mount.name,
        .access = mount.writable ? host::Access::kReadWrite : host::Access::kReadOnly};
  functions_.emplace(
      host_, arena, setup_.tenant,
      [this](std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, const FunctionId& id,
             const functions::FunctionConfig& config) -> Result<std::shared_ptr<const faaslet::ProtoFaaslet>> {
        ASSIGN_OR_RETURN(auto preopens, worker::file_view(id, config, file_roots_));
        return host::initialise(std::move(instantiated), {.name = id.text(),
                                                          .arguments = config.arguments(id.name),
                                                          .environment = config.environment(),
                                                          .preopens = std::move(preopens),
                                                          .timeout = milliseconds(setup_.initialise_timeout_ms),
                                                          .memory = books_ ? books_->account_of(id.tenant) : nullptr});
      });
  worker::PoolOptions pool{.slots_max = std::min<size_t>(setup_.slots_max, worker::slot_limit().slots),
                           .spare_slots = 2,
                           .idle_max = setup_.idle_max,
                           .idle_per_tenant_max = setup_.idle_max,
                           .idle_per_function_max = setup_.idle_per_function_max,
                           .idle_bytes_max = setup_.idle_bytes_max,
                           .memory_left_min = setup_.memory_left_min,
                           .memory = books};
  worker_.emplace(
      worker::WorkerOptions{.seats = setup_.seats,
                            .queue_max = setup_.queue_max,
                            .queue_per_tenant_max = setup_.queue_max,
                            .log_bytes_max = setup_.log_bytes_max,
                            .precise_clocks = setup_.precise_clock ? std::set{setup_.tenant} : std::set<std::string>(),
                            .preempt = setup_.preempt,
                            .tenant_concurrency_max = setup_.tenant_concurrency_max,
                            .chain = setup_.chain,
                            .memory = books,
                            .pool = std::move(pool),
                            .file_roots = file_roots_,
                            .state = setup_.state ? &state_services_ : nullptr,
                            .make_network =
                                [this](const functions::LoadedFunction& function) {
                                  return std::make_shared<RemoteNetwork>(host_, ++networks_, function.id.name,
                                                                         function.version.number, setup_.resolver);
                                },
                            .functions = &*functions_},
      [this] { ::eventfd_write(wakes_.get(), 1); });
  if (books)
    books->on_shortage([this](const MemoryAccount* of, uint64_t bytes) {
      worker_->make_room(of, bytes);
      const uint64_t room = books_->total().room();
      if (local_ && room < bytes) local_->shed(of, bytes - room);
    });
  if (local_) local_->on_shortage([this] { worker_->drop_windows(); });
  worker_->set_hooks({.ended =
                          [this](CallResult& result, const functions::LoadedFunction& function, uint64_t input_bytes) {
                            ByteWriter out;
                            out.write_text(function.id.name);
                            out.write(function.version.number);
                            out.write(input_bytes);
                            send_ended(FrameKind::kChained, result.id, result, out.bytes());
                          },
                      .begin_detached = [this](const FunctionId& id, std::optional<uint64_t> version, Bytes input,
                                               const std::string& once) -> Result<CallId> {
                        ByteWriter out;
                        out.write_text(id.name);
                        out.write(version.value_or(0));
                        out.write_text(once);
                        out.write_bytes(input);
                        ASSIGN_OR_RETURN(const Answer answer,
                                         host_.ask(RequestKind::kDetached, out.bytes(), Clock::now() + kHostPatience));
                        CallId call;
                        if (answer.bytes.size() != call.bytes.size())
                          return fail(ErrorCode::kInternal, "the host gave no call");
                        std::ranges::copy(answer.bytes, call.bytes.begin());
                        return call;
                      }});
}

void Inside::run() {
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < setup_.seats + 2; ++i) threads.emplace_back([this] { serve(); });
  CHECK(host_.link().send({.kind = static_cast<uint16_t>(FrameKind::kReady)}).has_value());
}

void Inside::serve() {
  if (const auto forbidden = isolation::allow_system_calls_of_a_seat(); !forbidden)
    spdlog::error("a thread that runs guests can start programs: {}", forbidden.error().message);
  const worker::Worker::Attachment attachment(*worker_);
  for (;;) serve_one();
}

void Inside::serve_one() {
  std::optional<Frame> frame;
  {
    const std::lock_guard lock(reading_);
    std::array<pollfd, 2> sources{{{host_.link().fd(), POLLIN, 0}, {wakes_.get(), POLLIN, 0}}};
    if (::poll(sources.data(), sources.size(), -1) < 0) return;
    if (sources[1].revents) {
      eventfd_t one;
      if (::eventfd_read(wakes_.get(), &one) != 0) return;
    } else {
      auto received = host_.link().receive(UINT64_MAX);
      if (!received) ::_exit(0);  // the host is gone, and nobody wants to know what is left here
      if (!*received) return;
      // In the order in which they came: what is said of functions goes before later calls.
      switch (static_cast<FrameKind>((*received)->kind)) {
        case FrameKind::kAnswer: return host_.delivered(std::move(**received));
        case FrameKind::kForget: {
          ByteReader in((*received)->body);
          return functions_->forget(in.read_text());
        }
        default: frame = std::move(**received);
      }
    }
  }
  if (!frame) return worker_->run_queued();
  switch (static_cast<FrameKind>(frame->kind)) {
    case FrameKind::kCall: return begin_call(std::move(*frame));
    case FrameKind::kCancel: {
      CallId id;
      CHECK(frame->body.size() == id.bytes.size(), frame->body.size());
      std::ranges::copy(frame->body, id.bytes.begin());
      if (!worker_->cancel(id)) functions_->cancel(id);
      return;
    }
    case FrameKind::kMayEnd: return answer_may_end();
    default: CHECK(false, "no such frame", frame->kind);
  }
}

void Inside::begin_call(Frame frame) {
  ByteSpan input;
  auto head = CallFrame::parse(frame.body, input);
  CHECK(head.has_value());
  std::shared_ptr<RemoteStreams> streams;
  if (head->has_streams)
    streams = std::make_shared<RemoteStreams>(
        host_, head->id, frame.descriptors.empty() ? UniqueFd() : std::move(frame.descriptors.front()));
  Bytes bytes(input.begin(), input.end());
  if (auto function = functions_->find_exactly(head->function, head->version, head->module_digest))
    return submit(std::move(*head), std::move(bytes), std::move(streams), std::move(function));
  auto waits = std::make_shared<std::tuple<CallFrame, Bytes, std::shared_ptr<RemoteStreams>>>(
      std::move(*head), std::move(bytes), std::move(streams));
  const auto began = Clock::now();
  functions_->load_for_call(std::get<0>(*waits), [this, waits, began](Result<worker::FunctionSource::Function> loaded) {
    auto& [call, input_bytes, call_streams] = *waits;
    if (loaded) {
      call.loading_us +=
          std::max<int64_t>(1, std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count());
      return submit(std::move(call), std::move(input_bytes), std::move(call_streams), std::move(*loaded));
    }
    CallResult result;
    result.status = loaded.error().code == ErrorCode::kDeadlineExceeded && Clock::now() >= from_ns(call.deadline_ns)
                        ? worker::CallStatus::kTimedOut
                        : worker::CallStatus::kFailed;
    result.error = std::move(loaded).error();
    result.trap.message = "the call ended before it could start";
    if (call_streams) call_streams->close();
    send_ended(FrameKind::kEnded, call.id, result);
  });
}

void Inside::submit(CallFrame head, Bytes input, std::shared_ptr<RemoteStreams> streams,
                    std::shared_ptr<const functions::LoadedFunction> function) {
  worker::CallRequest request;
  request.id = head.id;
  request.function = std::move(function);
  request.input = std::move(input);
  request.loading = std::chrono::microseconds(head.loading_us);
  request.timeout =
      std::max(milliseconds(0), std::chrono::ceil<milliseconds>(from_ns(head.deadline_ns) - Clock::now()));
  request.arguments = std::move(head.arguments);
  request.environment = std::move(head.environment);
  request.priority = head.priority;
  request.streams = streams;
  worker_->submit(std::move(request), [this, id = head.id, streams = std::move(streams)](CallResult result) {
    if (streams) streams->close();
    send_ended(FrameKind::kEnded, id, result);
  });
}

void Inside::send_ended(FrameKind kind, const CallId& id, const CallResult& result, ByteSpan before) {
  ByteWriter out;
  for (const uint8_t byte : id.bytes) out.write(byte);
  Bytes body = out.take();
  body.insert(body.end(), before.begin(), before.end());
  ByteWriter ended;
  write_ended(ended, result);
  (void)host_.link().send({.kind = static_cast<uint16_t>(kind), .body = std::move(body), .more = ended.take()});
}

// The host sends no calls until it has the answer. What was written to state and not pushed is not thrown away.
void Inside::answer_may_end() {
  const bool stays = !worker_->stats().idle() || (local_ && local_->has_unpushed());
  (void)host_.link().send({.kind = static_cast<uint16_t>(stays ? FrameKind::kStays : FrameKind::kLeaves)});
}

Result<Setup> receive_setup(Link& link) {
  const auto deadline = Clock::now() + kHostPatience;
  while (Clock::now() < deadline) {
    pollfd source{link.fd(), POLLIN, 0};
    ::poll(&source, 1, 100);
    ASSIGN_OR_RETURN(auto frame, link.receive(UINT64_MAX));
    if (!frame) continue;
    auto setup = Setup::parse(frame->body);
    if (frame->kind != static_cast<uint16_t>(FrameKind::kSetup) || !setup) break;
    return std::move(*setup);
  }
  return fail(ErrorCode::kUnavailable, "the host does not say what for");
}

}  // namespace

Result<void> serve_host(UniqueFd socket) {
  Link link(std::move(socket), kFrameDescriptorsMax);
  ASSIGN_OR_RETURN(Setup setup, receive_setup(link));
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  UniqueFd faults = state::WindowTracker::open_faults();
  std::vector<isolation::ShownDirectory> shown;
  if (!setup.shared_files.empty())
    shown.push_back({.from = setup.shared_files, .at = std::string(kFilesAt) + "/tenants/" + setup.tenant});
  for (const Setup::Mount& mount : setup.mounts)
    shown.push_back({.from = mount.from, .at = std::string(kMountsAt) + "/" + mount.name, .writable = mount.writable});
  TRY(isolation::confine(shown));
  TRY(isolation::drop_privileges());
  TRY(isolation::forbid_system_calls());

  TRY(faaslet::install_signal_handlers());
  Digest placement_key;  // known to nobody else, so addresses of code are this process's own
  if (::getrandom(placement_key.data(), placement_key.size(), 0) != static_cast<ssize_t>(placement_key.size()))
    return fail_errno("getrandom");
  ASSIGN_OR_RETURN(const auto arena, faaslet::CodeArena::reserve(placement_key));
  Inside inside(link, std::move(setup), std::move(faults), *arena);
  inside.run();
  return {};
}

}  // namespace spore::processes
