// The host interface: every function that a guest can import is declared once, in the table in imports.cc. Linking, the
// documentation (docs/host-interface.md) and the SDKs' declarations come from it.
//
// The signature of an import is derived from the C++ function that implements it, so the two cannot disagree. All of
// this is immutable; any thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "faaslet/host_call.h"
#include "wasm/module.h"

namespace spore::host {

// What an initialiser may do with an import: it runs once, for all calls, when a function is published.
enum class InInitialiser : uint8_t {
  kMay,
  kNotCaptured,  // what it asks for differs from call to call; so the initialiser runs in each call
  kRandom,       // the same, unless the module exports spore_after_restore and so says that it takes care of it
  kRefused,      // the function cannot be published
};

struct ImportDeclaration {
  std::string_view module;
  std::string_view name;
  wasm::Signature signature;
  faaslet::HostFunction function = nullptr;
  std::string_view documentation;  // one line
  InInitialiser in_initialiser = InInitialiser::kMay;
  // What takes the function's place there: the function itself, a clock that stands still, or one that traps and leaves
  // this declaration in HostState::initialiser_asked.
  faaslet::HostFunction initialiser_function = nullptr;
};

// By module, then in the order in which they are documented.
std::span<const ImportDeclaration> imports();

// One host function for each function import of the module, in order: what Faaslet::restore() takes. Those functions
// expect the Faaslet's host_state to be a HostState. kInvalidModule lists every import that cannot be satisfied, each
// with its signature and, where the name is known, the signature that Spore offers (up to kLinkErrorBytesMax; beyond
// that it says how many more).
Result<std::vector<faaslet::HostFunction>> link(const wasm::ModuleInfo& module);
// The same for a Faaslet that runs initialisers.
Result<std::vector<faaslet::HostFunction>> link_for_initialisers(const wasm::ModuleInfo& module);
constexpr size_t kLinkErrorBytesMax = 64 << 10;
// Whether the module has a way to call other functions: by name, by Faasm's names, or by files.
bool may_call(const wasm::ModuleInfo& module);

// The text of docs/host-interface.md.
std::string render_documentation();

}  // namespace spore::host
