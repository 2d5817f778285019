// Fetches http://HOST:PORT/PATH for "HOST PORT PATH" and writes the page to standard output: a POSIX program, which
// knows nothing of Spore. Its name look-up and its socket are those of sdk/c/posix (docs/network.md).
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int connect_to(const char* host, const char* port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  const int error = getaddrinfo(host, port, &hints, &found);
  if (error) {
    fprintf(stderr, "http: %s: %s\n", host, gai_strerror(error));
    return -1;
  }
  int fd = -1;
  for (struct addrinfo* at = found; at && fd < 0; at = at->ai_next) {
    fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) == 0) break;
    perror("http: connect");
    if (fd >= 0) close(fd);
    fd = -1;
  }
  freeaddrinfo(found);
  return fd;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fputs("usage: http HOST PORT PATH\n", stderr);
    return 2;
  }
  const int fd = connect_to(argv[1], argv[2]);
  if (fd < 0) return 1;
  char text[16384];
  const int length = snprintf(text, sizeof(text), "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", argv[3], argv[1]);
  if (length < 0 || (size_t)length >= sizeof(text) || send(fd, text, length, 0) != length) {
    perror("http: send");
    return 1;
  }
  // The head ends with an empty line, anywhere in what comes.
  static const char kEnd[] = "\r\n\r\n";
  size_t matched = 0;
  ssize_t got;
  while ((got = recv(fd, text, sizeof(text), 0)) > 0) {
    ssize_t at = 0;
    for (; at < got && matched < sizeof(kEnd) - 1; at++)
      matched = text[at] == kEnd[matched] ? matched + 1 : text[at] == kEnd[0];
    fwrite(text + at, 1, got - at, stdout);
  }
  if (got < 0) perror("http: receive");
  return got < 0 || matched < sizeof(kEnd) - 1;
}
