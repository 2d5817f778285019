#include "bin/runtime.h"

#include "base/digest.h"
#include "faaslet/seat.h"

namespace spore::bin {

Result<std::unique_ptr<faaslet::CodeArena>> start_runtime(ByteSpan host_key) {
  TRY(faaslet::install_signal_handlers());
  const Digest placement_key = hmac_sha256(host_key, as_bytes("spore code placement"));
  return faaslet::CodeArena::reserve(placement_key);
}

}  // namespace spore::bin
