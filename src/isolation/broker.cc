#include "isolation/broker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "base/check.h"
#include "base/passed_descriptors.h"
#include "isolation/single_thread.h"

namespace spore::isolation {
namespace {

using Clock = Broker::Clock;

// Both ends are of one program, so these are plain structures; only the broker has reason to doubt what it reads.
struct RequestHeader {
  uint64_t id = 0;          // 0: no answer is wanted
  int64_t deadline_ns = 0;  // of the steady clock, the same in both processes
  uint32_t operation = 0;   // index in the table
  uint32_t reserved = 0;    // 0
};
struct ReplyHeader {
  uint64_t id = 0;
  uint32_t failed = 0;
  ErrorCode code = ErrorCode::kInternal;
};

constexpr auto kEndPatience = std::chrono::seconds(10);

int64_t to_ns(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

// Until the deadline, or for ever; EINTR counts as "look again".
int poll_until(std::span<pollfd> descriptors, Clock::time_point deadline) {
  timespec left{};
  const bool bounded = deadline != Clock::time_point::max();
  if (bounded) {
    const int64_t ns = std::max<int64_t>(0, to_ns(deadline) - to_ns(Clock::now()));
    left = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  }
  return ::ppoll(descriptors.data(), descriptors.size(), bounded ? &left : nullptr, nullptr);
}

using Passed = PassedDescriptors<kBrokerDescriptorsMax>;

// ---- the broker's side ----------------------------------------------------------------------------------------------

void answer(int socket, uint64_t id, Result<BrokerReply> result) {
  if (id == 0) return;
  ReplyHeader header{.id = id};
  Bytes body;
  std::span<const UniqueFd> descriptors;
  if (result && sizeof(header) + result->bytes.size() > kBrokerMessageBytesMax)
    result = fail(ErrorCode::kInternal, "the answer is too large");
  if (result && result->descriptors.size() > kBrokerDescriptorsMax)
    result = fail(ErrorCode::kInternal, "the answer has too many descriptors");
  if (result) {
    body = std::move(result->bytes);
    descriptors = result->descriptors;
  } else {
    header.failed = 1;
    header.code = result.error().code;
    auto& message = result.error().message;
    message.resize(std::min<size_t>(message.size(), kBrokerMessageBytesMax - sizeof(header)));
    body.assign(message.begin(), message.end());
  }
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {body.data(), body.size()}}};
  Passed control;
  msghdr message{.msg_iov = parts.data(), .msg_iovlen = parts.size()};
  control.put(message, descriptors);
  // Whoever does not read its answers loses them; the broker waits for nobody.
  (void)::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

Result<BrokerReply> carry_out(std::vector<BrokerOperation>& operations, const RequestHeader& header, ByteSpan request,
                              std::span<const UniqueFd> given) {
  if (header.reserved != 0) return fail(ErrorCode::kInvalidArgument, "a request with a field that must be 0");
  if (header.operation >= operations.size())
    return fail(ErrorCode::kInvalidArgument, "there is no operation " + std::to_string(header.operation));
  BrokerOperation& operation = operations[header.operation];
  if (given.size() != operation.descriptors)
    return fail(ErrorCode::kInvalidArgument, std::to_string(given.size()) +
                                                 " descriptors came with a request that has " +
                                                 std::to_string(operation.descriptors));
  if (header.deadline_ns <= to_ns(Clock::now()))
    return fail(ErrorCode::kDeadlineExceeded, operation.name + ": too late when its turn came");
  return operation.run_with ? operation.run_with(request, given) : operation.run(request);
}

// One request. False when there will be no more.
bool serve_one(int socket, std::vector<BrokerOperation>& operations, Bytes& buffer) {
  iovec part{buffer.data(), buffer.size()};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1};
  Passed control;
  control.make_room(message);
  const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  const std::vector<UniqueFd> given = Passed::take(message);
  if (n == 0 && given.empty() && (message.msg_flags & MSG_CTRUNC) == 0) return false;
  RequestHeader header;
  if (static_cast<size_t>(n) < sizeof(header)) return true;  // nobody to answer
  std::memcpy(&header, buffer.data(), sizeof(header));
  if (message.msg_flags & MSG_TRUNC)
    answer(socket, header.id,
           fail(ErrorCode::kInvalidArgument,
                "a request of more than " + std::to_string(kBrokerMessageBytesMax) + " bytes"));
  else if (message.msg_flags & MSG_CTRUNC)
    answer(socket, header.id, fail(ErrorCode::kInvalidArgument, "a request with too many descriptors"));
  else
    answer(socket, header.id,
           carry_out(operations, header,
                     ByteSpan(buffer).subspan(sizeof(header), static_cast<size_t>(n) - sizeof(header)), given));
  return true;
}

[[noreturn]] void be_broker(int socket, std::vector<BrokerOperation> operations, pid_t parent) {
  ::prctl(PR_SET_NAME, "spore-broker");
  ::prctl(PR_SET_DUMPABLE, 0);
  // A terminal's interrupt goes to the serving process too, which may still want us for its orderly end.
  for (const int number : {SIGINT, SIGHUP, SIGQUIT, SIGPIPE}) ::signal(number, SIG_IGN);
  sigset_t ends{};
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_SETMASK, &ends, nullptr);
  if (socket != 3) ::dup3(socket, 3, O_CLOEXEC);
  socket = 3;
  ::close_range(4, ~0U, 0);
  const int nothing = ::open("/dev/null", O_RDWR);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) ::dup2(nothing, fd);
  ::close(nothing);
  UniqueFd signals(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);

  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  Bytes buffer(kBrokerMessageBytesMax);
  while (::getppid() == parent) {
    std::array<pollfd, 2> sources{{{socket, POLLIN, 0}, {signals.get(), POLLIN, 0}}};
    if (::poll(sources.data(), sources.size(), -1) < 0) continue;
    if (sources[1].revents != 0) {  // the parent's end, or somebody's SIGTERM, which is nothing to us
      signalfd_siginfo info{};
      (void)!::read(signals.get(), &info, sizeof(info));
    }
    if (sources[0].revents != 0 && !serve_one(socket, operations, buffer)) break;
  }
  operations.clear();
  ::_exit(0);
}

}  // namespace

// ---- the serving process's side -------------------------------------------------------------------------------------

Result<std::unique_ptr<Broker>> Broker::start(std::vector<BrokerOperation> operations) {
  TRY(check_single_threaded("the broker is started"));
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("socketpair");
  UniqueFd ours(ends[0]), its(ends[1]);
  std::vector<std::string> names;
  for (const auto& operation : operations) names.push_back(operation.name);
  const pid_t parent = ::getpid();
  // No signal ends the child before it has said which of them do.
  sigset_t all{}, before{};
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  const int error = errno;
  if (pid == 0) be_broker(its.get(), std::move(operations), parent);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return fail_errno("fork", error);
  return std::unique_ptr<Broker>(new Broker(pid, std::move(ours), std::move(names)));
}

Broker::Broker(pid_t pid, UniqueFd socket, std::vector<std::string> names)
    : pid_(pid),
      pid_descriptor_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))),
      socket_(std::move(socket)),
      names_(std::move(names)),
      buffer_(kBrokerMessageBytesMax - sizeof(ReplyHeader)) {}

Broker::~Broker() {
  CHECK(state_.lock()->waiting.empty());
  socket_.reset();
  pollfd end{pid_descriptor_.get(), POLLIN, 0};
  if (poll_until({&end, 1}, Clock::now() + kEndPatience) != 1) ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::string Broker::ended_message() const {
  return "the privileged helper (spore-broker, process " + std::to_string(pid_) + ") has ended";
}

Result<uint32_t> Broker::index_of(std::string_view operation) const {
  const auto found = std::ranges::find(names_, operation);
  if (found == names_.end())
    return fail(ErrorCode::kInvalidArgument, "the broker has no operation " + std::string(operation));
  return static_cast<uint32_t>(found - names_.begin());
}

Result<void> Broker::send(uint64_t id, uint32_t operation, bool answer, ByteSpan request, Clock::time_point deadline,
                          std::span<const int> descriptors) const {
  RequestHeader header{.id = answer ? id : 0, .deadline_ns = to_ns(deadline), .operation = operation};
  // A request that waits for no answer has been handed over in time if it could be sent in time.
  if (!answer) header.deadline_ns = INT64_MAX;
  if (sizeof(header) + request.size() > kBrokerMessageBytesMax)
    return fail(ErrorCode::kInvalidArgument,
                names_[operation] + ": a request of " + std::to_string(request.size()) + " bytes; at most " +
                    std::to_string(kBrokerMessageBytesMax - sizeof(header)) + " are possible");
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {const_cast<uint8_t*>(request.data()), request.size()}}};
  msghdr message{.msg_iov = parts.data(), .msg_iovlen = parts.size()};
  Passed control;
  control.put(message, descriptors);
  for (;;) {
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return {};
    if (errno == EPIPE || errno == ECONNRESET) return fail(ErrorCode::kUnavailable, ended_message());
    if (errno != EAGAIN && errno != EINTR) return fail_errno("send to the broker");
    pollfd room{socket_.get(), POLLOUT, 0};
    if (poll_until({&room, 1}, deadline) == 0)
      return fail(ErrorCode::kDeadlineExceeded, names_[operation] + ": the broker is busy");
  }
}

Result<void> Broker::post(std::string_view operation, ByteSpan request, Clock::time_point deadline) {
  ASSIGN_OR_RETURN(const uint32_t index, index_of(operation));
  return send(0, index, false, request, deadline);
}

Result<BrokerReply> Broker::call(std::string_view operation, ByteSpan request, Clock::time_point deadline,
                                 std::span<const int> descriptors) {
  ASSIGN_OR_RETURN(const uint32_t index, index_of(operation));
  CHECK(descriptors.size() <= kBrokerDescriptorsMax, descriptors.size());
  Waiter self;
  uint64_t id = 0;
  {
    auto state = state_.lock();
    if (state->ended) return fail(ErrorCode::kUnavailable, ended_message());
    id = ++state->last_id;
    state->waiting.emplace(id, &self);
  }
  auto sent = send(id, index, true, request, deadline, descriptors);
  auto state = state_.lock();
  while (sent && !self.answered && !state->ended && Clock::now() < deadline) {
    if (state->reading) {
      changed_.wait_until(state.lock(), deadline);
      continue;
    }
    state->reading = true;
    state.lock().unlock();
    const bool more = read_one(deadline);
    state.lock().lock();
    state->reading = false;
    if (!more) state->ended = true;
    changed_.notify_all();  // somebody else reads on
  }
  state->waiting.erase(id);
  if (!sent) return std::unexpected(std::move(sent).error());
  if (self.answered) return std::move(self.reply);
  if (state->ended) return fail(ErrorCode::kUnavailable, ended_message());
  return fail(ErrorCode::kDeadlineExceeded, std::string(operation) + ": no answer from the broker in time");
}

bool Broker::read_one(Clock::time_point deadline) {
  pollfd ready{socket_.get(), POLLIN, 0};
  if (poll_until({&ready, 1}, deadline) <= 0) return true;
  ReplyHeader header;
  std::array<iovec, 2> parts{{{&header, sizeof(header)}, {buffer_.data(), buffer_.size()}}};
  msghdr message{.msg_iov = parts.data(), .msg_iovlen = parts.size()};
  Passed control;
  control.make_room(message);
  const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR;
  if (n == 0) return false;
  CHECK(static_cast<size_t>(n) >= sizeof(header), n);
  BrokerReply reply{.descriptors = Passed::take(message)};
  const ByteSpan body = ByteSpan(buffer_).first(static_cast<size_t>(n) - sizeof(header));
  auto state = state_.lock();
  const auto waiter = state->waiting.find(header.id);
  if (waiter == state->waiting.end()) return true;  // came too late: its descriptors are closed
  waiter->second->answered = true;
  if (header.failed)
    waiter->second->reply = fail(header.code, std::string(as_text(body)));
  else if (message.msg_flags & MSG_CTRUNC)
    waiter->second->reply =
        fail(ErrorCode::kResourceExhausted, "no descriptors left to take those of the broker's answer");
  else {
    reply.bytes.assign(body.begin(), body.end());
    waiter->second->reply = std::move(reply);
  }
  return true;
}

}  // namespace spore::isolation
