// Runs the commands of one script and keeps the tally.
//
// Modules that only import the functions of "spectest" and that no other module links to take the road of production:
// compile, load, ProtoFaaslet, a Faaslet restored from it. All others are LinkedFaaslets, which share memories, tables,
// globals and functions with each other. One thread; one Executor a process (it owns the code arena and the seat).
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "compiler/options.h"
#include "faaslet/linked_faaslet.h"
#include "script.h"

namespace spore::spec {

// Lies in memory shared with the parent process, so that it survives a crash of the child that counts.
struct Tally {
  std::atomic<uint32_t> assertions;  // in the whole script
  std::atomic<uint32_t> passed;
  std::atomic<uint32_t> failed;
  std::atomic<uint32_t> skipped_text;         // text-format syntax
  std::atomic<uint32_t> skipped_instruction;  // wabt does not know the instruction
  std::atomic<uint32_t> skipped_valid;        // that a module is invalid which is valid today
  std::atomic<uint32_t> line;                 // of the command that runs now
  std::atomic<bool> finished;
};

struct ExecutorOptions {
  compiler::Options compile;
  std::vector<std::string> wabt_flags;
  std::filesystem::path folder;  // for temporary files
};

class Executor {
 public:
  // `report` gets one line for each failure.
  static Result<std::unique_ptr<Executor>> make(ExecutorOptions options, Tally& tally,
                                                std::function<void(uint32_t line, const std::string& text)> report);
  ~Executor();

  void run(const std::vector<Command>& commands);

 private:
  struct Instance;

  Executor(ExecutorOptions options, Tally& tally, std::function<void(uint32_t, const std::string&)> report);
  Result<void> add_spectest();

  // An error is the reason why the command failed. The others left it out, see Tally.
  enum class Verdict : uint8_t { kPassed, kSkippedText, kSkippedValid };
  Result<Verdict> execute(const Command& command);
  Result<Verdict> define(const Command& command);
  Result<Verdict> assert_return(const Command& command);
  Result<Verdict> assert_trap(const Command& command);
  Result<Verdict> assert_rejected(const Command& command);
  Result<Verdict> assert_unlinkable(const Command& command);
  Result<Verdict> assert_uninstantiable(const Command& command);

  Result<Bytes> module_bytes(const Command& command);
  // Instantiates; `instance` is null where the outcome is a trap of the instantiation.
  struct Instantiated {
    Instance* instance = nullptr;
    faaslet::Outcome outcome;
  };
  Result<Instantiated> instantiate(const Command& command);
  Result<Instance*> find(const std::string& name);
  Result<faaslet::Outcome> perform(const Action& action, std::vector<Value>& results);

  ExecutorOptions options_;
  Tally& tally_;
  std::function<void(uint32_t, const std::string&)> report_;
  std::unique_ptr<faaslet::CodeArena> arena_;
  std::unique_ptr<faaslet::Seat> seat_;
  std::unique_ptr<faaslet::LinkedWorld> world_;
  std::vector<std::unique_ptr<Instance>> instances_;
  std::map<std::string, Instance*> named_;
  Instance* last_ = nullptr;
  std::set<const Command*> linked_modules_;  // that other modules import from
};

}  // namespace spore::spec
