// What an image holds, in numbers, for people and programs that look at one. Plain values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "faaslet/proto_faaslet.h"

namespace spore::functions {

// What the image says about the module's initialisers.
enum class Initialisers : uint8_t {
  kNone,        // the module has none
  kCaptured,    // they have run, the image is what they left
  kInEachCall,  // they run in each call
};
std::string_view to_string(Initialisers initialisers);  // "none", "captured", "in each call"

struct ImageDescription {
  struct Memory {
    uint64_t size_bytes = 0;
    uint64_t size_max_bytes = 0;  // how far it may grow
  };
  struct Table {
    std::string_view element;  // a literal: "funcref"
    uint64_t size = 0;
    uint64_t size_max = 0;
  };

  uint32_t format_version = 0;  // of image files that this host writes and reads
  uint32_t layout_version = 0;  // of instances
  Digest module_digest{};
  Initialisers initialisers = Initialisers::kNone;
  std::string because;          // kInEachCall: why
  uint64_t image_bytes = 0;     // of address space
  uint64_t resident_bytes = 0;  // of them, those that take up this host's memory
  size_t globals = 0;
  std::vector<Memory> memories;
  std::vector<Table> tables;
};

ImageDescription describe_image(const faaslet::ProtoFaaslet& proto);

}  // namespace spore::functions
