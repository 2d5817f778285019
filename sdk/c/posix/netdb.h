// <netdb.h>, which wasi-libc does not have: getaddrinfo() and what belongs to it (sdk/c/README.md).
#include "../spore_socket.h"
