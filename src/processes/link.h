// Frames between the host and a process of a tenant's, over a socket of packets in order.
//
//   packet: header { bytes of the body, id, kind, count of descriptors } and the beginning of the body
//   packet: more of the body, until it is whole
//
// One end does not trust the other: a receiver gives its bounds, and what is no frame within them is an error, after
// which nothing more is to be received. Frames are sent whole, one after the other, by whichever thread.
#pragma once

#include <deque>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/guarded.h"
#include "base/result.h"

namespace spore::processes {

constexpr size_t kPacketBytesMax = 64 << 10;
constexpr size_t kFrameDescriptorsMax = 4;

struct Frame {
  uint16_t kind = 0;
  uint64_t id = 0;
  Bytes body;
  Bytes more;  // of the body, behind it, where it is at hand as bytes of its own; received frames have none
  std::vector<UniqueFd> descriptors;
};

class Link {
 public:
  // `received_descriptors_max`: of a frame.
  Link(UniqueFd socket, size_t received_descriptors_max)
      : socket_(std::move(socket)), received_descriptors_max_(received_descriptors_max) {}

  int fd() const { return socket_.get(); }

  // Any thread; waits for room. kUnavailable: the other end is gone.
  Result<void> send(Frame frame);

  // Any thread; never waits: what does not go at once is sent by flush(). kResourceExhausted: more than so many bytes
  // would then wait for that; kUnavailable as above.
  Result<void> post(Frame frame, uint64_t queued_bytes_max);
  // Sends what the socket takes. True: something is left, and the socket is to be waited for.
  bool flush();
  // Since when the other end has taken nothing of what is queued; nothing: none is.
  std::optional<std::chrono::steady_clock::time_point> stuck_since() const;

  // One thread at a time; never waits. Nothing: no frame has come as a whole yet. `bytes_max`: of a frame's body.
  // kUnavailable: the other end is gone; kInvalidArgument: it sent what is no frame, and which rule it broke.
  Result<std::optional<Frame>> receive(uint64_t bytes_max);

 private:
  struct Sending {
    Frame frame;
    uint64_t sent = 0;  // of its body
    bool begun = false;
  };
  struct Outgoing {
    std::deque<Sending> queue;
    uint64_t bytes = 0;
    bool broken = false;
    std::chrono::steady_clock::time_point moved;  // when the other end took something last
  };
  enum class Sent : uint8_t { kWhole, kBlocked, kBroken };
  Sent send_some(Sending& sending, int flags) const;
  bool flush(Outgoing& outgoing) const;

  const UniqueFd socket_;
  const size_t received_descriptors_max_;
  Guarded<Outgoing> outgoing_;

  // Of who receives.
  Bytes packet_ = Bytes(kPacketBytesMax);
  std::optional<Frame> partial_;
  uint64_t missing_ = 0;  // bytes of its body
};

}  // namespace spore::processes
