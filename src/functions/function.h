// What a function is: a name in a tenant, and numbered versions, each a WebAssembly module with its configuration.
// Plain values; safe to copy and to read from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <compare>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "faaslet/cpu_limit.h"
#include "faaslet/proto_faaslet.h"
#include "isolation/network_policy.h"
#include "wasm/object.h"

namespace spore::isolation {
class PreparedPolicy;  // isolation/network_pool.h
}

namespace spore::functions {

// Written TENANT/NAME. Each part: 1 to 64 letters, digits, '.', '_' and '-', the first a letter, a digit or '_'.
struct FunctionId {
  std::string tenant;
  std::string name;

  static Result<FunctionId> make(std::string_view tenant, std::string_view name);
  static Result<FunctionId> parse(std::string_view text);
  std::string text() const { return tenant + "/" + name; }
  auto operator<=>(const FunctionId&) const = default;
};
Result<void> check_name_part(std::string_view what, std::string_view part);

constexpr uint64_t kTimeoutMsMax = 3'600'000;
constexpr uint64_t kMemoryBytesMax = 4ull << 30;
constexpr uint64_t kOutputBytesMax = 1ull << 30;
constexpr uint64_t kLocalBytesMax = 4ull << 30;
constexpr uint64_t kLocalFilesMax = 1'000'000;
constexpr uint64_t kConcurrencyMax = 1'000'000;
constexpr uint64_t kCpuMsMax = 3'600'000;
constexpr uint64_t kCpuPercentMax = 100'000;
constexpr uint64_t kSocketsMax = 1'000;  // of one call
constexpr size_t kMountsMax = 64;
constexpr size_t kConfigStringsMax = 1000;         // arguments, and environment variables
constexpr size_t kConfigTextBytesMax = 256 << 10;  // of all of them together

// When what a call has written to state is published beside what the function itself pushes.
enum class StatePush : uint8_t { kExplicit, kOnSuccess };

// Where its calls run: in the host's process, as those of all tenants, or in one of its tenant's own.
enum class Isolation : uint8_t { kShared, kProcess };

struct FunctionConfig {
  uint64_t timeout_ms = 30'000;            // wall-clock time of one call
  uint64_t memory_max_bytes = 1ull << 30;  // of linear memory; whole WebAssembly pages
  uint64_t output_max_bytes = 64ull << 20;
  uint64_t local_bytes_max = 64ull << 20;  // of what a call writes to files of its own; 0: it has none
  uint64_t local_files_max = 4'096;        // of such files, directories and links
  uint64_t concurrency_max = 0;            // calls that run at once on a host; more wait; 0: no limit
  uint64_t cpu_ms = 0;                     // CPU time of one call, without the calls it makes; 0: no limit
  uint64_t cpu_weight = 100;               // of its guests among those that want the same core
  uint64_t cpu_percent = 0;                // of one core, for all its calls on a host together; 0: no limit
  std::map<std::string, std::string> env;
  std::vector<std::string> args;  // after the program's own name
  // What a call sees at a path: "files:DIRECTORY" is a directory of the tenant's shared files ("files:" all of them),
  // "host:NAME" a directory that the host's administrator offers.
  std::map<std::string, std::string> mounts;
  std::vector<std::string> require;                 // boundaries that a host must enforce to run it: docs/isolation.md
  std::optional<isolation::NetworkPolicy> network;  // nothing: it has none
  Isolation isolation = Isolation::kShared;
  bool spectre_hardening = false;  // its code is compiled so that mispredicted branches leak nothing of its memory
  StatePush push = StatePush::kExplicit;  // kOnSuccess: also at the end of a call whose exit code is 0

  uint64_t memory_pages_max() const { return memory_max_bytes / wasm::kPageBytes; }
  // As a program gets them: its own name first; "NAME=value".
  std::vector<std::string> arguments(std::string_view program) const;
  std::vector<std::string> environment() const;
  bool operator==(const FunctionConfig&) const = default;
};
// For the calls of a function with that configuration; null where it sets no `cpu_percent`.
std::shared_ptr<faaslet::CpuQuota> make_cpu_quota(const FunctionConfig& config);
// kInvalidArgument, naming the field.
Result<void> check_config(const FunctionConfig& config);

// {"timeout_ms": .., "memory_max_bytes": .., "output_max_bytes": .., "env": {..}, "args": [..], "mounts": {..} ...}
std::string config_to_json(const FunctionConfig& config);
// Fields that are missing keep the value they have in `base`; unknown ones are refused. The result is checked.
Result<FunctionConfig> config_from_json(std::string_view json, FunctionConfig base = {});

// What a module's code is compiled as: functions that share a module and want the same of its code share that.
struct CodeId {
  Digest module{};  // SHA-256 of the wasm
  bool hardened = false;
  auto operator<=>(const CodeId&) const = default;
};

struct VersionInfo {
  uint64_t number = 0;     // from 1, never used twice while the function exists
  Digest module_digest{};  // SHA-256 of the wasm
  uint64_t wasm_bytes = 0;
  uint64_t object_bytes = 0;  // compiled; 0 while it must be compiled anew before its next call
  std::chrono::system_clock::time_point published_at;
  FunctionConfig config;
  wasm::Tier tier = wasm::Tier::kFast;  // the best that is compiled

  std::string digest_text() const { return to_hex(module_digest); }
  CodeId code() const { return {module_digest, config.spectre_hardening}; }
};

struct FunctionInfo {
  FunctionId id;
  uint64_t current = 0;               // number of the version that calls get
  std::vector<VersionInfo> versions;  // oldest first; holds the current one

  const VersionInfo& current_version() const;
};

// What calls of a version were like. Any thread.
struct CallHistory {
  // How long one has a core: a moving average. Nothing before the first has ended.
  std::atomic<int64_t> usual_ns{-1};

  void add(std::chrono::nanoseconds time) {
    const int64_t before = usual_ns.load(std::memory_order_relaxed);
    usual_ns.store(before < 0 ? time.count() : before + (time.count() - before) / 8, std::memory_order_relaxed);
  }
};

// A version of a function, ready to restore Faaslets from. Immutable; a call keeps the one it began with, whatever is
// published, rolled back or removed meanwhile. Two loads that give the same pointer gave the same code and image.
struct LoadedFunction {
  FunctionId id;
  VersionInfo version;
  std::shared_ptr<const faaslet::ProtoFaaslet> proto;                  // null: it runs in a process of its tenant's
  std::shared_ptr<faaslet::CpuQuota> cpu_quota = nullptr;              // null: `cpu_percent` is not set
  std::shared_ptr<const isolation::PreparedPolicy> network = nullptr;  // null: `network` is not set
  std::shared_ptr<const void> image_count = nullptr;                   // its image counts as long as this lives
  std::shared_ptr<CallHistory> history = std::make_shared<CallHistory>();
};

}  // namespace spore::functions
