#include "functions/image_description.h"

#include "wasm/abi.h"

namespace spore::functions {

std::string_view to_string(Initialisers initialisers) {
  switch (initialisers) {
    case Initialisers::kNone: return "none";
    case Initialisers::kCaptured: return "captured";
    case Initialisers::kInEachCall: return "in each call";
  }
  return "";
}

ImageDescription describe_image(const faaslet::ProtoFaaslet& proto) {
  const wasm::ModuleInfo& module = proto.module();
  const auto regions = proto.regions();
  ImageDescription out{.format_version = faaslet::kImageFormatVersion,
                       .layout_version = wasm::kAbiVersion,
                       .module_digest = proto.object()->object().module_digest,
                       .because = proto.uninitialised_because(),
                       .image_bytes = proto.image_bytes(),
                       .resident_bytes = proto.resident_bytes(),
                       .globals = module.globals.size()};
  if (proto.initialised())
    out.initialisers = Initialisers::kCaptured;
  else if (!out.because.empty())
    out.initialisers = Initialisers::kInEachCall;
  for (size_t i = 0; i < module.memories.size(); ++i) {
    const uint64_t pages_max = i == 0 ? proto.memory_pages_max() : wasm::memory_pages_limit(module, i);
    out.memories.push_back({.size_bytes = i == 0 ? proto.memory_bytes() : regions[i].image_bytes,
                            .size_max_bytes = pages_max * wasm::kPageBytes});
  }
  const auto state = faaslet::state_without_memories(*proto.object(), proto.image() - regions[0].offset);
  for (size_t i = 0; i < module.tables.size(); ++i)
    out.tables.push_back({.element = wasm::to_string(module.tables[i].element),
                          .size = state.tables[i].size(),
                          .size_max = proto.object()->layout().table_max[i]});
  return out;
}

}  // namespace spore::functions
