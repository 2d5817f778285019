#include "isolation/broker.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

namespace spore::isolation {

struct BrokerTestAccess {
  static int socket(Broker& broker) { return broker.socket_.get(); }
};

namespace {

using namespace std::chrono_literals;

Broker::Clock::time_point in(std::chrono::milliseconds time) { return Broker::Clock::now() + time; }

std::vector<BrokerOperation> operations() {
  auto count = std::make_shared<uint32_t>(0);
  std::vector<BrokerOperation> out;
  out.push_back({"echo", [](ByteSpan request) -> Result<BrokerReply> {
                   return BrokerReply{.bytes = Bytes(request.begin(), request.end())};
                 }});
  out.push_back(
      {"refuse", [](ByteSpan) -> Result<BrokerReply> { return fail(ErrorCode::kPermissionDenied, "not you"); }});
  out.push_back({"pipe", [](ByteSpan) -> Result<BrokerReply> {
                   int ends[2];
                   if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("pipe2");
                   BrokerReply reply;
                   reply.descriptors.emplace_back(ends[0]);
                   reply.descriptors.emplace_back(ends[1]);
                   return reply;
                 }});
  out.push_back({"count", [count](ByteSpan) -> Result<BrokerReply> {
                   ++*count;
                   return BrokerReply{};
                 }});
  out.push_back({"counted", [count](ByteSpan) -> Result<BrokerReply> {
                   ByteWriter writer;
                   writer.write(*count);
                   return BrokerReply{.bytes = writer.take()};
                 }});
  out.push_back({"work", [](ByteSpan) -> Result<BrokerReply> {  // longer than a caller's deadline
                   ::poll(nullptr, 0, 1'000);
                   return BrokerReply{};
                 }});
  out.push_back({"descriptors", [](ByteSpan) -> Result<BrokerReply> {
                   ByteWriter writer;
                   uint32_t open = 0;
                   for (int fd = 0; fd < 1024; ++fd) open += ::fcntl(fd, F_GETFD) >= 0;
                   writer.write(open);
                   return BrokerReply{.bytes = writer.take()};
                 }});
  out.push_back({.name = "given",
                 .descriptors = 2,
                 .run_with = [](ByteSpan, std::span<const UniqueFd> given) -> Result<BrokerReply> {
                   ByteWriter writer;  // sizes of two files
                   writer.write(static_cast<uint32_t>(100 * ::lseek(given[0].get(), 0, SEEK_END) +
                                                      ::lseek(given[1].get(), 0, SEEK_END)));
                   return BrokerReply{.bytes = writer.take()};
                 }});
  out.push_back({"too-large",
                 [](ByteSpan) -> Result<BrokerReply> { return BrokerReply{.bytes = Bytes(kBrokerMessageBytesMax)}; }});
  return out;
}

uint32_t number(const Result<BrokerReply>& reply) {
  EXPECT_TRUE(reply.has_value()) << reply.error().message;
  ByteReader reader(reply->bytes);
  return reader.read<uint32_t>();
}

// A request as it travels: broker.cc's RequestHeader.
Bytes packet(uint64_t id, uint32_t operation, uint32_t reserved = 0, size_t body_bytes = 0) {
  ByteWriter out;
  out.write(id);
  out.write<int64_t>(INT64_MAX);
  out.write(operation);
  out.write(reserved);
  Bytes bytes = out.take();
  bytes.resize(bytes.size() + body_bytes);
  return bytes;
}

struct RawAnswer {
  uint64_t id = 0;
  uint32_t failed = 0;
  std::string text;
};

std::optional<RawAnswer> read_raw(int socket, int patience_ms) {
  pollfd ready{socket, POLLIN, 0};
  if (::poll(&ready, 1, patience_ms) != 1) return std::nullopt;
  Bytes buffer(kBrokerMessageBytesMax);
  const ssize_t n = ::recv(socket, buffer.data(), buffer.size(), 0);
  if (n < 16) return std::nullopt;
  buffer.resize(static_cast<size_t>(n));
  ByteReader in(buffer);
  RawAnswer out{.id = in.read<uint64_t>(), .failed = in.read<uint32_t>()};
  in.read<uint32_t>();
  out.text = as_text(in.rest());
  return out;
}

bool wait_for_end(pid_t pid, std::chrono::milliseconds patience) {
  UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!process.valid()) return true;
  pollfd end{process.get(), POLLIN, 0};
  return ::poll(&end, 1, static_cast<int>(patience.count())) == 1;
}

class BrokerTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = Broker::start(operations());
    ASSERT_TRUE(started.has_value()) << started.error().message;
    broker_ = std::move(*started);
  }
  std::unique_ptr<Broker> broker_;
};

TEST_F(BrokerTest, AnswersWithBytes) {
  const auto reply = broker_->call("echo", as_bytes("hello"), in(5s));
  ASSERT_TRUE(reply.has_value()) << reply.error().message;
  EXPECT_EQ(as_text(reply->bytes), "hello");
}

TEST_F(BrokerTest, HandsOverDescriptorsThatAreClosedOnExec) {
  auto reply = broker_->call("pipe", {}, in(5s));
  ASSERT_TRUE(reply.has_value()) << reply.error().message;
  ASSERT_EQ(reply->descriptors.size(), 2u);
  EXPECT_EQ(::write(reply->descriptors[1].get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(reply->descriptors[0].get(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  EXPECT_TRUE(::fcntl(reply->descriptors[0].get(), F_GETFD) & FD_CLOEXEC);
}

TEST_F(BrokerTest, HasNoDescriptorOfTheProcessThatStartedIt) {
  // Standard input and output (nothing), standard error, the socket, and where it hears of signals.
  EXPECT_EQ(number(broker_->call("descriptors", {}, in(5s))), 5u);
}

TEST_F(BrokerTest, PassesErrorsOn) {
  const auto reply = broker_->call("refuse", {}, in(5s));
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(reply.error().message, "not you");
}

TEST_F(BrokerTest, NamesAnOperationThatItDoesNotHave) {
  const auto reply = broker_->call("reboot", {}, in(5s));
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().message, "the broker has no operation reboot");
}

TEST_F(BrokerTest, RefusesRequestsAndAnswersThatAreTooLarge) {
  const auto request = broker_->call("echo", Bytes(kBrokerMessageBytesMax), in(5s));
  ASSERT_FALSE(request.has_value());
  EXPECT_EQ(request.error().code, ErrorCode::kInvalidArgument);
  const auto answer = broker_->call("too-large", {}, in(5s));
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().message, "the answer is too large");
  const size_t most = kBrokerMessageBytesMax - 24;
  const auto largest = broker_->call("echo", Bytes(most), in(5s));
  ASSERT_TRUE(largest.has_value()) << largest.error().message;
  EXPECT_EQ(largest->bytes.size(), most);
}

TEST_F(BrokerTest, WhatWasPostedIsDoneBeforeALaterCall) {
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(broker_->post("count", {}, in(5s)).has_value());
  EXPECT_EQ(number(broker_->call("counted", {}, in(5s))), 100u);
}

TEST_F(BrokerTest, ManyThreadsEachGetTheirOwnAnswer) {
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread)
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 200; ++i) {
        const std::string text = std::to_string(thread) + "/" + std::to_string(i);
        const auto reply = broker_->call("echo", as_bytes(text), in(10s));
        wrong += !reply || as_text(reply->bytes) != text;
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(BrokerTest, ADeadlineEndsTheWaitAndWhatWaitsTooLongIsNotDone) {
  ASSERT_TRUE(broker_->call("echo", {}, in(5s)).has_value());  // it is there
  const auto slow = broker_->call("work", {}, in(100ms));
  ASSERT_FALSE(slow.has_value());
  EXPECT_EQ(slow.error().code, ErrorCode::kDeadlineExceeded);
  ASSERT_FALSE(broker_->call("count", {}, in(5ms)).has_value());  // its turn comes after its deadline
  EXPECT_EQ(number(broker_->call("counted", {}, in(5s))), 0u);
}

TEST_F(BrokerTest, RefusesMalformedRequests) {
  const int socket = BrokerTestAccess::socket(*broker_);
  const auto send = [&](const Bytes& bytes) { ASSERT_EQ(::send(socket, bytes.data(), bytes.size(), 0), bytes.size()); };
  send(packet(1, 1'000));
  auto answer = read_raw(socket, 5'000);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->id, 1u);
  EXPECT_EQ(answer->failed, 1u);
  EXPECT_EQ(answer->text, "there is no operation 1000");

  send(packet(2, 0, 7));
  answer = read_raw(socket, 5'000);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->text, "a request with a field that must be 0");

  send(packet(3, 0, 0, kBrokerMessageBytesMax));
  answer = read_raw(socket, 5'000);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->id, 3u);
  EXPECT_EQ(answer->text, "a request of more than 65536 bytes");

  Bytes truncated = packet(4, 0);
  truncated.resize(11);
  send(truncated);
  EXPECT_FALSE(read_raw(socket, 50).has_value());
  EXPECT_TRUE(broker_->call("echo", {}, in(5s)).has_value());
}

TEST_F(BrokerTest, ARequestMayHaveDescriptorsWhichAreClosedAfterIt) {
  const uint32_t before = number(broker_->call("descriptors", {}, in(5s)));
  const auto first = make_memfd("first", as_bytes("12")), second = make_memfd("second", as_bytes("345"));
  const int both[] = {first->get(), second->get()};
  EXPECT_EQ(number(broker_->call("given", {}, in(5s), both)), 203u);
  for (const std::span<const int> wrong : {std::span(both).first(1), std::span<const int>()}) {
    const auto reply = broker_->call("given", {}, in(5s), wrong);
    ASSERT_FALSE(reply.has_value());
    EXPECT_EQ(reply.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(number(broker_->call("descriptors", {}, in(5s))), before);
}

TEST_F(BrokerTest, TakesNoDescriptorsThatItDidNotAskFor) {
  const int socket = BrokerTestAccess::socket(*broker_);
  const uint32_t before = number(broker_->call("descriptors", {}, in(5s)));
  Bytes request = packet(5, 0);
  iovec part{request.data(), request.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
  cmsghdr* const first = CMSG_FIRSTHDR(&message);
  *first = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  const int fd = STDERR_FILENO;
  std::memcpy(CMSG_DATA(first), &fd, sizeof(fd));
  ASSERT_EQ(::sendmsg(socket, &message, 0), static_cast<ssize_t>(request.size()));
  const auto answer = read_raw(socket, 5'000);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->text, "1 descriptors came with a request that has 0");
  EXPECT_EQ(number(broker_->call("descriptors", {}, in(5s))), before);
}

TEST_F(BrokerTest, ItsDeathIsAnErrorOfEachCall) {
  std::thread waiting([&] {
    const auto reply = broker_->call("work", {}, in(5s));
    ASSERT_FALSE(reply.has_value());
    EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  });
  ::poll(nullptr, 0, 20);
  ::kill(broker_->pid(), SIGKILL);
  waiting.join();
  const auto reply = broker_->call("echo", {}, in(5s));
  ASSERT_FALSE(reply.has_value());
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(reply.error().message,
            "the privileged helper (spore-broker, process " + std::to_string(broker_->pid()) + ") has ended");
  EXPECT_FALSE(broker_->post("echo", {}, in(5s)).has_value());
}

TEST_F(BrokerTest, OutlivesSignalsThatAreNotForIt) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::kill(broker_->pid(), number);
  EXPECT_TRUE(broker_->call("echo", {}, in(5s)).has_value());
}

TEST(Broker, MustBeStartedBeforeAnyThread) {
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  std::thread other([&] {
    uint64_t value = 0;
    (void)!::read(stop.get(), &value, sizeof(value));
  });
  const auto started = Broker::start(operations());
  const uint64_t one = 1;
  (void)!::write(stop.get(), &one, sizeof(one));
  other.join();
  ASSERT_FALSE(started.has_value());
  EXPECT_EQ(started.error().code, ErrorCode::kFailedPrecondition);
}

// What an operation owns is destroyed when the process that started the broker is killed.
TEST(Broker, EndsAndCleansUpWhenItsStarterIsKilled) {
  int report[2], alive[2];
  ASSERT_EQ(::pipe2(report, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(alive, O_CLOEXEC), 0);
  const auto file = std::filesystem::temp_directory_path() / ("spore-broker-test-" + std::to_string(::getpid()));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    struct Owned {
      explicit Owned(std::filesystem::path owned) : path(std::move(owned)) {}
      ~Owned() {
        if (made) ::unlink(path.c_str());
      }
      std::filesystem::path path;
      bool made = false;
    };
    std::vector<BrokerOperation> owning;
    owning.push_back({"make", [owned = std::make_unique<Owned>(file)](ByteSpan) -> Result<BrokerReply> {
                        UniqueFd fd(::open(owned->path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
                        owned->made = fd.valid();
                        return BrokerReply{};
                      }});
    auto broker = Broker::start(std::move(owning));
    if (!broker || !(*broker)->call("make", {}, in(5s))) ::_exit(1);
    const pid_t pid = (*broker)->pid();
    (void)!::write(report[1], &pid, sizeof(pid));
    for (;;) ::pause();
  }
  ::close(report[1]);
  pid_t broker = 0;
  ASSERT_EQ(::read(report[0], &broker, sizeof(broker)), static_cast<ssize_t>(sizeof(broker)));
  EXPECT_TRUE(std::filesystem::exists(file));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(wait_for_end(broker, 10s));
  EXPECT_FALSE(std::filesystem::exists(file));
  for (const int fd : {report[0], alive[0], alive[1]}) ::close(fd);
}

}  // namespace
}  // namespace spore::isolation
