#include "host/entry.h"

namespace spore::host {

namespace {

using wasm::ExternalKind;

std::unexpected<Error> wrong_signature(const wasm::ModuleInfo& module, const wasm::Export& found,
                                       std::string_view wanted) {
  const wasm::Signature& signature = module.signature_of(found.index);
  std::string has = signature.params.size() + signature.results.size() <= 16 ? to_string(signature)
                                                                             : "more parameters and results than that";
  return fail(ErrorCode::kInvalidModule,
              "the export " + found.name + " must be a function " + std::string(wanted) + ", it is " + has);
}

bool is_plain(const wasm::Signature& signature) { return signature.params.empty() && signature.results.empty(); }

}  // namespace

Result<Entry> find_entry(const wasm::ModuleInfo& module) {
  Entry entry;
  if (module.start) entry.functions.push_back(*module.start);

  if (const auto* call = module.find_export("spore_call", ExternalKind::kFunction)) {
    entry.kind = Entry::Kind::kReactor;
    if (const auto* initialize = module.find_export("_initialize", ExternalKind::kFunction)) {
      if (!is_plain(module.signature_of(initialize->index))) return wrong_signature(module, *initialize, "() -> ()");
      entry.functions.push_back(initialize->index);
    }
    const wasm::Signature& signature = module.signature_of(call->index);
    entry.has_exit_code = signature.results == std::vector{wasm::ValueType::kI32};
    if (!signature.params.empty() || !(signature.results.empty() || entry.has_exit_code)) {
      return wrong_signature(module, *call, "() -> () or () -> (i32)");
    }
    entry.functions.push_back(call->index);
    return entry;
  }

  if (const auto* start = module.find_export("_start", ExternalKind::kFunction)) {
    if (!is_plain(module.signature_of(start->index))) return wrong_signature(module, *start, "() -> ()");
    entry.functions.push_back(start->index);
    return entry;
  }
  return fail(ErrorCode::kInvalidModule,
              "the module exports neither a function `_start` (a command) nor a function `spore_call` (a reactor)");
}

}  // namespace spore::host
