#include "processes/link.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/passed_descriptors.h"

namespace spore::processes {

namespace {

struct Header {
  uint64_t body_bytes = 0;
  uint64_t id = 0;
  uint16_t kind = 0;
  uint16_t descriptors = 0;
  uint32_t reserved = 0;  // 0
};

constexpr uint64_t kReservedAtOnce = 1 << 20;  // room for a body is made as it comes

std::unexpected<Error> gone() { return fail(ErrorCode::kUnavailable, "the other end of the link is gone"); }
std::unexpected<Error> no_frame(std::string why) { return fail(ErrorCode::kInvalidArgument, std::move(why)); }

}  // namespace

Link::Sent Link::send_some(Sending& sending, int flags) const {
  const Frame& frame = sending.frame;
  const uint64_t total = frame.body.size() + frame.more.size();
  while (!sending.begun || sending.sent < total) {
    Header header{.body_bytes = total,
                  .id = frame.id,
                  .kind = frame.kind,
                  .descriptors = static_cast<uint16_t>(frame.descriptors.size())};
    std::array<iovec, 3> parts{};
    size_t count = 0;
    size_t room = kPacketBytesMax;
    if (!sending.begun) {
      parts[count++] = {&header, sizeof(header)};
      room -= sizeof(header);
    }
    uint64_t taken = 0;
    const auto take = [&](const Bytes& bytes, uint64_t from) {
      const uint64_t n = std::min<uint64_t>(bytes.size() - from, room);
      if (n == 0) return;
      parts[count++] = {const_cast<uint8_t*>(bytes.data()) + from, n};
      room -= n;
      taken += n;
    };
    if (sending.sent < frame.body.size()) take(frame.body, sending.sent);
    const uint64_t behind = sending.sent + taken;
    if (behind >= frame.body.size()) take(frame.more, behind - frame.body.size());

    PassedDescriptors<kFrameDescriptorsMax> passed;
    msghdr message{.msg_iov = parts.data(), .msg_iovlen = count};
    if (!sending.begun) passed.put(message, frame.descriptors);
    if (::sendmsg(socket_.get(), &message, flags | MSG_NOSIGNAL) < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? Sent::kBlocked : Sent::kBroken;
    }
    sending.begun = true;
    sending.sent += taken;
  }
  return Sent::kWhole;
}

Result<void> Link::send(Frame frame) {
  auto outgoing = outgoing_.lock();
  if (outgoing->broken) return gone();
  Sending sending{.frame = std::move(frame)};
  if (send_some(sending, 0) == Sent::kWhole) return {};
  outgoing->broken = true;
  return gone();
}

bool Link::flush(Outgoing& outgoing) const {
  while (!outgoing.queue.empty() && !outgoing.broken) {
    Sending& first = outgoing.queue.front();
    const uint64_t before = first.sent;
    const Sent sent = send_some(first, MSG_DONTWAIT);
    if (first.sent != before || sent == Sent::kWhole) outgoing.moved = std::chrono::steady_clock::now();
    outgoing.bytes -= first.sent - before;
    if (sent == Sent::kBlocked) return true;
    if (sent == Sent::kBroken) outgoing.broken = true;
    if (sent == Sent::kWhole) outgoing.queue.pop_front();
  }
  return false;
}

Result<void> Link::post(Frame frame, uint64_t queued_bytes_max) {
  auto outgoing = outgoing_.lock();
  if (outgoing->broken) return gone();
  const uint64_t bytes = frame.body.size() + frame.more.size();
  if (!outgoing->queue.empty() && bytes > queued_bytes_max - std::min(outgoing->bytes, queued_bytes_max))
    return fail(ErrorCode::kResourceExhausted, "too much waits to be sent");
  if (outgoing->queue.empty()) outgoing->moved = std::chrono::steady_clock::now();
  outgoing->queue.push_back({.frame = std::move(frame)});
  outgoing->bytes += bytes;
  flush(*outgoing);
  return {};
}

bool Link::flush() { return flush(*outgoing_.lock()); }

std::optional<std::chrono::steady_clock::time_point> Link::stuck_since() const {
  auto outgoing = outgoing_.lock();
  if (outgoing->queue.empty()) return std::nullopt;
  return outgoing->moved;
}

Result<std::optional<Frame>> Link::receive(uint64_t bytes_max) {
  for (;;) {
    iovec part{packet_.data(), packet_.size()};
    PassedDescriptors<kFrameDescriptorsMax> passed;
    msghdr message{.msg_iov = &part, .msg_iovlen = 1};
    if (received_descriptors_max_ > 0) passed.make_room(message);  // else the kernel closes what is sent
    const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return std::nullopt;
    std::vector<UniqueFd> descriptors;
    if (got >= 0) descriptors = passed.take(message);
    if (got <= 0) return gone();
    if (message.msg_flags & MSG_TRUNC) return no_frame("a packet is too large");
    if (message.msg_flags & MSG_CTRUNC) return no_frame("descriptors come that nobody asked for");
    ByteSpan bytes = ByteSpan(packet_).first(static_cast<size_t>(got));
    if (!partial_) {
      Header header;
      if (bytes.size() < sizeof(header)) return no_frame("a packet is shorter than a header");
      std::memcpy(&header, bytes.data(), sizeof(header));
      bytes = bytes.subspan(sizeof(header));
      if (header.reserved != 0) return no_frame("a field that must be 0 is not");
      if (header.body_bytes > bytes_max)
        return no_frame("a frame of " + std::to_string(header.body_bytes) + " bytes; at most " +
                        std::to_string(bytes_max) + " are taken");
      if (header.descriptors != descriptors.size() || descriptors.size() > received_descriptors_max_)
        return no_frame("a frame has other descriptors than it says");
      partial_ = Frame{.kind = header.kind, .id = header.id, .descriptors = std::move(descriptors)};
      partial_->body.reserve(std::min(header.body_bytes, kReservedAtOnce));
      missing_ = header.body_bytes;
      if (bytes.empty() && missing_ > 0) return no_frame("a frame begins without its body");
    } else if (!descriptors.empty()) {
      return no_frame("descriptors come in the midst of a frame");
    }
    if (bytes.size() > missing_) return no_frame("a frame is longer than it says");
    partial_->body.insert(partial_->body.end(), bytes.begin(), bytes.end());
    missing_ -= bytes.size();
    if (missing_ > 0) continue;
    Frame whole = std::move(*partial_);
    partial_.reset();
    return whole;
  }
}

}  // namespace spore::processes
