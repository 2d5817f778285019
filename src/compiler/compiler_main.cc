// The program spore-compiler: compiles one module under limits and ends. Started by ChildCompiler, never by hand; the
// protocol is in compiler/child_protocol.h.
#include <fcntl.h>
#include <llvm/Support/ErrorHandling.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <new>

#include "base/fd.h"
#include "base/mapping.h"
#include "compiler/child_protocol.h"
#include "compiler/compiler.h"
#include "compiler/sandbox.h"

namespace {

using namespace spore;

// Where the machine runs out of memory, a compilation is what it can do without best: not the host, which would take
// everybody's calls with it. A process may always raise its own.
void offer_itself_to_the_oom_killer() {
  constexpr std::string_view kAdjustment = "800";  // of 1000 that there are
  const UniqueFd file(::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (file.valid()) (void)!::write(file.get(), kAdjustment.data(), kAdjustment.size());
}

// Leaves at once: destructors and exit handlers of LLVM have nothing to say to anybody.
[[noreturn]] void leave(int code) { ::_exit(code); }

[[noreturn]] void leave_with(const Error& error) {
  const auto written = write_all(compiler::kOutputFd, compiler::serialize_error(error));
  leave(written ? compiler::kExitError : 1);
}

Result<Mapping> map_wasm() {
  struct stat info{};
  if (::fstat(compiler::kWasmFd, &info) != 0) return fail_errno("fstat of the module");
  if (info.st_size == 0) return Mapping{};
  const auto size = static_cast<size_t>(info.st_size);
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, compiler::kWasmFd, 0);
  if (address == MAP_FAILED) return fail_errno("mmap of the module");
  return Mapping(address, size);
}

}  // namespace

int main(int argc, char** argv) {
  const auto request = compiler::parse_arguments({argv + 1, static_cast<size_t>(argc > 0 ? argc - 1 : 0)});
  if (!request || ::fcntl(compiler::kProgressFd, F_GETFD) < 0) {
    std::fprintf(stderr, "spore-compiler is started by spore; to compile a module, use: spore compile FILE.wasm\n");
    return 2;
  }
  offer_itself_to_the_oom_killer();
  auto wasm = map_wasm();
  if (!wasm) leave_with(wasm.error());
  std::set_new_handler([] { leave(compiler::kExitOutOfMemory); });
  // LLVM allocates by malloc too.
  llvm::install_bad_alloc_error_handler([](void*, const char*, bool) { leave(compiler::kExitOutOfMemory); });
  const auto entered = compiler::enter_sandbox({.memory_bytes_max = request->memory_bytes_max,
                                                .cpu_seconds_max = request->cpu_seconds_max,
                                                .file_bytes_max = request->output_bytes_max,
                                                .parent_pid = request->parent_pid});
  if (!entered) leave_with(Error(entered.error()).within("sandbox of the compiler"));

  uint8_t reported = 0;
  const auto report = [&](double share) {
    const auto step = static_cast<uint8_t>(std::clamp(share, 0.0, 1.0) * 255);
    if (step <= reported) return;
    reported = step;
    // A full pipe means that nobody listens closely; the next step tells more anyway.
    (void)!::write(compiler::kProgressFd, &step, 1);
  };
  auto object = compiler::compile({wasm->data(), wasm->size()}, request->options, report);
  if (!object) leave_with(object.error());
  const Bytes bytes = wasm::serialize(*object);
  if (auto written = write_all(compiler::kOutputFd, bytes); !written) leave_with(written.error());
  leave(compiler::kExitObject);
}
