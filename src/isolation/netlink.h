// Links, addresses, routes and traffic shaping by rtnetlink, several changes in one message to the kernel.
//
// A socket works on the network namespace in which it was opened, wherever its thread is later. Interface numbers are
// chosen by the caller when links are made, so that a batch can refer to what it makes.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "isolation/ip_address.h"

namespace spore::isolation {

// Both ends of all our pairs have this address, and ask nobody for others (NOARP): what one end sends is for the other.
constexpr std::array<uint8_t, 6> kLinkAddress = {0x02, 0x53, 0x50, 0x4f, 0x52, 0x45};

struct LinkEnd {
  std::string name;
  uint32_t index = 0;
  uint32_t group = 0;
};

// A list of changes. They are carried out in order; one that fails does not keep the next ones from being tried.
class NetlinkBatch {
 public:
  // A veth pair, both ends down; the peer in the namespace of that descriptor.
  void add_veth(const LinkEnd& end, const LinkEnd& peer, int peer_namespace);
  void set_up(uint32_t index);
  // A link whose other end has just come up sends nothing until a worker of the kernel's has seen that. Makes it so
  // now.
  void begin_to_send(uint32_t index);
  void set_alias(uint32_t index, std::string_view alias);  // up to 255 bytes
  void set_group(uint32_t index, uint32_t group);
  // An address of this host, with the network of its prefix on that link, which must be up. At once usable.
  void add_address(uint32_t index, const IpAddress& address, uint8_t prefix_bits);
  void add_route(uint32_t index, const IpRange& destination);  // the destination is on the link
  void add_default_route(uint32_t index, const IpAddress& gateway);
  // Multicast addresses of that family are refused, rather than sent on any link.
  void refuse_multicast(bool v6);
  void add_neighbour(uint32_t index, const IpAddress& address);  // at kLinkAddress, for ever
  // Limits what the link sends: a token bucket, made, or changed where there is one. Counts bytes of Ethernet frames.
  void set_rate(uint32_t index, uint64_t bits_per_second);
  void remove_link(uint32_t index);

 private:
  friend class NetlinkSocket;
  template <class Header>
  void begin(uint16_t type, uint16_t flags, const Header& header);
  void put(uint16_t type, const void* bytes, size_t size);
  template <class T>
  void put(uint16_t type, const T& value) {
    put(type, &value, sizeof(value));
  }
  void put_text(uint16_t type, std::string_view text);
  void put_address(uint16_t type, const IpAddress& address) { put(type, address.bytes.data(), address.size()); }
  size_t open_nest(uint16_t type);
  void close_nest(size_t at);
  void append(const void* bytes, size_t size);
  void put_link(const LinkEnd& end);

  Bytes bytes_;
  size_t message_ = 0;  // where the last message begins
  uint32_t count_ = 0;
};

struct LinkInfo {
  uint32_t index = 0;
  uint32_t group = 0;
  std::string name;
  std::string alias;
};

// One thread at a time.
class NetlinkSocket {
 public:
  NetlinkSocket() = default;
  // In the current network namespace of the calling thread, which it keeps alive.
  static Result<NetlinkSocket> open();
  bool valid() const { return socket_.valid(); }

  // Carries it out. The error is that of the first change that failed.
  Result<void> send(const NetlinkBatch& batch);
  Result<std::vector<LinkInfo>> links();

 private:
  UniqueFd socket_;
  uint32_t sequence_ = 0;
};

}  // namespace spore::isolation
