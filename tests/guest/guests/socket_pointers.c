// Hands pointers outside memory to the functions on sockets. Those of WASI say EFAULT, and take and send nothing; those
// of Spore trap: "socket_pointers N HOW" makes the N-th such call, where HOW says how the pointer is bad.
#include <stdlib.h>
#include <string.h>

#include "../../../sdk/c/spore_socket.h"
#include "check.h"

typedef uint32_t u32;

#define SPORE(name) __attribute__((import_module("spore"), import_name(#name)))
SPORE(sock_connect) int64_t raw_connect(u32, u32);
SPORE(sock_bind) int64_t raw_bind(u32, u32);
SPORE(sock_accept) int64_t raw_accept(u32, u32);
SPORE(sock_sendto) int64_t raw_sendto(u32, u32, u32, u32, u32);
SPORE(sock_recvfrom) int64_t raw_recvfrom(u32, u32, u32, u32, u32);
SPORE(sock_getsockname) int64_t raw_getsockname(u32, u32);
SPORE(sock_getpeername) int64_t raw_getpeername(u32, u32);
SPORE(sock_resolve) int64_t raw_resolve(u32, u32, u32, u32, u32, u32);
RAW(sock_accept) u32 wasi_accept(u32, u32, u32);
RAW(sock_recv) u32 wasi_recv(u32, u32, u32, u32, u32, u32);
RAW(sock_send) u32 wasi_send(u32, u32, u32, u32, u32);
RAW(fd_read) u32 wasi_read(u32, u32, u32, u32);
RAW(fd_write) u32 wasi_write(u32, u32, u32, u32);

static u32 at(const void* p) { return (u32)p; }

static int listener, client, server;
static struct spore_socket_address address;

static void prepare(void) {
  listener = socket(AF_INET, SOCK_STREAM, 0);
  client = socket(AF_INET, SOCK_STREAM, 0);
  address.family = AF_INET;
  memcpy(address.address, "\x7f\0\0\1", 4);
  EXPECT(spore_sock_bind(listener, &address), 0);
  EXPECT(listen(listener, 8), 0);
  EXPECT(spore_sock_getsockname(listener, &address), 0);
  EXPECT(spore_sock_connect(client, &address), 0);
  server = accept(listener, NULL, NULL);
  EXPECT_TRUE(server > 2);
}

static void wasi(void) {
  static u32 count, flags;
  static char byte;
  static __wasi_iovec_t good[1], wild[2];
  const u32 end = (u32)__builtin_wasm_memory_size(0) * 65536;
  const u32 bad[] = {end, end - 1, 0xfffffff0u, 0xffffffffu};
  good[0].buf = (uint8_t*)&byte;
  good[0].buf_len = 1;
  wild[0] = good[0];
  EXPECT(send(client, "a", 1, 0), 1);
  const int other = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT(spore_sock_connect(other, &address), 0);
  for (int i = 0; i < 4; ++i) {
    wild[1].buf = (uint8_t*)bad[i];
    wild[1].buf_len = 2;
    EXPECT(wasi_accept(listener, 0, bad[i]), EFAULT);
    EXPECT(wasi_recv(server, at(good), 1, 0, bad[i], at(&flags)), EFAULT);
    EXPECT(wasi_recv(server, at(good), 1, 0, at(&count), bad[i]), EFAULT);
    EXPECT(wasi_recv(server, bad[i], 1, 0, at(&count), at(&flags)), EFAULT);
    EXPECT(wasi_recv(server, at(wild), 2, 0, at(&count), at(&flags)), EFAULT);
    EXPECT(wasi_recv(server, at(good), 0xffffffffu, 0, at(&count), at(&flags)), EINVAL);
    EXPECT(wasi_recv(server, at(good), 1, 4, at(&count), at(&flags)), EINVAL);
    EXPECT(wasi_send(client, at(good), 1, 0, bad[i]), EFAULT);
    EXPECT(wasi_send(client, bad[i], 1, 0, at(&count)), EFAULT);
    EXPECT(wasi_send(client, at(wild), 2, 0, at(&count)), EFAULT);
    EXPECT(wasi_send(client, at(good), 1, 1, at(&count)), EINVAL);
    EXPECT(wasi_read(server, at(good), 1, bad[i]), EFAULT);
    EXPECT(wasi_read(server, at(wild), 2, at(&count)), EFAULT);
    EXPECT(wasi_write(client, at(good), 1, bad[i]), EFAULT);
    EXPECT(wasi_write(client, at(wild), 2, at(&count)), EFAULT);
  }
  // Nothing of it has been taken or sent.
  EXPECT_OK(wasi_accept(listener, 0, at(&count)));
  EXPECT(recv(server, &byte, 1, MSG_DONTWAIT), 1);
  EXPECT(byte, 'a');
  EXPECT(recv(server, &byte, 1, MSG_DONTWAIT), -1);
}

int main(int argc, char** argv) {
  prepare();
  if (argc < 3) {
    wasi();
    return finish();
  }
  const u32 end = (u32)__builtin_wasm_memory_size(0) * 65536;
  const u32 kinds[] = {end, end - 27, 0xffffffe4u, 0xffffffffu};
  const u32 bad = kinds[atoi(argv[2])];
  static char text[64] = "localhost";
  if (failures) return 97;
  switch (atoi(argv[1])) {
    case 0: raw_connect(client, bad); break;
    case 1: raw_bind(client, bad); break;
    case 2: raw_accept(listener, bad); break;
    case 3: raw_sendto(client, bad, 64, 0, 0); break;
    case 4: raw_sendto(client, at(text), 0xffffffffu, 0, 0); break;
    case 5: raw_sendto(client, at(text), 1, 0, bad); break;
    case 6: raw_recvfrom(client, bad, 64, 0, 0); break;
    case 7: raw_recvfrom(client, at(text), 0xffffffffu, 0, 0); break;
    case 8: raw_recvfrom(client, at(text), 1, 0, bad); break;
    case 9: raw_getsockname(client, bad); break;
    case 10: raw_getpeername(client, bad); break;
    case 11: raw_resolve(bad, 64, 0, at(&address), 1, 100); break;
    case 12: raw_resolve(at(text), 9, 0, bad, 1, 100); break;
    case 13: raw_resolve(at(text), 9, 0, at(&address), 0x0fffffffu, 100); break;
    case 14: raw_resolve(at(text), 0xffffffffu, 0, at(&address), 1, 100); break;
    default: return 98;
  }
  return 0;
}
