// What a well-behaved guest passes to each function of the table of imports: what the attacks start from.
//
// It is derived from the table alone: the documentation of an import names its parameters, in order, and a dictionary
// (arguments.cc) says what stands behind each name. A new import with known names is covered by itself; one with names
// that nobody knows, or with fewer than it has parameters, is an error, and the suite fails.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "host/imports.h"

namespace spore::security {

enum class Role : uint8_t {
  kNumber,   // value
  kPointer,  // to `pointee`
};

struct Argument {
  std::string name;
  Role role = Role::kNumber;
  uint64_t value = 0;
  // kPointer: these bytes, of which the first `lead` lie below the address, as AssemblyScript's do. Words that are
  // addresses themselves are at `addresses`, as distances from the arguments' beginning.
  Bytes pointee;
  uint32_t lead = 0;
  std::vector<size_t> addresses;
  // Where the pointee lies, from the arguments' beginning. Pointees do not overlap.
  uint32_t place = 0;

  uint32_t extent() const { return static_cast<uint32_t>(pointee.size()) - lead; }  // from the address on
};

// One for each parameter. kInvalidArgument: the documentation does not name them, or a name is unknown.
Result<std::vector<Argument>> good_arguments(const host::ImportDeclaration& declaration);

constexpr uint32_t kArgumentsBytes = 0x4000;  // all pointees lie in so many

std::string full_name(const host::ImportDeclaration& declaration);

}  // namespace spore::security
