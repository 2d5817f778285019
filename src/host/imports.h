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

struct ImportDeclaration {
  std::string_view module;
  std::string_view name;
  wasm::Signature signature;
  faaslet::HostFunction function = nullptr;
  std::string_view documentation;  // one line
};

// By module, then in the order in which they are documented.
std::span<const ImportDeclaration> imports();

// One host function for each function import of the module, in order: what Faaslet::restore() takes. Those functions
// expect the Faaslet's host_state to be a HostState. kInvalidModule lists every import that cannot be satisfied, each
// with its signature and, where the name is known, the signature that Spore offers (up to kLinkErrorBytesMax; beyond
// that it says how many more).
Result<std::vector<faaslet::HostFunction>> link(const wasm::ModuleInfo& module);
constexpr size_t kLinkErrorBytesMax = 64 << 10;

// The text of docs/host-interface.md.
std::string render_documentation();

}  // namespace spore::host
