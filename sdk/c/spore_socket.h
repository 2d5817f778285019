// Sockets by their POSIX names, for C and C++: what wasi-libc leaves out, over Spore's own calls (docs/network.md).
//
//   #include <spore_socket.h>
//
//   struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
//   if (getaddrinfo("example.org", "80", &hints, &found) != 0) return 1;
//   const int fd = socket(found->ai_family, found->ai_socktype, 0);
//   if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) return 1;
//   send(fd, request, sizeof(request) - 1, 0);
//
// Sources that include <sys/socket.h> and <netdb.h> compile as they are, with -I sdk/c/posix. A header is all there is:
// its functions are weak, so that any number of files may include it.
//
// Streams and datagrams over IPv4 and IPv6; read, write, close, poll, select, fcntl(O_NONBLOCK), shutdown are those of
// libc. Options: SO_TYPE, SO_ERROR, SO_REUSEADDR, SO_KEEPALIVE, SO_RCVBUF, SO_SNDBUF, SO_RCVTIMEO, SO_SNDTIMEO,
// TCP_NODELAY, IPV6_V6ONLY; others are ENOPROTOOPT. Flags: MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_NOSIGNAL; there are
// no signals, a peer that is gone is EPIPE. A call that waits for the network holds up the whole function.
#ifndef SPORE_SOCKET_H
#define SPORE_SOCKET_H

#if !defined(__wasm__)
#error "spore_socket.h is for functions that run in Spore: compile with --target=wasm32-wasi"
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- the calls themselves ----
//
// Each returns a number that is not negative, or minus an error number of <errno.h>.

#define SPORE_SOCKET_IMPORT(name) __attribute__((import_module("spore"), import_name(#name)))

struct spore_socket_address {
  uint16_t family;  // AF_INET, AF_INET6
  uint16_t port;    // a number, not in the order of the network
  uint32_t flow_info;
  uint32_t scope_id;
  uint8_t address[16];  // most significant byte first; IPv4: the first four, the rest is zero
};

SPORE_SOCKET_IMPORT(sock_open) int64_t spore_sock_open(uint32_t family, uint32_t type);
SPORE_SOCKET_IMPORT(sock_connect) int64_t spore_sock_connect(int fd, const struct spore_socket_address* to);
SPORE_SOCKET_IMPORT(sock_bind) int64_t spore_sock_bind(int fd, const struct spore_socket_address* to);
SPORE_SOCKET_IMPORT(sock_listen) int64_t spore_sock_listen(int fd, uint32_t backlog);
// `peer`, `from` and `to` may be null.
SPORE_SOCKET_IMPORT(sock_accept) int64_t spore_sock_accept(int fd, struct spore_socket_address* peer);
SPORE_SOCKET_IMPORT(sock_sendto)
int64_t spore_sock_sendto(int fd, const void* data, uint32_t size_bytes, uint32_t flags,
                          const struct spore_socket_address* to);
SPORE_SOCKET_IMPORT(sock_recvfrom)
int64_t spore_sock_recvfrom(int fd, void* to, uint32_t size_bytes, uint32_t flags, struct spore_socket_address* from);
#define SPORE_SOCK_PEEK 1
#define SPORE_SOCK_WAITALL 2
#define SPORE_SOCK_DONTWAIT 4
SPORE_SOCKET_IMPORT(sock_getsockname) int64_t spore_sock_getsockname(int fd, struct spore_socket_address* to);
SPORE_SOCKET_IMPORT(sock_getpeername) int64_t spore_sock_getpeername(int fd, struct spore_socket_address* to);
enum {
  SPORE_SOCK_TYPE = 1,
  SPORE_SOCK_ERROR = 2,
  SPORE_SOCK_REUSEADDR = 3,
  SPORE_SOCK_KEEPALIVE = 4,
  SPORE_SOCK_RCVBUF = 5,
  SPORE_SOCK_SNDBUF = 6,
  SPORE_SOCK_RCVTIMEO_US = 7,
  SPORE_SOCK_SNDTIMEO_US = 8,
  SPORE_SOCK_NODELAY = 9,
  SPORE_SOCK_V6ONLY = 10
};
SPORE_SOCKET_IMPORT(sock_getsockopt) int64_t spore_sock_getsockopt(int fd, uint32_t option);
SPORE_SOCKET_IMPORT(sock_setsockopt) int64_t spore_sock_setsockopt(int fd, uint32_t option, int64_t value);
// At most SPORE_SOCK_RESOLVED_MAX addresses of the name; how many. family: AF_UNSPEC for both. At most 10 seconds.
#define SPORE_SOCK_RESOLVED_MAX 64
SPORE_SOCKET_IMPORT(sock_resolve)
int64_t spore_sock_resolve(const char* name, uint32_t name_bytes, uint32_t family, struct spore_socket_address* to,
                           uint32_t count, uint32_t timeout_ms);

// ---- POSIX ----

#ifndef SO_REUSEADDR
#define SO_REUSEADDR 2
#endif
#ifndef SO_ERROR
#define SO_ERROR 4
#endif
#ifndef SO_SNDBUF
#define SO_SNDBUF 7
#endif
#ifndef SO_RCVBUF
#define SO_RCVBUF 8
#endif
#ifndef SO_KEEPALIVE
#define SO_KEEPALIVE 9
#endif
#ifndef SO_RCVTIMEO
#define SO_RCVTIMEO 66
#endif
#ifndef SO_SNDTIMEO
#define SO_SNDTIMEO 67
#endif
#ifndef SOMAXCONN
#define SOMAXCONN 128
#endif
#ifndef MSG_DONTWAIT
#define MSG_DONTWAIT 0x0040
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0x4000
#endif
#ifndef PF_UNSPEC
#define PF_UNSPEC AF_UNSPEC
#endif
#ifndef PF_INET
#define PF_INET AF_INET
#endif
#ifndef PF_INET6
#define PF_INET6 AF_INET6
#endif

struct addrinfo {
  int ai_flags;
  int ai_family;
  int ai_socktype;
  int ai_protocol;
  socklen_t ai_addrlen;
  struct sockaddr* ai_addr;
  char* ai_canonname;  // always null
  struct addrinfo* ai_next;
};

#define AI_PASSIVE 0x01
#define AI_CANONNAME 0x02  // not supported: EAI_BADFLAGS
#define AI_NUMERICHOST 0x04
#define AI_ADDRCONFIG 0x20  // says nothing here
#define AI_NUMERICSERV 0x400

#define EAI_BADFLAGS (-1)
#define EAI_NONAME (-2)
#define EAI_AGAIN (-3)
#define EAI_FAIL (-4)
#define EAI_FAMILY (-6)
#define EAI_SOCKTYPE (-7)
#define EAI_SERVICE (-8)
#define EAI_MEMORY (-10)
#define EAI_SYSTEM (-11)

#define SPORE_WEAK __attribute__((weak))

static inline int64_t spore_socket_checked_(int64_t result) {
  if (result >= 0) return result;
  errno = (int)-result;
  return -1;
}

// 0, or an error number.
static inline int spore_socket_from_posix_(struct spore_socket_address* to, const struct sockaddr* from,
                                           socklen_t size) {
  memset(to, 0, sizeof(*to));
  if (size < sizeof(sa_family_t)) return EINVAL;
  if (from->sa_family == AF_INET) {
    struct sockaddr_in in;
    if (size < sizeof(in)) return EINVAL;
    memcpy(&in, from, sizeof(in));
    to->family = AF_INET;
    to->port = ntohs(in.sin_port);
    memcpy(to->address, &in.sin_addr, sizeof(in.sin_addr));
    return 0;
  }
  if (from->sa_family == AF_INET6) {
    struct sockaddr_in6 in;
    if (size < offsetof(struct sockaddr_in6, sin6_scope_id) + sizeof(in.sin6_scope_id)) return EINVAL;
    memset(&in, 0, sizeof(in));
    memcpy(&in, from, size < sizeof(in) ? size : sizeof(in));
    to->family = AF_INET6;
    to->port = ntohs(in.sin6_port);
    to->flow_info = ntohl(in.sin6_flowinfo);
    to->scope_id = in.sin6_scope_id;
    memcpy(to->address, &in.sin6_addr, sizeof(in.sin6_addr));
    return 0;
  }
  return EAFNOSUPPORT;
}

// Fills as much as there is room for; *size becomes the address's own size.
static inline void spore_socket_to_posix_(struct sockaddr* to, socklen_t* size,
                                          const struct spore_socket_address* from) {
  union {
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
  } out;
  socklen_t bytes = sizeof(out.in4);
  memset(&out, 0, sizeof(out));
  if (from->family == AF_INET6) {
    out.in6.sin6_family = AF_INET6;
    out.in6.sin6_port = htons(from->port);
    out.in6.sin6_flowinfo = htonl(from->flow_info);
    out.in6.sin6_scope_id = from->scope_id;
    memcpy(&out.in6.sin6_addr, from->address, sizeof(out.in6.sin6_addr));
    bytes = sizeof(out.in6);
  } else {
    out.in4.sin_family = from->family;
    out.in4.sin_port = htons(from->port);
    memcpy(&out.in4.sin_addr, from->address, sizeof(out.in4.sin_addr));
  }
  if (to && size) {
    memcpy(to, &out, *size < bytes ? *size : bytes);
    *size = bytes;
  }
}

static inline int spore_socket_flags_(int fd, int flags) {
  if (!(flags & SOCK_NONBLOCK)) return fd;
  if (fcntl(fd, F_SETFL, O_NONBLOCK) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

SPORE_WEAK int socket(int family, int type, int protocol) {
  const int flags = type & (SOCK_NONBLOCK | SOCK_CLOEXEC);
  type &= ~(SOCK_NONBLOCK | SOCK_CLOEXEC);
  const int wanted = type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
  if (protocol != 0 && protocol != wanted) {
    errno = EPROTONOSUPPORT;
    return -1;
  }
  const int fd = (int)spore_socket_checked_(spore_sock_open((uint32_t)family, (uint32_t)type));
  return fd < 0 ? fd : spore_socket_flags_(fd, flags);
}

SPORE_WEAK int connect(int fd, const struct sockaddr* to, socklen_t size) {
  struct spore_socket_address address;
  const int error = spore_socket_from_posix_(&address, to, size);
  return (int)spore_socket_checked_(error ? -error : spore_sock_connect(fd, &address));
}

SPORE_WEAK int bind(int fd, const struct sockaddr* to, socklen_t size) {
  struct spore_socket_address address;
  const int error = spore_socket_from_posix_(&address, to, size);
  return (int)spore_socket_checked_(error ? -error : spore_sock_bind(fd, &address));
}

SPORE_WEAK int listen(int fd, int backlog) {
  return (int)spore_socket_checked_(spore_sock_listen(fd, backlog < 0 ? 0 : (uint32_t)backlog));
}

SPORE_WEAK int accept4(int fd, struct sockaddr* __restrict peer, socklen_t* __restrict size, int flags) {
  if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) {
    errno = EINVAL;
    return -1;
  }
  struct spore_socket_address address;
  const int accepted = (int)spore_socket_checked_(spore_sock_accept(fd, &address));
  if (accepted < 0) return accepted;
  spore_socket_to_posix_(peer, size, &address);
  return spore_socket_flags_(accepted, flags);
}

SPORE_WEAK int accept(int fd, struct sockaddr* __restrict peer, socklen_t* __restrict size) {
  return accept4(fd, peer, size, 0);
}

SPORE_WEAK ssize_t sendto(int fd, const void* data, size_t size, int flags, const struct sockaddr* to,
                          socklen_t to_size) {
  struct spore_socket_address address;
  int error = flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL) ? EOPNOTSUPP : 0;
  if (!error && to) error = spore_socket_from_posix_(&address, to, to_size);
  return (ssize_t)spore_socket_checked_(
      error ? -error
            : spore_sock_sendto(fd, data, size, flags & MSG_DONTWAIT ? SPORE_SOCK_DONTWAIT : 0, to ? &address : NULL));
}

SPORE_WEAK ssize_t send(int fd, const void* data, size_t size, int flags) {
  return sendto(fd, data, size, flags, NULL, 0);
}

SPORE_WEAK ssize_t recvfrom(int fd, void* __restrict to, size_t size, int flags, struct sockaddr* __restrict from,
                            socklen_t* __restrict from_size) {
  struct spore_socket_address address;
  if (flags & ~(MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT | MSG_NOSIGNAL)) {
    errno = EOPNOTSUPP;
    return -1;
  }
  const uint32_t how = (flags & MSG_PEEK ? SPORE_SOCK_PEEK : 0) | (flags & MSG_WAITALL ? SPORE_SOCK_WAITALL : 0) |
                       (flags & MSG_DONTWAIT ? SPORE_SOCK_DONTWAIT : 0);
  const ssize_t got = (ssize_t)spore_socket_checked_(spore_sock_recvfrom(fd, to, size, how, from ? &address : NULL));
  if (got >= 0 && from) spore_socket_to_posix_(from, from_size, &address);
  return got;
}

SPORE_WEAK ssize_t recv(int fd, void* to, size_t size, int flags) { return recvfrom(fd, to, size, flags, NULL, NULL); }

SPORE_WEAK int getsockname(int fd, struct sockaddr* __restrict to, socklen_t* __restrict size) {
  struct spore_socket_address address;
  const int result = (int)spore_socket_checked_(spore_sock_getsockname(fd, &address));
  if (result == 0) spore_socket_to_posix_(to, size, &address);
  return result;
}

SPORE_WEAK int getpeername(int fd, struct sockaddr* __restrict to, socklen_t* __restrict size) {
  struct spore_socket_address address;
  const int result = (int)spore_socket_checked_(spore_sock_getpeername(fd, &address));
  if (result == 0) spore_socket_to_posix_(to, size, &address);
  return result;
}

// The number of an option, or 0.
static inline uint32_t spore_socket_option_(int level, int name) {
  if (level == SOL_SOCKET) switch (name) {
      case SO_TYPE: return SPORE_SOCK_TYPE;
      case SO_ERROR: return SPORE_SOCK_ERROR;
      case SO_REUSEADDR: return SPORE_SOCK_REUSEADDR;
      case SO_KEEPALIVE: return SPORE_SOCK_KEEPALIVE;
      case SO_RCVBUF: return SPORE_SOCK_RCVBUF;
      case SO_SNDBUF: return SPORE_SOCK_SNDBUF;
      case SO_RCVTIMEO: return SPORE_SOCK_RCVTIMEO_US;
      case SO_SNDTIMEO: return SPORE_SOCK_SNDTIMEO_US;
    }
  if (level == IPPROTO_TCP && name == TCP_NODELAY) return SPORE_SOCK_NODELAY;
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return SPORE_SOCK_V6ONLY;
  return 0;
}

SPORE_WEAK int setsockopt(int fd, int level, int name, const void* value, socklen_t size) {
  const uint32_t option = spore_socket_option_(level, name);
  if (option == SPORE_SOCK_RCVTIMEO_US || option == SPORE_SOCK_SNDTIMEO_US) {
    struct timeval time;
    if (size < sizeof(time)) return (int)spore_socket_checked_(-EINVAL);
    memcpy(&time, value, sizeof(time));
    if (time.tv_sec < 0 || time.tv_sec > INT32_MAX || time.tv_usec < 0 || time.tv_usec >= 1000000)
      return (int)spore_socket_checked_(-EDOM);
    return (int)spore_socket_checked_(
        spore_sock_setsockopt(fd, option, (int64_t)time.tv_sec * 1000000 + (int64_t)time.tv_usec));
  }
  int number;
  if (size < sizeof(number)) return (int)spore_socket_checked_(-EINVAL);
  memcpy(&number, value, sizeof(number));
  const int is_switch = option != SPORE_SOCK_RCVBUF && option != SPORE_SOCK_SNDBUF;
  return (int)spore_socket_checked_(spore_sock_setsockopt(fd, option, is_switch ? number != 0 : number));
}

SPORE_WEAK int getsockopt(int fd, int level, int name, void* __restrict to, socklen_t* __restrict size) {
  const uint32_t option = spore_socket_option_(level, name);
  const int64_t value = spore_socket_checked_(spore_sock_getsockopt(fd, option));
  if (value < 0) return -1;
  struct timeval time;
  const int number = (int)value;
  const void* from = &number;
  socklen_t bytes = sizeof(number);
  if (option == SPORE_SOCK_RCVTIMEO_US || option == SPORE_SOCK_SNDTIMEO_US) {
    time.tv_sec = value / 1000000;
    time.tv_usec = (suseconds_t)(value % 1000000);
    from = &time;
    bytes = sizeof(time);
  }
  if (*size > bytes) *size = bytes;
  memcpy(to, from, *size);
  return 0;
}

SPORE_WEAK void freeaddrinfo(struct addrinfo* list) {
  while (list) {
    struct addrinfo* const next = list->ai_next;
    free(list);
    list = next;
  }
}

SPORE_WEAK const char* gai_strerror(int error) {
  switch (error) {
    case 0: return "no error";
    case EAI_BADFLAGS: return "flags that are not supported";
    case EAI_NONAME: return "there is no such name";
    case EAI_AGAIN: return "the resolvers do not answer";
    case EAI_FAIL: return "the resolvers answer badly";
    case EAI_FAMILY: return "not such a family of addresses";
    case EAI_SOCKTYPE: return "not such a type of socket";
    case EAI_SERVICE: return "a service is a number from 0 to 65535, or http, https, domain";
    case EAI_MEMORY: return "no memory is left";
    default: return strerror(errno);
  }
}

// A port, or -1.
static inline int spore_socket_port_(const char* service) {
  if (!service) return 0;
  if (strcmp(service, "http") == 0) return 80;
  if (strcmp(service, "https") == 0) return 443;
  if (strcmp(service, "domain") == 0) return 53;
  int port = 0;
  if (!*service) return -1;
  for (; *service; ++service) {
    if (*service < '0' || *service > '9') return -1;
    port = 10 * port + (*service - '0');
    if (port > 65535) return -1;
  }
  return port;
}

static inline int spore_socket_gai_error_(int64_t result) {
  switch (-result) {
    case ENOENT:
    case EINVAL: return EAI_NONAME;
    case EAGAIN:
    case ETIMEDOUT: return EAI_AGAIN;
    case EBADMSG: return EAI_FAIL;
    case EAFNOSUPPORT: return EAI_FAMILY;
    default: errno = (int)-result; return EAI_SYSTEM;
  }
}

// For no name: the wildcard address with AI_PASSIVE, else the loopback one.
SPORE_WEAK int getaddrinfo(const char* __restrict name, const char* __restrict service,
                           const struct addrinfo* __restrict hints, struct addrinfo** __restrict found) {
  static const int kTypes[] = {SOCK_STREAM, SOCK_DGRAM};
  struct spore_socket_address addresses[SPORE_SOCK_RESOLVED_MAX];
  const int flags = hints ? hints->ai_flags : 0;
  const int family = hints ? hints->ai_family : AF_UNSPEC;
  const int type = hints ? hints->ai_socktype : 0;
  const int port = spore_socket_port_(service);
  int64_t count = 0;
  *found = NULL;
  if (flags & ~(AI_PASSIVE | AI_NUMERICHOST | AI_ADDRCONFIG | AI_NUMERICSERV)) return EAI_BADFLAGS;
  if (family != AF_UNSPEC && family != AF_INET && family != AF_INET6) return EAI_FAMILY;
  if (type != 0 && type != SOCK_STREAM && type != SOCK_DGRAM) return EAI_SOCKTYPE;
  if (port < 0) return EAI_SERVICE;
  if (!name && !service) return EAI_NONAME;
  memset(addresses, 0, sizeof(addresses));
  if (!name || (flags & AI_NUMERICHOST)) {
    for (int six = 0; six < 2; ++six) {
      struct spore_socket_address* const to = &addresses[count];
      if (family != AF_UNSPEC && family != (six ? AF_INET6 : AF_INET)) continue;
      to->family = six ? AF_INET6 : AF_INET;
      if (name) {
        if (inet_pton(to->family, name, to->address) != 1) continue;
      } else if (!(flags & AI_PASSIVE)) {
        to->address[0] = six ? 0 : 127;
        to->address[six ? 15 : 3] = 1;
      }
      ++count;
    }
    if (count == 0) return EAI_NONAME;
  } else {
    count = spore_sock_resolve(name, strlen(name), (uint32_t)family, addresses, SPORE_SOCK_RESOLVED_MAX, UINT32_MAX);
    if (count < 0) return spore_socket_gai_error_(count);
  }
  struct addrinfo** end = found;
  for (int64_t i = 0; i < count; ++i) {
    addresses[i].port = (uint16_t)port;
    for (int j = 0; j < 2; ++j) {
      if (type != 0 && type != kTypes[j]) continue;
      struct spore_socket_found {
        struct addrinfo info;
        struct sockaddr_storage address;
      }* const entry = (struct spore_socket_found*)calloc(1, sizeof(struct spore_socket_found));
      if (!entry) {
        freeaddrinfo(*found);
        *found = NULL;
        return EAI_MEMORY;
      }
      entry->info.ai_family = addresses[i].family;
      entry->info.ai_socktype = kTypes[j];
      entry->info.ai_protocol = kTypes[j] == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP;
      entry->info.ai_addr = (struct sockaddr*)&entry->address;
      entry->info.ai_addrlen = sizeof(entry->address);
      spore_socket_to_posix_(entry->info.ai_addr, &entry->info.ai_addrlen, &addresses[i]);
      *end = &entry->info;
      end = &entry->info.ai_next;
    }
  }
  return 0;
}

#ifdef __cplusplus
}
#endif

#endif
