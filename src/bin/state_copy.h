// Copies a tenant's state values from one store to another, as when one host becomes many.
//
// Each value is copied as it was at one version, in pushes of 16 MiB: one that is larger can be seen there before it is
// whole, and who writes to it meanwhile ends the copying. What was interrupted is begun again with kReplace. Versions
// there are new ones; locks and the names of pushes are not copied. Blocking; any thread.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "state/global_tier.h"

namespace spore::bin {

enum class IfThere { kFail, kReplace };

struct CopyTotals {
  uint64_t values = 0;
  uint64_t bytes = 0;  // sum of their sizes
};

// `progress`: from 0 to 1, by bytes. kAlreadyExists: the other store has a value of that key.
Result<CopyTotals> copy_state(state::GlobalTier& from, state::GlobalTier& to, const std::string& tenant,
                              IfThere if_there, const std::function<void(double)>& progress);

}  // namespace spore::bin
