// Any bytes that are a valid module: both tiers compile it, its object survives being stored, and its exports without
// parameters run to an end of their own, a trap or the interrupt.
#include <chrono>
#include <cstdlib>
#include <thread>

#include "compiler/compiler.h"
#include "support/runtime.h"

namespace {

constexpr size_t kModuleBytesMax = 8 << 10;
constexpr auto kRunMax = std::chrono::milliseconds(20);

void run_exports(const spore::testing::Ready& ready) {
  using namespace spore;
  const wasm::ModuleInfo& module = ready.object->module();
  if (module.imported_functions) return;
  for (const wasm::Export& entry : module.exports) {
    if (entry.kind != wasm::ExternalKind::kFunction || !module.signature_of(entry.index).params.empty()) continue;
    auto faaslet = testing::restore(ready);
    faaslet::Seat& seat = testing::seat();
    const uint64_t generation = seat.begin_call();
    std::jthread watchdog([&](std::stop_token done) {
      const auto end = std::chrono::steady_clock::now() + kRunMax;
      while (!done.stop_requested() && std::chrono::steady_clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      seat.interrupt(generation);
    });
    (void)faaslet->start(seat, entry.index);
    watchdog.request_stop();
    watchdog.join();
    seat.end_call();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spore;
  if (size > kModuleBytesMax) return 0;
  for (wasm::Tier tier : {wasm::Tier::kFast, wasm::Tier::kOptimised}) {
    compiler::Options options;
    options.tier = tier;
    const auto ready = testing::prepare(ByteSpan(data, size), options);
    if (ready) run_exports(*ready);
    // A valid module compiles; anything else than the module's own fault or a limit is ours.
    if (!ready && ready.error().code == ErrorCode::kInternal) std::abort();
  }
  return 0;
}
