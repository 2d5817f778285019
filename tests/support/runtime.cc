#include "support/runtime.h"

#include <wabt/binary-writer.h>
#include <wabt/error-formatter.h>
#include <wabt/stream.h>
#include <wabt/wast-lexer.h>
#include <wabt/wast-parser.h>

#include "base/check.h"

namespace spore::testing {

Bytes wasm_from_text(std::string_view text) {
  wabt::Features features;
  features.enable_tail_call();
  features.enable_extended_const();
  features.enable_multi_memory();
  features.enable_memory64();
  features.enable_relaxed_simd();
  features.enable_threads();
  features.enable_exceptions();
  wabt::Errors errors;
  auto lexer = wabt::WastLexer::CreateBufferLexer("text", text.data(), text.size(), &errors);
  std::unique_ptr<wabt::Module> module;
  wabt::WastParseOptions parse_options(features);
  const bool ok = wabt::Succeeded(wabt::ParseWatModule(lexer.get(), &module, &errors, &parse_options));
  CHECK(ok, wabt::FormatErrorsToString(errors, wabt::Location::Type::Text));
  wabt::MemoryStream stream;
  const wabt::WriteBinaryOptions write_options(features, /*canonicalize_lebs=*/true, /*relocatable=*/false,
                                               /*write_debug_names=*/true);
  CHECK(wabt::Succeeded(wabt::WriteBinaryModule(&stream, module.get(), write_options)));
  return stream.output_buffer().data;
}

faaslet::CodeArena& arena() {
  static std::unique_ptr<faaslet::CodeArena> arena = [] {
    CHECK(faaslet::install_signal_handlers().has_value());
    auto made = faaslet::CodeArena::reserve(as_bytes("a key for tests"));
    CHECK(made.has_value(), made ? "" : made.error().message);
    return std::move(*made);
  }();
  return *arena;
}

faaslet::Seat& seat() {
  arena();
  static thread_local faaslet::Seat seat;
  return seat;
}

Result<Ready> prepare(ByteSpan wasm, const compiler::Options& options) {
  ASSIGN_OR_RETURN(wasm::Object object, compiler::compile(wasm, options));
  // By way of the stored form, as in production.
  ASSIGN_OR_RETURN(object, wasm::parse_object(wasm::serialize(object)));
  Ready ready;
  ASSIGN_OR_RETURN(ready.object, arena().load(std::move(object)));
  ASSIGN_OR_RETURN(ready.proto, faaslet::ProtoFaaslet::make_instantiated(ready.object));
  return ready;
}

Result<Ready> prepare(std::string_view text, const compiler::Options& options) {
  return prepare(wasm_from_text(text), options);
}

std::unique_ptr<faaslet::Faaslet> restore(const Ready& ready, std::span<const faaslet::HostFunction> links,
                                          void* host_state) {
  auto slot = faaslet::Slot::reserve();
  CHECK(slot.has_value());
  auto faaslet = faaslet::Faaslet::restore(std::move(*slot), ready.proto, links, host_state);
  CHECK(faaslet.has_value(), faaslet ? "" : faaslet.error().message);
  return std::move(*faaslet);
}

uint32_t exported_function(const wasm::ModuleInfo& module, std::string_view name) {
  const wasm::Export* entry = module.find_export(name, wasm::ExternalKind::kFunction);
  CHECK(entry, name);
  return entry->index;
}

faaslet::Outcome call(faaslet::Faaslet& faaslet, std::string_view name, std::span<const wasm::Cell> arguments) {
  seat().begin_call();
  faaslet::Outcome outcome = faaslet.start(seat(), exported_function(faaslet.module(), name), arguments);
  seat().end_call();
  return outcome;
}

}  // namespace spore::testing
