// Who runs the kernels: native code in this process, Spore in this process, V8 in a child. A contender loads every
// kernel once, before the first round, and then runs one at a time when asked; only the call itself is timed.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "faaslet/code_arena.h"
#include "faaslet/seat.h"
#include "samples.h"

namespace spore::bench {

class Contender {
 public:
  virtual ~Contender() = default;
  virtual Result<Sample> run(size_t kernel) = 0;
};

// `folder` holds NAME.native.so, NAME.v3.so, NAME.scalar.wasm and NAME.simd.wasm for each of `kernels`.
struct Kernels {
  std::string folder;
  std::vector<std::string> names;

  std::string file(size_t kernel, const std::string& suffix) const { return folder + "/" + names[kernel] + suffix; }
};

Result<std::unique_ptr<Contender>> make_native(const Kernels& kernels, const std::string& suffix);
// Optimised tier, this machine's CPU level, `hardened` as wasm::Object. Runs on the thread of `seat`; the arena and the
// seat outlive it.
Result<std::unique_ptr<Contender>> make_spore(faaslet::CodeArena& arena, faaslet::Seat& seat, const Kernels& kernels,
                                              const std::string& suffix, bool hardened = false);
// `script` is v8.mjs; node comes from PATH. One process for all kernels and for each suffix.
Result<std::unique_ptr<Contender>> make_v8(const Kernels& kernels, const std::string& suffix,
                                           const std::string& script);

}  // namespace spore::bench
