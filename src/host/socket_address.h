// Addresses of sockets: as they lie in guest memory, and as the kernel wants them.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <expected>

#include "host/wasi_abi.h"

namespace spore::host {

constexpr uint16_t kGuestInet4 = 1;  // as wasi-libc's AF_INET and AF_INET6
constexpr uint16_t kGuestInet6 = 2;

// 28 bytes, numbers in little endian, of any alignment.
struct GuestSocketAddress {
  uint16_t family = 0;  // kGuestInet4, kGuestInet6
  uint16_t port = 0;
  uint32_t flow_info = 0;    // IPv6; else zero
  uint32_t scope_id = 0;     // IPv6: the number of an interface; else zero
  uint8_t address[16] = {};  // most significant byte first; IPv4: the first four, the rest is zero
};
static_assert(sizeof(GuestSocketAddress) == 28 && offsetof(GuestSocketAddress, address) == 12);

struct HostAddress {
  sockaddr_storage storage{};
  socklen_t size_bytes = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// AF_INET, AF_INET6; 0 for a number that is neither's.
int host_family_of(uint32_t guest_family);
uint16_t guest_family_of(int host_family);

// kAfNoSupport: another family; kInval: something that must be zero is not.
std::expected<HostAddress, wasi::Errno> host_address_of(const GuestSocketAddress& address);
// All zero for one of another family.
GuestSocketAddress guest_address_of(const sockaddr_storage& address);

}  // namespace spore::host
