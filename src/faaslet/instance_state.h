// What an instance consists of while no guest frame is live, told without any address: references are function indices
// (0 null, else index + 1), memories are sizes and the runs of bytes in them that are not zero. So one state is valid
// for every tier, CPU level and compiler version of its module, in any slot, on any host.
//
//   instantiate(module) ---------------------------> InstanceState --ProtoFaaslet::make--> an image that maps
//   Faaslet::capture(), ProtoFaaslet::state() ------->   ^   |
//                                                        |   v
//                                                     parse  serialize: an image file
#pragma once

#include <string>
#include <vector>

#include "base/digest.h"
#include "wasm/abi.h"

namespace spore::faaslet {

struct MemoryRun {
  uint64_t offset = 0;
  ByteSpan bytes;  // borrowed: from the module, an image, a Faaslet that does not run, or InstanceState::storage
};

struct MemoryState {
  uint64_t size_bytes = 0;  // whole WebAssembly pages
  std::vector<MemoryRun> runs;
};

struct InstanceState {
  // Whether the module's initialisers have run in it. If not although there are some, why.
  bool initialised = false;
  std::string uninitialised_because;

  std::vector<wasm::Cell> globals;
  std::vector<uint8_t> data_dropped;  // one for each segment, 1 = dropped
  std::vector<uint8_t> elements_dropped;
  std::vector<std::vector<uint32_t>> tables;  // references
  std::vector<MemoryState> memories;
  Bytes storage;
};

// As the module says it is just after instantiation, before its start function. For modules whose only imports are
// functions. Errors: a segment out of bounds, another import (kInvalidModule). The state borrows from `info`.
Result<InstanceState> instantiate(const wasm::ModuleInfo& info);

// An image file: a header that names format, ABI and module, and the state, compressed (zstd). The same state gives the
// same bytes. Only whole pages that are not all zero are in it; runs must not overlap.
constexpr uint32_t kImageFormatVersion = 1;
Bytes serialize(const InstanceState& state, const Digest& module_digest);
// kInvalidArgument, and what is wrong: another format, module or ABI, damage, anything that does not fit the module or
// is larger than `memory_pages_max` allows. The state borrows from its own storage.
Result<InstanceState> parse_instance_state(ByteSpan bytes, const wasm::ModuleInfo& info, const Digest& module_digest,
                                           uint64_t memory_pages_max);

// Appends the runs of whole 4 KiB pages of [bytes] that are not all zero; `offset`, a multiple of 4 KiB, is where the
// bytes lie in their memory.
void append_nonzero_pages(std::vector<MemoryRun>& runs, uint64_t offset, ByteSpan bytes);

}  // namespace spore::faaslet
