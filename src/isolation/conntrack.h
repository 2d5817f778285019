// The kernel's table of connections in one network namespace.
#pragma once

#include <functional>

#include "base/result.h"
#include "isolation/ip_address.h"

namespace spore::isolation {

// In the current network namespace of the calling thread: removes the connections over IPv4 whose first packet came
// from an address that `forgotten` says yes to. How many those were. Takes time in proportion to the table.
Result<size_t> forget_connections(const std::function<bool(const IpAddress& source)>& forgotten);

}  // namespace spore::isolation
