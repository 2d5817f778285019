// Any bytes offered as a stored object are refused, or are one that can be stored again.
#include <cstdlib>

#include "wasm/object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto object = spore::wasm::parse_object({data, size});
  if (object && !spore::wasm::parse_object(spore::wasm::serialize(*object))) std::abort();
  return 0;
}
