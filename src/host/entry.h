// Where a call enters a module.
//
// A command exports `_start`. A reactor exports `spore_call`, and perhaps `_initialize` and `spore_init`, which run
// before it, in this order. A module that exports both `_start` and `spore_call` is a reactor. The module's start
// section, if any, comes first of all.
//
// What runs before the call itself are the initialisers: they run once, when the function is published, and calls begin
// from the image that is captured then (host/initialise.h). Two more exports of a reactor stand around that:
// `spore_before_snapshot` runs last before the capture, `spore_after_restore` first in every call.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "wasm/module.h"

namespace spore::host {

struct Entry {
  enum class Kind : uint8_t { kCommand, kReactor };
  Kind kind = Kind::kCommand;
  std::vector<uint32_t> initialisers;  // run in this order, none with parameters or results, as all of these
  std::optional<uint32_t> before_snapshot;
  std::optional<uint32_t> after_restore;
  uint32_t call = 0;
  bool has_exit_code = false;  // `call` returns an i32, the exit code; else 0

  // What a call runs, in order: in an image whose initialisers have run, or in one where they have not.
  std::vector<uint32_t> from_image;
  std::vector<uint32_t> from_start;
};

// kInvalidModule: names the exports that are missing, or the one whose signature is wrong.
Result<Entry> find_entry(const wasm::ModuleInfo& module);

}  // namespace spore::host
