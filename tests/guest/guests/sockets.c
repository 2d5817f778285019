// Sockets, as a program written for POSIX uses them (sdk/c/posix). The first argument chooses what it does;
// network_test.cc has the other end.
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "check.h"

#define EXPECT_ERROR(expression, wanted) \
  do {                                   \
    errno = 0;                           \
    EXPECT(expression, -1);              \
    EXPECT(errno, wanted);               \
  } while (0)

enum { kSocketsMax = 64 };

static struct sockaddr_storage address_of(const char* text, int port, socklen_t* size) {
  struct sockaddr_storage out;
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  memset(&out, 0, sizeof(out));
  memset(&in4, 0, sizeof(in4));
  memset(&in6, 0, sizeof(in6));
  if (inet_pton(AF_INET, text, &in4.sin_addr) == 1) {
    in4.sin_family = AF_INET;
    in4.sin_port = htons((uint16_t)port);
    memcpy(&out, &in4, *size = sizeof(in4));
  } else {
    EXPECT(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    in6.sin6_family = AF_INET6;
    in6.sin6_port = htons((uint16_t)port);
    memcpy(&out, &in6, *size = sizeof(in6));
  }
  return out;
}

static int port_of(int fd) {
  struct sockaddr_storage own;
  socklen_t size = sizeof(own);
  EXPECT(getsockname(fd, (struct sockaddr*)&own, &size), 0);
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  memcpy(&in4, &own, sizeof(in4));
  memcpy(&in6, &own, sizeof(in6));
  return ntohs(own.ss_family == AF_INET ? in4.sin_port : in6.sin6_port);
}

static int socket_at(const char* host, int type, struct sockaddr_storage* address, socklen_t* size, int port) {
  *address = address_of(host, port, size);
  const int fd = socket(address->ss_family, type, 0);
  EXPECT_TRUE(fd > 2);
  return fd;
}

static int connected(const char* host, int port) {
  struct sockaddr_storage address;
  socklen_t size;
  const int fd = socket_at(host, SOCK_STREAM, &address, &size, port);
  EXPECT(connect(fd, (struct sockaddr*)&address, size), 0);
  return fd;
}

static int listening(const char* host, int* port) {
  struct sockaddr_storage address;
  socklen_t size;
  const int fd = socket_at(host, SOCK_STREAM, &address, &size, 0);
  EXPECT(bind(fd, (struct sockaddr*)&address, size), 0);
  EXPECT(listen(fd, 8), 0);
  *port = port_of(fd);
  return fd;
}

// Two ends of one stream.
static void pair(const char* host, int ends[2]) {
  int port;
  const int server = listening(host, &port);
  ends[0] = connected(host, port);
  ends[1] = accept(server, NULL, NULL);
  EXPECT_TRUE(ends[1] > 2);
  EXPECT(close(server), 0);
}

// One stream whose other end takes nothing any more, as both buffers are full.
static void full_pair(int ends[2]) {
  static char bytes[1 << 16];
  pair("127.0.0.1", ends);
  // Buffers that do not grow.
  EXPECT(spore_sock_setsockopt(ends[0], SPORE_SOCK_SNDBUF, 65536), 0);
  EXPECT(spore_sock_setsockopt(ends[1], SPORE_SOCK_RCVBUF, 65536), 0);
  EXPECT(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
  while (send(ends[0], bytes, sizeof(bytes), 0) > 0) {
  }
  EXPECT(errno, EAGAIN);
  EXPECT(fcntl(ends[0], F_SETFL, 0), 0);
}

static int ready(int fd, short events, int timeout_ms) {
  struct pollfd entry = {fd, events, 0};
  return poll(&entry, 1, timeout_ms) == 1 ? entry.revents : 0;
}

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

// ---- clients ----

static void http(const char* host, const char* port) {
  struct addrinfo hints, *found = NULL;
  memset(&hints, 0, sizeof(hints));
  hints.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(host, port, &hints, &found);
  EXPECT(error, 0);
  if (error) return;
  const int fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
  EXPECT(connect(fd, found->ai_addr, found->ai_addrlen), 0);
  freeaddrinfo(found);
  char text[4096];
  const int length = snprintf(text, sizeof(text), "GET /hello HTTP/1.0\r\nHost: %s\r\n\r\n", host);
  EXPECT(send(fd, text, length, MSG_NOSIGNAL), length);
  size_t size = 0;
  for (ssize_t got; (got = recv(fd, text + size, sizeof(text) - 1 - size, 0)) > 0;) size += got;
  text[size] = 0;
  const char* body = strstr(text, "\r\n\r\n");
  EXPECT_TRUE(strncmp(text, "HTTP/1.0 200 ", 13) == 0 && body);
  if (body) fputs(body + 4, stdout);
  EXPECT(close(fd), 0);
}

static void udp(const char* host, int port) {
  struct sockaddr_storage server, from;
  socklen_t size, from_size = sizeof(from);
  const int fd = socket_at(host, SOCK_DGRAM, &server, &size, port);
  char text[64];
  EXPECT(sendto(fd, "to you", 6, 0, (struct sockaddr*)&server, size), 6);
  EXPECT(recvfrom(fd, text, sizeof(text), 0, (struct sockaddr*)&from, &from_size), 6);
  EXPECT(memcmp(text, "to you", 6), 0);
  EXPECT(from_size, size);
  EXPECT(memcmp(&from, &server, size), 0);
  // Connected; a datagram that is larger than the buffer is cut off, and its rest is gone; an empty one is one.
  EXPECT(connect(fd, (struct sockaddr*)&server, size), 0);
  EXPECT(send(fd, "abcdef", 6, 0), 6);
  EXPECT(recv(fd, text, 3, 0), 3);
  EXPECT(write(fd, "", 0), 0);
  EXPECT(read(fd, text, sizeof(text)), 0);
  EXPECT(send(fd, "ghi", 3, 0), 3);
  EXPECT(recv(fd, text, sizeof(text), MSG_PEEK), 3);
  EXPECT(recv(fd, text, sizeof(text), MSG_WAITALL), 3);
  EXPECT(memcmp(text, "ghi", 3), 0);
  EXPECT_ERROR(recv(fd, text, sizeof(text), MSG_DONTWAIT), EAGAIN);
  EXPECT(getpeername(fd, (struct sockaddr*)&from, &from_size), 0);
  EXPECT(memcmp(&from, &server, size), 0);
  static char large[70000];
  EXPECT_ERROR(send(fd, large, sizeof(large), 0), EMSGSIZE);
  EXPECT_ERROR(listen(fd, 1), ENOTSUP);
  EXPECT_ERROR(accept(fd, NULL, NULL), ENOTSUP);
  // WASI's own, which tell of what is cut off.
  EXPECT(send(fd, "abcdef", 6, 0), 6);
  __wasi_iovec_t to = {(uint8_t*)text, 3};
  __wasi_size_t got = 0;
  __wasi_roflags_t flags = 9;
  EXPECT_OK(__wasi_sock_recv(fd, &to, 1, 0, &got, &flags));
  EXPECT(got, 3);
  EXPECT(flags, __WASI_ROFLAGS_RECV_DATA_TRUNCATED);
}

static void resolve(const char* name, int family, uint32_t timeout_ms) {
  struct spore_socket_address found[SPORE_SOCK_RESOLVED_MAX];
  const int64_t began = now_ms();
  const int64_t count =
      spore_sock_resolve(name, strlen(name), (uint32_t)family, found, SPORE_SOCK_RESOLVED_MAX, timeout_ms);
  if (timeout_ms < 5000) EXPECT_TRUE(now_ms() - began < timeout_ms + 10000);  // however busy the machine
  if (count < 0) printf("error %d", (int)-count);
  for (int64_t i = 0; i < count; ++i) {
    char text[64] = "?";
    inet_ntop(found[i].family, found[i].address, text, sizeof(text));
    printf("%s%s", i ? " " : "", text);
    EXPECT(found[i].port, 0);
  }
}

static void nonblocking(const char* host) {
  int port, error = -1;
  socklen_t size = sizeof(error);
  struct sockaddr_storage address;
  socklen_t address_size;
  const int server = listening(host, &port);
  EXPECT(fcntl(server, F_SETFL, O_NONBLOCK), 0);
  EXPECT_ERROR(accept(server, NULL, NULL), EAGAIN);
  EXPECT(ready(server, POLLIN, 0), 0);
  const int fd = socket_at(host, SOCK_STREAM | SOCK_NONBLOCK, &address, &address_size, port);
  EXPECT(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  EXPECT_ERROR(connect(fd, (struct sockaddr*)&address, address_size), EINPROGRESS);
  EXPECT_TRUE(ready(fd, POLLOUT, 5000) & POLLOUT);
  EXPECT(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
  EXPECT(error, 0);
  connect(fd, (struct sockaddr*)&address, address_size);  // Linux takes one more
  EXPECT_ERROR(connect(fd, (struct sockaddr*)&address, address_size), EISCONN);
  EXPECT_TRUE(ready(server, POLLIN, 5000) & POLLIN);
  struct sockaddr_storage peer;
  socklen_t peer_size = sizeof(peer);
  const int other = accept4(server, (struct sockaddr*)&peer, &peer_size, SOCK_NONBLOCK);
  EXPECT(peer_size, address_size);
  EXPECT(peer.ss_family, address.ss_family);
  EXPECT(fcntl(other, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  char text[8];
  EXPECT_ERROR(recv(other, text, sizeof(text), 0), EAGAIN);
  EXPECT_ERROR(read(other, text, sizeof(text)), EAGAIN);
  EXPECT(ready(other, POLLIN, 0), 0);
  EXPECT(write(fd, "hello", 5), 5);
  EXPECT_TRUE(ready(other, POLLIN, 5000) & POLLIN);
  int waiting = 0;
  EXPECT(ioctl(other, FIONREAD, &waiting), 0);
  EXPECT(waiting, 5);
  EXPECT(recv(other, text, sizeof(text), MSG_WAITALL), 5);  // does not wait
  // It ends: readable, and nothing to read.
  EXPECT(shutdown(fd, SHUT_WR), 0);
  EXPECT_TRUE(ready(other, POLLIN, 5000) & POLLIN);
  EXPECT(recv(other, text, sizeof(text), 0), 0);
  EXPECT_ERROR(send(fd, "x", 1, 0), EPIPE);
  EXPECT(send(other, "back", 4, 0), 4);
  EXPECT_TRUE(ready(fd, POLLIN, 5000) & POLLIN);
  // Both directions have ended, and something is left to read.
  EXPECT(shutdown(other, SHUT_WR), 0);
  EXPECT_TRUE(ready(fd, POLLIN, 5000) & POLLIN);
  EXPECT(recv(fd, text, sizeof(text), 0), 4);
  EXPECT_TRUE(ready(fd, POLLIN, 5000) & POLLIN);
  EXPECT(recv(fd, text, sizeof(text), 0), 0);
  // Nobody listens there any more.
  EXPECT(close(server), 0);
  const int late = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (connect(late, (struct sockaddr*)&address, address_size) != 0 && errno == EINPROGRESS) {
    EXPECT_TRUE(ready(late, POLLOUT, 5000) & POLLOUT);
    EXPECT(getsockopt(late, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    EXPECT(error, ECONNREFUSED);
    EXPECT(getsockopt(late, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    EXPECT(error, 0);
  } else {
    EXPECT(errno, ECONNREFUSED);
  }
  const int blocking = socket(address.ss_family, SOCK_STREAM, 0);
  EXPECT_ERROR(connect(blocking, (struct sockaddr*)&address, address_size), ECONNREFUSED);
}

static void streams(const char* host) {
  int ends[2];
  pair(host, ends);
  // All of it at once, and the other end takes all of it at once: more than the buffers hold. One of them must not
  // wait.
  static char sent[3 << 20], received[3 << 20];
  for (size_t i = 0; i < sizeof(sent); ++i) sent[i] = (char)(i * 7 + (i >> 12));
  EXPECT(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
  size_t out = 0, in = 0;
  while (in < sizeof(received)) {
    const ssize_t put = out < sizeof(sent) ? send(ends[0], sent + out, sizeof(sent) - out, 0) : 0;
    if (put > 0) out += (size_t)put;
    const ssize_t got = recv(ends[1], received + in, sizeof(received) - in, out < sizeof(sent) ? 0 : MSG_WAITALL);
    if (got <= 0) break;
    in += (size_t)got;
  }
  EXPECT(in, sizeof(received));
  EXPECT(memcmp(sent, received, sizeof(sent)), 0);
  // Several buffers, through the calls of files and of WASI.
  __wasi_ciovec_t from[3] = {{(uint8_t*)"ab", 2}, {NULL, 0}, {(uint8_t*)"cde", 3}};
  __wasi_size_t count = 0;
  EXPECT_OK(__wasi_fd_write(ends[0], from, 3, &count));
  EXPECT(count, 5);
  EXPECT_OK(__wasi_sock_send(ends[0], from, 3, 0, &count));
  EXPECT(count, 5);
  char text[3][4];
  __wasi_iovec_t to[3] = {{(uint8_t*)text[0], 4}, {(uint8_t*)text[1], 4}, {(uint8_t*)text[2], 2}};
  __wasi_roflags_t flags = 9;
  EXPECT_OK(__wasi_sock_recv(ends[1], to, 3, __WASI_RIFLAGS_RECV_PEEK, &count, &flags));
  EXPECT_OK(__wasi_sock_recv(ends[1], to, 3, __WASI_RIFLAGS_RECV_WAITALL, &count, &flags));
  EXPECT(count, 10);
  EXPECT(flags, 0);
  EXPECT(memcmp(text, "abcdeabcde", 10), 0);
  EXPECT(send(ends[0], "", 0, 0), 0);
  EXPECT(recv(ends[1], text, 0, 0), 0);
  // What came before the end is there at the end.
  EXPECT(send(ends[0], "last", 4, 0), 4);
  EXPECT(close(ends[0]), 0);
  EXPECT(recv(ends[1], received, sizeof(received), MSG_WAITALL), 4);
  EXPECT(recv(ends[1], received, sizeof(received), MSG_WAITALL), 0);
}

// The test's server sends "go", waits for "stop", and resets the connection.
static void reset(const char* host, int port) {
  char text[8];
  const int fd = connected(host, port);
  EXPECT(recv(fd, text, 2, MSG_WAITALL), 2);
  EXPECT(send(fd, "stop", 4, 0), 4);
  EXPECT_ERROR(recv(fd, text, sizeof(text), 0), ECONNRESET);
  EXPECT_ERROR(send(fd, "x", 1, 0), EPIPE);
  EXPECT_ERROR(write(fd, "x", 1), EPIPE);
}

// All of it in one send, while the test's server takes it as it comes; then the server sends all of it back.
static void whole(const char* host, int port) {
  static char sent[3 << 20], received[3 << 20];
  for (size_t i = 0; i < sizeof(sent); ++i) sent[i] = (char)(i * 11 + (i >> 13));
  const int fd = connected(host, port);
  // Small, so that it waits.
  EXPECT(spore_sock_setsockopt(fd, SPORE_SOCK_SNDBUF, 32768), 0);
  EXPECT(spore_sock_setsockopt(fd, SPORE_SOCK_RCVBUF, 32768), 0);
  EXPECT(send(fd, sent, sizeof(sent), 0), sizeof(sent));
  EXPECT(shutdown(fd, SHUT_WR), 0);
  EXPECT(recv(fd, received, sizeof(received), MSG_WAITALL), sizeof(received));
  EXPECT(memcmp(sent, received, sizeof(sent)), 0);
  EXPECT(recv(fd, received, sizeof(received), MSG_WAITALL), 0);
}

// ---- a server: takes one connection, says whose it is, and sends back what comes ----
static void serve(const char* host, int port) {
  struct sockaddr_storage address, peer, again;
  socklen_t size, peer_size = sizeof(peer), again_size = sizeof(again);
  const int server = socket_at(host, SOCK_STREAM, &address, &size, port);
  const int on = 1;
  EXPECT(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
  EXPECT(bind(server, (struct sockaddr*)&address, size), 0);
  EXPECT(listen(server, SOMAXCONN), 0);
  const int fd = accept(server, (struct sockaddr*)&peer, &peer_size);
  EXPECT_TRUE(fd > 2);
  EXPECT(getpeername(fd, (struct sockaddr*)&again, &again_size), 0);
  EXPECT(memcmp(&peer, &again, peer_size), 0);
  EXPECT(port_of(fd), port);
  char text[4096];
  for (ssize_t got; (got = recv(fd, text, sizeof(text), 0)) > 0;) EXPECT(send(fd, text, got, 0), got);
  EXPECT(close(fd), 0);
}

// ---- waits that only the call's deadline ends ----
static void block(const char* what, const char* host, int port) {
  struct sockaddr_storage address;
  socklen_t size;
  int ends[2], ignored;
  static char bytes[1 << 20];
  if (strcmp(what, "connect") == 0) {
    connected(host, port);  // where nobody takes it
  } else if (strcmp(what, "accept") == 0) {
    accept(listening(host, &ignored), NULL, NULL);
  } else if (strcmp(what, "wasi_accept") == 0) {
    __wasi_fd_t opened;
    EXPECT_OK(__wasi_sock_accept(listening(host, &ignored), 0, &opened));
  } else if (strcmp(what, "recvfrom") == 0) {
    recvfrom(socket_at(host, SOCK_DGRAM, &address, &size, 0), bytes, 1, 0, NULL, NULL);
  } else if (strcmp(what, "resolve") == 0) {
    resolve("silent.test", AF_INET, UINT32_MAX);
  } else if (strcmp(what, "send") == 0 || strcmp(what, "write") == 0) {
    full_pair(ends);
    if (*what == 's')
      send(ends[0], bytes, sizeof(bytes), 0);
    else
      write(ends[0], bytes, sizeof(bytes));
  } else if (strcmp(what, "wasi_recv") == 0) {
    pair(host, ends);
    __wasi_iovec_t to = {(uint8_t*)bytes, 1};
    __wasi_size_t got;
    __wasi_roflags_t flags;
    EXPECT_OK(__wasi_sock_recv(ends[0], &to, 1, 0, &got, &flags));
  } else if (strcmp(what, "poll") == 0) {
    pair(host, ends);
    struct pollfd both[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}};
    poll(both, 2, -1);
  } else {
    pair(host, ends);
    if (strcmp(what, "recv") == 0) recv(ends[0], bytes, 1, 0);
    if (strcmp(what, "waitall") == 0 && send(ends[1], "x", 1, 0) == 1) recv(ends[0], bytes, 2, MSG_WAITALL);
    if (strcmp(what, "read") == 0) read(ends[0], bytes, 1);
  }
  fprintf(stderr, "%s did not wait, error %d\n", what, errno);
  exit(99);
}

// ---- waits that the socket's own time ends ----
static void timeouts(const char* host, int full_port) {
  const struct timeval time = {0, 30000};
  struct timeval got = {9, 9};
  socklen_t size = sizeof(got), address_size;
  struct sockaddr_storage address;
  int ends[2], port;
  char text[4];
  pair(host, ends);
  EXPECT(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), 0);
  EXPECT(getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &got, &size), 0);
  EXPECT(got.tv_sec * 1000000 + got.tv_usec, 30000);
  EXPECT(size, sizeof(got));
  int64_t began = now_ms();
  EXPECT_ERROR(recv(ends[0], text, sizeof(text), 0), EAGAIN);
  EXPECT_TRUE(now_ms() - began >= 29);
  EXPECT_ERROR(read(ends[0], text, sizeof(text)), EAGAIN);
  // A part of it has come.
  EXPECT(send(ends[1], "ab", 2, 0), 2);
  EXPECT(recv(ends[0], text, sizeof(text), MSG_WAITALL), 2);
  const int server = listening(host, &port);
  EXPECT(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)), 0);
  EXPECT_ERROR(accept(server, NULL, NULL), EAGAIN);
  full_pair(ends);
  EXPECT(setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)), 0);
  static char bytes[1 << 20];  // more than there will be room for
  do began = now_ms();
  while (send(ends[0], bytes, sizeof(bytes), 0) > 0);
  EXPECT(errno, EAGAIN);
  EXPECT_TRUE(now_ms() - began >= 29);
  const int fd = socket_at(host, SOCK_STREAM, &address, &address_size, full_port);
  EXPECT(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time)), 0);
  EXPECT_ERROR(connect(fd, (struct sockaddr*)&address, address_size), EINPROGRESS);
  EXPECT_ERROR(connect(fd, (struct sockaddr*)&address, address_size), EALREADY);
  const struct timeval bad = {-1, 0};
  EXPECT_ERROR(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bad, sizeof(bad)), EDOM);
  EXPECT(spore_sock_setsockopt(fd, SPORE_SOCK_SNDTIMEO_US, -1), -EINVAL);
  EXPECT(spore_sock_setsockopt(fd, SPORE_SOCK_SNDTIMEO_US, INT64_MAX), -EINVAL);
}

static int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, level, name, &value, &size) == 0 ? value : -errno;
}

static int set_option(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

static void options(void) {
  const int tcp = socket(AF_INET, SOCK_STREAM, 0);
  const int udp6 = socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP);
  EXPECT(option(tcp, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  EXPECT(option(udp6, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
  static const int kSwitches[][2] = {
      {SOL_SOCKET, SO_REUSEADDR}, {SOL_SOCKET, SO_KEEPALIVE}, {IPPROTO_TCP, TCP_NODELAY}};
  for (int i = 0; i < 3; ++i) {
    EXPECT(option(tcp, kSwitches[i][0], kSwitches[i][1]), 0);
    EXPECT(set_option(tcp, kSwitches[i][0], kSwitches[i][1], 7), 0);
    EXPECT(option(tcp, kSwitches[i][0], kSwitches[i][1]), 1);
    EXPECT(set_option(tcp, kSwitches[i][0], kSwitches[i][1], 0), 0);
    EXPECT(option(tcp, kSwitches[i][0], kSwitches[i][1]), 0);
  }
  EXPECT(set_option(udp6, IPPROTO_IPV6, IPV6_V6ONLY, 1), 0);
  EXPECT(option(udp6, IPPROTO_IPV6, IPV6_V6ONLY), 1);
  EXPECT(option(tcp, IPPROTO_IPV6, IPV6_V6ONLY), -ENOPROTOOPT);
  EXPECT(option(udp6, IPPROTO_TCP, TCP_NODELAY), -ENOPROTOOPT);
  EXPECT(set_option(udp6, IPPROTO_TCP, TCP_NODELAY, 1), -ENOPROTOOPT);
  // Sizes: the kernel doubles them; too large ones are cut.
  EXPECT(set_option(tcp, SOL_SOCKET, SO_RCVBUF, 20000), 0);
  EXPECT(option(tcp, SOL_SOCKET, SO_RCVBUF), 40000);
  EXPECT(set_option(tcp, SOL_SOCKET, SO_SNDBUF, INT32_MAX), 0);
  EXPECT_TRUE(option(tcp, SOL_SOCKET, SO_SNDBUF) <= 2 << 20);
  EXPECT(set_option(tcp, SOL_SOCKET, SO_SNDBUF, -1), -EINVAL);
  // Those that only tell, and those that are not offered.
  EXPECT(set_option(tcp, SOL_SOCKET, SO_TYPE, 1), -ENOPROTOOPT);
  EXPECT(set_option(tcp, SOL_SOCKET, SO_ERROR, 1), -ENOPROTOOPT);
  for (int name = 100; name < 110; ++name) EXPECT(set_option(tcp, SOL_SOCKET, name, 1), -ENOPROTOOPT);
  EXPECT(spore_sock_setsockopt(tcp, 0, 1), -ENOPROTOOPT);
  EXPECT(spore_sock_setsockopt(tcp, UINT32_MAX, 1), -ENOPROTOOPT);
  EXPECT(spore_sock_getsockopt(tcp, 11), -ENOPROTOOPT);
  EXPECT(spore_sock_setsockopt(tcp, SPORE_SOCK_NODELAY, 2), -EINVAL);
  EXPECT(spore_sock_setsockopt(tcp, SPORE_SOCK_RCVBUF, INT64_MIN), -EINVAL);
}

// ---- what cannot be ----

static void refusals(void) {
  EXPECT_ERROR(socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERROR(socket(0, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERROR(socket(0x10001, SOCK_STREAM, 0), EAFNOSUPPORT);
  EXPECT_ERROR(socket(AF_INET, 1, 0), EPROTONOSUPPORT);
  EXPECT(spore_sock_open(AF_INET, 0x106), -EPROTONOSUPPORT);
  EXPECT_ERROR(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
  const int tcp = socket(AF_INET, SOCK_STREAM, 0);
  const int udp6 = socket(AF_INET6, SOCK_DGRAM, 0);
  struct spore_socket_address good = {AF_INET, 9, 0, 0, {127, 0, 0, 1}}, bad = good;
  bad.family = 3;
  EXPECT(spore_sock_connect(tcp, &bad), -EAFNOSUPPORT);
  bad.family = 0;
  EXPECT(spore_sock_connect(tcp, &bad), -EAFNOSUPPORT);
  bad.family = AF_INET6;
  EXPECT(spore_sock_connect(tcp, &bad), -EAFNOSUPPORT);
  EXPECT(spore_sock_bind(tcp, &bad), -EAFNOSUPPORT);
  EXPECT(spore_sock_connect(udp6, &good), -EAFNOSUPPORT);
  EXPECT(spore_sock_bind(udp6, &good), -EAFNOSUPPORT);
  EXPECT(spore_sock_sendto(udp6, "x", 1, 0, &good), -EAFNOSUPPORT);
  for (int i = 4; i < 16; ++i) {
    bad = good;
    bad.address[i] = 1;
    EXPECT(spore_sock_connect(tcp, &bad), -EINVAL);
  }
  bad = good;
  bad.flow_info = 1;
  EXPECT(spore_sock_connect(tcp, &bad), -EINVAL);
  bad = good;
  bad.scope_id = 1;
  EXPECT(spore_sock_bind(tcp, &bad), -EINVAL);
  EXPECT(spore_sock_sendto(tcp, "x", 1, 0, &bad), -EINVAL);
  EXPECT(spore_sock_sendto(tcp, "x", 1, 1, NULL), -EINVAL);
  char byte;
  EXPECT(spore_sock_recvfrom(tcp, &byte, 1, 8, NULL), -EINVAL);
  EXPECT_ERROR(recv(tcp, &byte, 1, 0), ENOTCONN);
  EXPECT_ERROR(send(tcp, &byte, 1, 0), EPIPE);
  EXPECT_ERROR(accept(tcp, NULL, NULL), EINVAL);
  struct sockaddr_storage peer;
  socklen_t size = sizeof(peer);
  EXPECT_ERROR(getpeername(tcp, (struct sockaddr*)&peer, &size), ENOTCONN);
  EXPECT_ERROR(shutdown(tcp, SHUT_RDWR), ENOTCONN);
  EXPECT(__wasi_sock_shutdown(tcp, 0), __WASI_ERRNO_INVAL);
  EXPECT(__wasi_sock_shutdown(tcp, 4), __WASI_ERRNO_INVAL);
  // Numbers of names.
  struct spore_socket_address found[2];
  EXPECT(spore_sock_resolve("a", 1, 3, found, 2, 100), -EAFNOSUPPORT);
  EXPECT(spore_sock_resolve("a", 0, 0, found, 2, 100), -EINVAL);
  EXPECT(spore_sock_resolve("a", 1, 0, found, 0, 100), -EINVAL);
  EXPECT(spore_sock_resolve("a", 1, 0, found, 65, 100), -EINVAL);
  static char long_name[256];
  memset(long_name, 'a', sizeof(long_name));
  EXPECT(spore_sock_resolve(long_name, 254, 0, found, 2, 100), -EINVAL);
  EXPECT(spore_sock_resolve(long_name, 64, 0, found, 2, 100), -EINVAL);  // of one label
  static const char* const kNames[] = {"a b", "a\nb", "a\\.b", "a/b", "\xc3\xa4", "a..b", "..", "a*b"};
  for (int i = 0; i < 8; ++i) EXPECT(spore_sock_resolve(kNames[i], strlen(kNames[i]), 0, found, 2, 100), -EINVAL);
  EXPECT(spore_sock_resolve("a\0b", 3, 0, found, 2, 100), -EINVAL);
}

// Descriptors of other things, and of nothing.
static void mixed(void) {
  const int file = open("/file", O_CREAT | O_RDWR, 0600);
  const int directory = open("/", O_RDONLY | O_DIRECTORY);
  const int gone = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_TRUE(file > 2 && directory > 2 && gone > 2);
  EXPECT(close(gone), 0);
  const struct spore_socket_address address = {AF_INET, 9, 0, 0, {127, 0, 0, 1}};
  struct spore_socket_address to;
  char byte = 0;
  static const int kNone[] = {-1, 1024, INT32_MAX};
  const int all[] = {0, 1, 2, file, directory, gone, kNone[0], kNone[1], kNone[2]};
  for (int i = 0; i < 9; ++i) {
    const int fd = all[i], wanted = i < 5 ? -ENOTSOCK : -EBADF;
    EXPECT(spore_sock_connect(fd, &address), wanted);
    EXPECT(spore_sock_bind(fd, &address), wanted);
    EXPECT(spore_sock_listen(fd, 1), wanted);
    EXPECT(spore_sock_accept(fd, &to), wanted);
    EXPECT(spore_sock_sendto(fd, &byte, 1, 0, NULL), wanted);
    EXPECT(spore_sock_recvfrom(fd, &byte, 1, 0, NULL), wanted);
    EXPECT(spore_sock_getsockname(fd, &to), wanted);
    EXPECT(spore_sock_getpeername(fd, &to), wanted);
    EXPECT(spore_sock_getsockopt(fd, SPORE_SOCK_TYPE), wanted);
    EXPECT(spore_sock_setsockopt(fd, SPORE_SOCK_NODELAY, 1), wanted);
  }
  // The reverse.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct stat info;
  EXPECT(fstat(fd, &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_ERROR(lseek(fd, 0, SEEK_SET), ESPIPE);
  EXPECT_ERROR(pread(fd, &byte, 1, 0), ESPIPE);
  EXPECT_ERROR(pwrite(fd, &byte, 1, 0), ESPIPE);
  EXPECT_ERROR(fsync(fd), EINVAL);
  EXPECT_ERROR(ftruncate(fd, 0), __WASI_ERRNO_NOTCAPABLE);
  EXPECT_ERROR(openat(fd, "file", O_RDONLY), ENOTDIR);
  __wasi_prestat_t prestat;
  EXPECT(__wasi_fd_prestat_get(fd, &prestat), __WASI_ERRNO_BADF);
  __wasi_fdstat_t stat;
  EXPECT_OK(__wasi_fd_fdstat_get(fd, &stat));
  EXPECT(stat.fs_filetype, __WASI_FILETYPE_SOCKET_STREAM);
  EXPECT_OK(__wasi_fd_fdstat_get(socket(AF_INET6, SOCK_DGRAM, 0), &stat));
  EXPECT(stat.fs_filetype, __WASI_FILETYPE_SOCKET_DGRAM);
}

// Other numbers, fewer rights.
static void renumbered(void) {
  int ends[2];
  char text[4];
  pair("127.0.0.1", ends);
  const int target = socket(AF_INET, SOCK_DGRAM, 0);
  EXPECT_OK(__wasi_fd_renumber(ends[0], target));
  EXPECT_ERROR(send(ends[0], "ab", 2, 0), EBADF);
  EXPECT(send(target, "ab", 2, 0), 2);
  EXPECT(recv(ends[1], text, 2, MSG_WAITALL), 2);
  EXPECT(option(target, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
  // To the standard output: what is printed goes to the peer.
  EXPECT_OK(__wasi_fd_renumber(target, 1));
  printf("out");
  fflush(stdout);
  EXPECT(recv(ends[1], text, 3, MSG_WAITALL), 3);
  EXPECT(memcmp(text, "out", 3), 0);
  EXPECT_OK(__wasi_fd_fdstat_set_rights(ends[1], __WASI_RIGHTS_FD_WRITE, 0));
  EXPECT_ERROR(recv(ends[1], text, 1, 0), __WASI_ERRNO_NOTCAPABLE);
  EXPECT_ERROR(accept(ends[1], NULL, NULL), __WASI_ERRNO_NOTCAPABLE);
  EXPECT_ERROR(shutdown(ends[1], SHUT_WR), __WASI_ERRNO_NOTCAPABLE);
  EXPECT(send(ends[1], "x", 1, 0), 1);
}

static void limit(void) {
  int all[kSocketsMax], port;
  struct sockaddr_storage address;
  socklen_t size;
  all[0] = listening("127.0.0.1", &port);
  all[1] = socket_at("127.0.0.1", SOCK_STREAM, &address, &size, port);
  EXPECT(connect(all[1], (struct sockaddr*)&address, size), 0);
  for (int i = 2; i < kSocketsMax; ++i) {
    all[i] = socket(i % 2 ? AF_INET : AF_INET6, i % 3 ? SOCK_STREAM : SOCK_DGRAM, 0);
    EXPECT_TRUE(all[i] > 2);
  }
  EXPECT_ERROR(socket(AF_INET, SOCK_STREAM, 0), EMFILE);
  EXPECT_ERROR(accept(all[0], NULL, NULL), EMFILE);
  __wasi_fd_t opened;
  EXPECT(__wasi_sock_accept(all[0], 0, &opened), __WASI_ERRNO_MFILE);
  EXPECT(close(all[9]), 0);
  EXPECT_ERROR(send(all[9], "x", 1, 0), EBADF);
  EXPECT_ERROR(close(all[9]), EBADF);
  // The connection has waited.
  EXPECT_OK(__wasi_sock_accept(all[0], __WASI_FDFLAGS_NONBLOCK, &opened));
  EXPECT(fcntl((int)opened, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  EXPECT_ERROR(socket(AF_INET, SOCK_STREAM, 0), EMFILE);
  EXPECT(__wasi_sock_accept(all[0], 0x100, &opened), __WASI_ERRNO_INVAL);
  // Sockets are not all that may be open.
  EXPECT_TRUE(open("/file", O_CREAT | O_RDWR, 0600) > 2);
}

static void opening(int family) {
  const int fd = socket(family, SOCK_STREAM, 0);
  printf("%d", fd < 0 ? -errno : fd);
}

static void without_network(void) {
  EXPECT_ERROR(socket(AF_INET, SOCK_STREAM, 0), ENOTSUP);
  struct spore_socket_address found;
  EXPECT(spore_sock_resolve("localhost", 9, 0, &found, 1, 100), -ENOTSUP);
  struct addrinfo* list;
  EXPECT(getaddrinfo("example.org", "80", NULL, &list), EAI_SYSTEM);
  EXPECT(errno, ENOTSUP);
  EXPECT(getaddrinfo(NULL, "80", NULL, &list), 0);
  freeaddrinfo(list);
}

static void addresses(void) {
  struct addrinfo hints, *list, *at;
  struct sockaddr_in in4;
  struct sockaddr_in6 in6;
  memset(&hints, 0, sizeof(hints));
  EXPECT(getaddrinfo("192.0.2.7", "http", &hints, &list), 0);
  EXPECT(list->ai_socktype, SOCK_STREAM);
  EXPECT(list->ai_protocol, IPPROTO_TCP);
  memcpy(&in4, list->ai_addr, list->ai_addrlen);
  EXPECT(ntohs(in4.sin_port), 80);
  EXPECT(ntohl(in4.sin_addr.s_addr), 0xc0000207u);
  EXPECT(list->ai_next->ai_socktype, SOCK_DGRAM);
  EXPECT(list->ai_next->ai_next, NULL);
  freeaddrinfo(list);
  hints.ai_socktype = SOCK_DGRAM;
  EXPECT(getaddrinfo("localhost", NULL, &hints, &list), 0);
  int count = 0;
  for (at = list; at; at = at->ai_next) ++count;
  EXPECT(count, 2);
  freeaddrinfo(list);
  hints.ai_family = AF_INET6;
  EXPECT(getaddrinfo("sub.LocalHost.", "53", &hints, &list), 0);
  memcpy(&in6, list->ai_addr, list->ai_addrlen);
  EXPECT(in6.sin6_addr.s6_addr[15], 1);
  freeaddrinfo(list);
  EXPECT(getaddrinfo("192.0.2.7", "1", &hints, &list), EAI_NONAME);
  hints.ai_flags = AI_PASSIVE;
  EXPECT(getaddrinfo(NULL, "1", &hints, &list), 0);
  memcpy(&in6, list->ai_addr, list->ai_addrlen);
  EXPECT(memcmp(&in6.sin6_addr, &in6addr_any, 16), 0);
  freeaddrinfo(list);
  hints.ai_flags = AI_NUMERICHOST;
  EXPECT(getaddrinfo("localhost", "1", &hints, &list), EAI_NONAME);
  hints.ai_flags = 0;
  EXPECT(getaddrinfo("::1", "65536", &hints, &list), EAI_SERVICE);
  EXPECT(getaddrinfo("::1", "ssh", &hints, &list), EAI_SERVICE);
  EXPECT(getaddrinfo(NULL, NULL, &hints, &list), EAI_NONAME);
  hints.ai_flags = AI_CANONNAME;
  EXPECT(getaddrinfo("::1", "1", &hints, &list), EAI_BADFLAGS);
}

// Leaves everything open: a listener, both ends of a stream, one that connects, one to the test, which is told so, and
// a look-up that is under way.
static void leave_open(const char* host, int full_port, int port) {
  int ends[2], ignored;
  struct sockaddr_storage address;
  socklen_t size;
  listening(host, &ignored);
  pair(host, ends);
  const int late = socket_at(host, SOCK_STREAM | SOCK_NONBLOCK, &address, &size, full_port);
  EXPECT_ERROR(connect(late, (struct sockaddr*)&address, size), EINPROGRESS);
  EXPECT(send(connected(host, port), "x", 1, 0), 1);
  resolve("silent.test", AF_INET, UINT32_MAX);
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  const char* host = argc > 2 ? argv[2] : "127.0.0.1";
  const int port = argc > 3 ? atoi(argv[3]) : 0;
  if (strcmp(what, "http") == 0)
    http(host, argv[3]);
  else if (strcmp(what, "udp") == 0)
    udp(host, port);
  else if (strcmp(what, "resolve") == 0)
    resolve(host, port, argc > 4 ? (uint32_t)atoi(argv[4]) : UINT32_MAX);
  else if (strcmp(what, "nonblocking") == 0)
    nonblocking(host);
  else if (strcmp(what, "streams") == 0)
    streams(host);
  else if (strcmp(what, "whole") == 0)
    whole(host, port);
  else if (strcmp(what, "reset") == 0)
    reset(host, port);
  else if (strcmp(what, "serve") == 0)
    serve(host, port);
  else if (strcmp(what, "connect") == 0)
    connected(host, port);
  else if (strcmp(what, "timeouts") == 0)
    timeouts(host, port);
  else if (strcmp(what, "open") == 0)
    opening(AF_INET);
  else if (strcmp(what, "options") == 0)
    options();
  else if (strcmp(what, "refusals") == 0)
    refusals();
  else if (strcmp(what, "mixed") == 0)
    mixed();
  else if (strcmp(what, "renumbered") == 0)
    renumbered();
  else if (strcmp(what, "limit") == 0)
    limit();
  else if (strcmp(what, "without") == 0)
    without_network();
  else if (strcmp(what, "addresses") == 0)
    addresses();
  else if (strcmp(what, "leave") == 0)
    leave_open(host, port, atoi(argv[4]));
  else if (strcmp(what, "block") == 0)
    block(argv[4], host, port);
  else
    return 98;
  return finish();
}
