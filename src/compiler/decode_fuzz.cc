// Any bytes: decoding and validating them ends with a module or an error.
#include "compiler/decode.h"
#include "wasm/abi.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto decoded = spore::compiler::decode({data, size}, spore::compiler::kAllProposals);
  if (decoded) (void)spore::wasm::instance_layout(decoded->info);
  return 0;
}
