// What every program that runs guests must set up first: the signal handlers and the code arena.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"
#include "faaslet/code_arena.h"

namespace spore::bin {

// Once a process, before other threads start. `host_key`: where code is placed is derived from it.
Result<std::unique_ptr<faaslet::CodeArena>> start_runtime(ByteSpan host_key);

}  // namespace spore::bin
