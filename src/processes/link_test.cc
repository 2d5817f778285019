#include "processes/link.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

namespace spore::processes {
namespace {

constexpr uint64_t kBytesMax = 8 << 20;

struct Ends {
  explicit Ends(size_t descriptors_max = kFrameDescriptorsMax) {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    raw = ends[0];
    here.emplace(UniqueFd(ends[0]), descriptors_max);
    there.emplace(UniqueFd(ends[1]), descriptors_max);
  }
  std::optional<Link> here, there;
  int raw;  // of `here`: for what a link does not send
};

Result<Frame> wait_for_frame(Link& link, uint64_t bytes_max = kBytesMax) {
  for (;;) {
    auto frame = link.receive(bytes_max);
    if (!frame) return std::unexpected(frame.error());
    if (*frame) return std::move(**frame);
    pollfd ready{link.fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, 10'000), 1);
  }
}

// As link.cc has it.
struct Header {
  uint64_t body_bytes = 0;
  uint64_t id = 0;
  uint16_t kind = 0;
  uint16_t descriptors = 0;
  uint32_t reserved = 0;
};

void send_raw(int fd, const Header& header, std::string_view body, int descriptor = -1) {
  iovec parts[2] = {{const_cast<Header*>(&header), sizeof(header)}, {const_cast<char*>(body.data()), body.size()}};
  msghdr message{.msg_iov = parts, .msg_iovlen = 2};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (descriptor >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* const first = CMSG_FIRSTHDR(&message);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(first), &descriptor, sizeof(int));
  }
  ASSERT_GE(::sendmsg(fd, &message, MSG_NOSIGNAL), 0);
}

TEST(Link, FramesOfAllSizesComeWholeAndInOrder) {
  Ends ends;
  const std::vector<size_t> sizes = {0,
                                     1,
                                     kPacketBytesMax - 25,
                                     kPacketBytesMax - 24,
                                     kPacketBytesMax - 23,
                                     kPacketBytesMax,
                                     3 * kPacketBytesMax + 7,
                                     5 << 20};
  std::jthread sender([&] {
    uint64_t id = 0;
    for (const size_t size : sizes)
      for (const size_t split : {size_t{0}, size / 2, size}) {
        Bytes bytes(size);
        for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + (i >> 8));
        Frame frame{.kind = 9, .id = ++id};
        frame.body.assign(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(split));
        frame.more.assign(bytes.begin() + static_cast<ptrdiff_t>(split), bytes.end());
        EXPECT_TRUE(ends.here->send(std::move(frame)));
      }
  });
  uint64_t id = 0;
  for (const size_t size : sizes)
    for (int i = 0; i < 3; ++i) {
      auto frame = wait_for_frame(*ends.there);
      ASSERT_TRUE(frame) << frame.error().message;
      EXPECT_EQ(frame->id, ++id);
      EXPECT_EQ(frame->kind, 9);
      ASSERT_EQ(frame->body.size(), size);
      for (size_t at = 0; at < size; ++at) ASSERT_EQ(frame->body[at], static_cast<uint8_t>(at * 7 + (at >> 8)));
    }
}

TEST(Link, DescriptorsComeWithTheirFrame) {
  Ends ends;
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  UniqueFd reads(pipe[0]);
  Frame frame{.kind = 1, .id = 1, .body = Bytes(200'000)};
  frame.descriptors.emplace_back(pipe[1]);
  ASSERT_TRUE(ends.here->post({.kind = 1, .id = 0, .body = {1}}, kBytesMax));
  ASSERT_TRUE(ends.here->post(std::move(frame), kBytesMax));
  EXPECT_TRUE(wait_for_frame(*ends.there)->descriptors.empty());
  std::jthread flusher([&] {
    while (ends.here->flush()) std::this_thread::yield();
  });
  auto got = wait_for_frame(*ends.there);
  ASSERT_TRUE(got);
  ASSERT_EQ(got->descriptors.size(), 1u);
  EXPECT_EQ(::write(got->descriptors[0].get(), "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(::read(reads.get(), &byte, 1), 1);
}

TEST(Link, PostNeverWaitsAndHasABound) {
  Ends ends;
  EXPECT_FALSE(ends.here->stuck_since());
  Result<void> posted;
  size_t count = 0;
  for (; posted && count < 10'000; ++count) posted = ends.here->post({.body = Bytes(50'000)}, 1 << 20);
  ASSERT_FALSE(posted);
  EXPECT_EQ(posted.error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(ends.here->flush());
  EXPECT_TRUE(ends.here->stuck_since());
  for (size_t i = 0; i + 1 < count; ++i) {
    while (ends.here->flush() && i + 20 > count) break;
    auto frame = wait_for_frame(*ends.there);
    ASSERT_TRUE(frame);
    EXPECT_EQ(frame->body.size(), 50'000u);
    ends.here->flush();
  }
  EXPECT_FALSE(ends.here->flush());
  EXPECT_FALSE(ends.here->stuck_since());
}

TEST(Link, WhatIsNoFrameIsRefused) {
  const std::string some(100, 'x');
  const auto refusal = [&](const Header& header, std::string_view body, size_t descriptors_max = 0, int fd = -1,
                           std::string_view more = "") -> std::string {
    Ends ends(descriptors_max);
    send_raw(ends.raw, header, body, fd);
    if (!more.empty()) EXPECT_GE(::send(ends.raw, more.data(), more.size(), 0), 0);
    for (int i = 0; i < 3; ++i) {
      auto frame = ends.there->receive(1'000);
      if (!frame) return frame.error().message;
    }
    return "";
  };
  EXPECT_EQ(refusal({.body_bytes = 100}, some), "");
  EXPECT_EQ(refusal({.body_bytes = 1'001}, some), "a frame of 1001 bytes; at most 1000 are taken");
  EXPECT_EQ(refusal({.body_bytes = ~0ull}, some), "a frame of 18446744073709551615 bytes; at most 1000 are taken");
  EXPECT_EQ(refusal({.body_bytes = 99}, some), "a frame is longer than it says");
  EXPECT_EQ(refusal({.body_bytes = 150}, some, 0, -1, some), "a frame is longer than it says");
  EXPECT_EQ(refusal({.body_bytes = 100, .reserved = 1}, some), "a field that must be 0 is not");
  EXPECT_EQ(refusal({.body_bytes = 100}, ""), "a frame begins without its body");
  EXPECT_EQ(refusal({.body_bytes = 100, .descriptors = 1}, some), "a frame has other descriptors than it says");
  // One whom nobody asked for descriptors, and who gets some; and one that may send them.
  EXPECT_EQ(refusal({.body_bytes = 100}, some, 0, STDIN_FILENO), "descriptors come that nobody asked for");
  EXPECT_EQ(refusal({.body_bytes = 100}, some, 1, STDIN_FILENO), "a frame has other descriptors than it says");
  EXPECT_EQ(refusal({.body_bytes = 100, .descriptors = 1}, some, 1, STDIN_FILENO), "");

  Ends ends;
  ASSERT_GE(::send(ends.raw, "short", 5, 0), 0);
  EXPECT_EQ(ends.there->receive(1'000).error().message, "a packet is shorter than a header");
  const std::string large(kPacketBytesMax + 1, 'x');
  ASSERT_GE(::send(ends.raw, large.data(), large.size(), 0), 0);
  EXPECT_EQ(ends.there->receive(1'000).error().message, "a packet is too large");
}

TEST(Link, TheEndOfTheOtherSideIsToldToBoth) {
  Ends ends;
  ends.there.reset();
  EXPECT_EQ(ends.here->receive(1'000).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(ends.here->send({.body = {1}}).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace spore::processes
