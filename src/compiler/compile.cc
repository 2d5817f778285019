// The steps of a compilation and how they are spread over threads: decode once, generate and emit in parts whose
// borders depend on the module alone, link in order, check the result.
#include <wabt/cast.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/check.h"
#include "compiler/backend.h"
#include "compiler/code_check.h"
#include "compiler/compiler.h"
#include "compiler/generator.h"
#include "compiler/linker.h"

namespace spore::compiler {

namespace {

// A part of about this many instructions keeps LLVM's peak memory low and two threads busy to the end.
constexpr uint64_t kPartInstructions = 60'000;

uint64_t count_instructions(const wabt::ExprList& list) {
  uint64_t count = 0;
  for (const wabt::Expr& expr : list) {
    ++count;
    if (const auto* block = wabt::dyn_cast<wabt::BlockExpr>(&expr)) count += count_instructions(block->block.exprs);
    if (const auto* loop = wabt::dyn_cast<wabt::LoopExpr>(&expr)) count += count_instructions(loop->block.exprs);
    if (const auto* branch = wabt::dyn_cast<wabt::IfExpr>(&expr))
      count += count_instructions(branch->true_.exprs) + count_instructions(branch->false_);
    if (const auto* handled = wabt::dyn_cast<wabt::TryExpr>(&expr)) {
      count += count_instructions(handled->block.exprs);
      for (const wabt::Catch& clause : handled->catches) count += count_instructions(clause.exprs);
    }
  }
  return count;
}

struct PlannedPart {
  Part part;
  uint64_t instructions = 0;
};

std::vector<PlannedPart> plan(const Decoded& decoded) {
  const auto imported = decoded.info.imported_functions;
  const auto total = static_cast<uint32_t>(decoded.info.functions.size());
  std::vector<PlannedPart> parts{{{imported, imported, true}, 1}};
  for (uint32_t i = imported; i < total; ++i) {
    const uint64_t size = count_instructions(decoded.module->funcs[i]->exprs);
    PlannedPart& last = parts.back();
    // A function as large as a part gets one of its own.
    if (last.part.end > last.part.begin && last.instructions + size > kPartInstructions) {
      parts.push_back({{i, i + 1, false}, size});
    } else {
      last.part.end = i + 1;
      last.instructions += size;
    }
  }
  return parts;
}

}  // namespace

Result<wasm::ModuleInfo> inspect(ByteSpan wasm) {
  ASSIGN_OR_RETURN(Decoded decoded, decode(wasm, kAllProposals));
  return std::move(decoded.info);
}

Result<wasm::Object> compile(ByteSpan wasm, const Options& options, const Progress& progress) {
  ASSIGN_OR_RETURN(const Decoded decoded, decode(wasm, options.proposals));
  ASSIGN_OR_RETURN(const wasm::InstanceLayout layout, wasm::instance_layout(decoded.info));

  const std::vector<PlannedPart> parts = plan(decoded);
  std::vector<size_t> order(parts.size());  // largest first, so that no thread ends with a long tail
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return parts[a].instructions > parts[b].instructions; });
  uint64_t total = 0;
  for (const PlannedPart& part : parts) total += part.instructions;

  std::vector<llvm::SmallVector<char, 0>> emitted(parts.size());
  std::atomic<size_t> next{0};
  std::mutex mutex;  // guards `done`, `failure` and calls of `progress`
  uint64_t done = 0;
  std::optional<Error> failure;
  auto work = [&] {
    for (size_t n = next++; n < order.size(); n = next++) {
      const size_t i = order[n];
      llvm::LLVMContext context;
      Generator generator(context, decoded, layout, options);
      const std::unique_ptr<llvm::Module> module = generator.generate(parts[i].part);
      auto object = emit(*module, options);
      const std::lock_guard lock(mutex);
      if (!object) {
        failure = std::move(object).error();
        next = order.size();
        return;
      }
      emitted[i] = std::move(*object);
      done += parts[i].instructions;
      if (progress) progress(0.98 * static_cast<double>(done) / static_cast<double>(total));
    }
  };
  const unsigned threads = std::clamp<unsigned>(options.threads, 1, static_cast<unsigned>(parts.size()));
  {
    std::vector<std::jthread> helpers;
    for (unsigned i = 1; i < threads; ++i) helpers.emplace_back(work);
    work();
  }
  if (failure) return std::unexpected(std::move(*failure));

  wasm::Object object;
  object.tier = options.tier;
  object.cpu_level = options.cpu_level;
  object.cross_instance = options.cross_instance;
  object.hardened = options.hardened;
  object.module_digest = sha256(wasm);
  object.module = decoded.info;
  TRY(link(emitted, object));
  TRY(check_code(object));
  if (progress) progress(1.0);
  return object;
}

}  // namespace spore::compiler
