#include "bin/runtime.h"

#include <unistd.h>

#include <cstdlib>

#include "base/digest.h"
#include "faaslet/seat.h"

namespace spore::bin {

Result<std::unique_ptr<faaslet::CodeArena>> start_runtime(ByteSpan host_key) {
  TRY(faaslet::install_signal_handlers());
  const Digest placement_key = hmac_sha256(host_key, as_bytes("spore code placement"));
  ASSIGN_OR_RETURN(auto arena, faaslet::CodeArena::reserve(placement_key));
  // `perf report` then names guest functions.
  if (::getenv("SPORE_PERF_MAP")) TRY(arena->write_perf_map("/tmp/perf-" + std::to_string(::getpid()) + ".map"));
  return arena;
}

}  // namespace spore::bin
