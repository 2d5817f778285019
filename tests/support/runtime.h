// For tests: WebAssembly text to bytes, and a module compiled, loaded and ready to run in this process.
#pragma once

#include <memory>
#include <string_view>

#include "compiler/compiler.h"
#include "faaslet/faaslet.h"

namespace spore::testing {

// Aborts the test program with the parser's message where the text is wrong.
Bytes wasm_from_text(std::string_view text);

// The process's arena and handlers, made at first use, and the calling thread's seat.
faaslet::CodeArena& arena();
faaslet::Seat& seat();

struct Ready {
  std::shared_ptr<const faaslet::LoadedObject> object;
  std::shared_ptr<const faaslet::ProtoFaaslet> proto;
};
Result<Ready> prepare(ByteSpan wasm, const compiler::Options& options = {});
Result<Ready> prepare(std::string_view text, const compiler::Options& options = {});

// A Faaslet in a fresh slot.
std::unique_ptr<faaslet::Faaslet> restore(const Ready& ready, std::span<const faaslet::HostFunction> links = {},
                                          void* host_state = nullptr);

uint32_t exported_function(const wasm::ModuleInfo& module, std::string_view name);
// Runs an export as one call of the thread's seat.
faaslet::Outcome call(faaslet::Faaslet& faaslet, std::string_view name, std::span<const wasm::Cell> arguments = {});

}  // namespace spore::testing
