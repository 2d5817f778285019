// Modules for the leak test, written as text from a seed: memories, tables, globals and segments of random kinds and
// sizes, a function that looks whether it finds them as the module says, and one that changes all of them at random.
//
// Exports: check() -> i32, 0 where all is as it should be, else the number of the first thing that is not.
//          act(seed: i64, steps: i32, ending: i32), which takes that many random steps and then ends as it is told.
//          initialise(), where the module is to be captured after it; check() then expects what that leaves behind.
// Imports: kImports, in this order.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "leak/random.h"

namespace spore::leak {

enum class Ending : uint32_t {
  kReturn,
  kUnreachable,
  kOutOfBounds,  // a store past the end of memory 0; unreachable where there is none
  kLoop,         // until interrupted
  kStackOverflow,
  kException,  // uncaught
  kDivideByZero,
  kExit,
  kCount,
};
std::string_view to_string(Ending ending);

enum class Import : uint32_t {
  kAsk,    // (x: i32) -> 3 x + 1, perhaps after parking
  kGrown,  // (memory: i32, old_pages: i32, pages: i32): memory has just grown
  kWrong,  // (number: i32): the guest has found something that must not be
  kExit,
  kCount,
};

struct ModuleText {
  std::string text;
  std::string description;
  bool has_initialiser = false;
};

ModuleText make_module(uint64_t seed);

}  // namespace spore::leak
