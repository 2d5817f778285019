// <sys/socket.h> with what wasi-libc leaves out: for sources that know nothing of Spore (sdk/c/README.md).
#include_next <sys/socket.h>

#include "../../spore_socket.h"
