// Who makes the file systems of calls (host/call_files.h), which takes CAP_SYS_ADMIN.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "host/call_files.h"

namespace spore::host {

// The root of a new tmpfs that is mounted nowhere. By this process itself.
Result<UniqueFd> make_tmpfs(const LocalLayer& limits);

// From now on by somebody else, where this process has given up the right to. Before the first call.
using TmpfsMaker = std::function<Result<UniqueFd>(const LocalLayer& limits)>;
void set_tmpfs_maker(TmpfsMaker maker);

// The limits on the way there, and back; kInvalidArgument for what no call can have.
Bytes serialize(const LocalLayer& limits);
Result<LocalLayer> parse_local_layer(ByteSpan bytes);

}  // namespace spore::host
