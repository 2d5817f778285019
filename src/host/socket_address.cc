#include "host/socket_address.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace spore::host {

int host_family_of(uint32_t guest_family) {
  return guest_family == kGuestInet4 ? AF_INET : guest_family == kGuestInet6 ? AF_INET6 : 0;
}

uint16_t guest_family_of(int host_family) {
  return host_family == AF_INET ? kGuestInet4 : host_family == AF_INET6 ? kGuestInet6 : 0;
}

std::expected<HostAddress, wasi::Errno> host_address_of(const GuestSocketAddress& address) {
  HostAddress out;
  switch (address.family) {
    case kGuestInet4: {
      sockaddr_in to{};
      constexpr size_t kBytes = sizeof(to.sin_addr);
      const bool rest_is_zero = std::all_of(std::begin(address.address) + kBytes, std::end(address.address),
                                            [](uint8_t b) { return b == 0; });
      if (address.flow_info != 0 || address.scope_id != 0 || !rest_is_zero) return std::unexpected(wasi::Errno::kInval);
      to.sin_family = AF_INET;
      to.sin_port = htons(address.port);
      std::memcpy(&to.sin_addr, address.address, kBytes);
      std::memcpy(&out.storage, &to, sizeof(to));
      out.size_bytes = sizeof(to);
      return out;
    }
    case kGuestInet6: {
      sockaddr_in6 to{};
      to.sin6_family = AF_INET6;
      to.sin6_port = htons(address.port);
      to.sin6_flowinfo = htonl(address.flow_info);
      to.sin6_scope_id = address.scope_id;
      std::memcpy(&to.sin6_addr, address.address, sizeof(to.sin6_addr));
      std::memcpy(&out.storage, &to, sizeof(to));
      out.size_bytes = sizeof(to);
      return out;
    }
    default: return std::unexpected(wasi::Errno::kAfNoSupport);
  }
}

GuestSocketAddress guest_address_of(const sockaddr_storage& address) {
  GuestSocketAddress out;
  out.family = guest_family_of(address.ss_family);
  if (address.ss_family == AF_INET) {
    sockaddr_in from;
    std::memcpy(&from, &address, sizeof(from));
    out.port = ntohs(from.sin_port);
    std::memcpy(out.address, &from.sin_addr, sizeof(from.sin_addr));
  } else if (address.ss_family == AF_INET6) {
    sockaddr_in6 from;
    std::memcpy(&from, &address, sizeof(from));
    out.port = ntohs(from.sin6_port);
    out.flow_info = ntohl(from.sin6_flowinfo);
    out.scope_id = from.sin6_scope_id;
    std::memcpy(out.address, &from.sin6_addr, sizeof(from.sin6_addr));
  }
  return out;
}

}  // namespace spore::host
