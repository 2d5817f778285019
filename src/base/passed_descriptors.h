// The part of a message over a Unix socket that carries descriptors (SCM_RIGHTS, unix(7)).
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "base/fd.h"

namespace spore {

// Room for `kMax` of them; lives as long as the message is used. Where more come, the message has MSG_CTRUNC.
template <size_t kMax>
class PassedDescriptors {
 public:
  // To send: at most kMax, which stay the caller's.
  void put(msghdr& message, std::span<const UniqueFd> descriptors) {
    std::array<int, kMax> numbers{};
    for (size_t i = 0; i < descriptors.size(); ++i) numbers[i] = descriptors[i].get();
    put(message, std::span<const int>(numbers).first(descriptors.size()));
  }
  void put(msghdr& message, std::span<const int> descriptors) {
    if (descriptors.empty()) return;
    message.msg_control = bytes_.data();
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* const first = CMSG_FIRSTHDR(&message);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(first), descriptors.data(), descriptors.size_bytes());
  }

  // To receive; without room the kernel closes what comes.
  void make_room(msghdr& message) {
    message.msg_control = bytes_.data();
    message.msg_controllen = bytes_.size();
  }
  // Of a message that was received.
  static std::vector<UniqueFd> take(msghdr& message) {
    std::vector<UniqueFd> out;
    for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
      for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
        out.emplace_back(fd);
      }
    }
    return out;
  }

 private:
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMax * sizeof(int))> bytes_{};
};

}  // namespace spore
