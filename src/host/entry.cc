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

// The export of that name, a function without parameters and results; nothing where it is not there.
Result<std::optional<uint32_t>> find_plain(const wasm::ModuleInfo& module, std::string_view name) {
  const auto* found = module.find_export(name, ExternalKind::kFunction);
  if (!found) return std::nullopt;
  if (!is_plain(module.signature_of(found->index))) return wrong_signature(module, *found, "() -> ()");
  return found->index;
}

}  // namespace

Result<Entry> find_entry(const wasm::ModuleInfo& module) {
  Entry entry;
  if (module.start) entry.initialisers.push_back(*module.start);

  if (const auto* call = module.find_export("spore_call", ExternalKind::kFunction)) {
    entry.kind = Entry::Kind::kReactor;
    for (const std::string_view name : {"_initialize", "spore_init"}) {
      ASSIGN_OR_RETURN(const auto initialiser, find_plain(module, name));
      if (initialiser) entry.initialisers.push_back(*initialiser);
    }
    ASSIGN_OR_RETURN(entry.before_snapshot, find_plain(module, "spore_before_snapshot"));
    ASSIGN_OR_RETURN(entry.after_restore, find_plain(module, "spore_after_restore"));
    const wasm::Signature& signature = module.signature_of(call->index);
    entry.has_exit_code = signature.results == std::vector{wasm::ValueType::kI32};
    if (!signature.params.empty() || !(signature.results.empty() || entry.has_exit_code)) {
      return wrong_signature(module, *call, "() -> () or () -> (i32)");
    }
    entry.call = call->index;
  } else {
    ASSIGN_OR_RETURN(const auto start, find_plain(module, "_start"));
    if (!start) {
      return fail(ErrorCode::kInvalidModule,
                  "the module exports neither a function `_start` (a command) nor a function `spore_call` (a reactor)");
    }
    entry.call = *start;
  }
  if (entry.after_restore) entry.from_image.push_back(*entry.after_restore);
  entry.from_image.push_back(entry.call);
  entry.from_start = entry.initialisers;
  entry.from_start.push_back(entry.call);
  return entry;
}

}  // namespace spore::host
