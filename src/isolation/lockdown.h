// What the serving process gives up before it has any thread: a second line of defence, should a guest ever break out
// of its sandbox. What needs privileges is done by the broker from then on (isolation/broker.h).
#pragma once

#include <vector>

#include "base/result.h"

namespace spore::isolation {

// Drops all capabilities but those in `kept` (CAP_...), from the bounding set too; no program that is started gets more
// (no_new_privs); no memory goes into core dumps. All threads that are begun later have the same. kFailedPrecondition
// where there is more than one thread; kPermissionDenied where the kernel refuses.
Result<void> drop_privileges(const std::vector<int>& kept = {});

// From now on the calling thread, and threads it begins, cannot do what no part of the host does: look into other
// processes, mount, enter namespaces, load code into the kernel, and so on (lockdown.cc has the list). Those calls fail
// with EPERM.
Result<void> forbid_system_calls();

// From now on the calling thread, which will run guests, can do only what such threads need; all else fails with EPERM.
// lockdown.cc has the list, with reasons. kUnavailable: the kernel has no such filters.
Result<void> allow_system_calls_of_a_seat();

}  // namespace spore::isolation
