// The process of a tenant's, from inside: the runtime of a host without its stores and its gateway.
//
//   link --call--> Worker --> LocalTier, LockService --> RemoteTier --request--> link
//                     `-----> functions, loaded from what the host gives (parts), initialised here
//
// The threads that are attached to the worker also read the link, one at a time, as those of the gateway do with their
// connections: a call runs on the thread that has read it. There are two more than there are seats, one of which can be
// borrowed, so one is always left to read answers and cancellations.
#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace spore::processes {

// In a process that isolation::start_apart() has begun, with one thread. Gives up all that the process does not need,
// then serves the host at the other end of the socket until that lets it end, or is gone. An error: it could not begin.
Result<void> serve_host(UniqueFd socket);

}  // namespace spore::processes
