#include "prober.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace spore::security {

namespace {

using wasm::ValueType;

// A step in guest memory.
struct StepRecord {
  uint32_t table_index = 0;
  uint32_t repeat = 0;
  struct {
    uint64_t value = 0;
    uint32_t added = 0;  // the address of what is added to it
    uint32_t pad = 0;
  } operands[12];
  uint64_t given = 0;
  uint32_t returned = 0;  // how often
  uint32_t pad[9] = {};
};
static_assert(sizeof(StepRecord) == 248);
static_assert(offsetof(StepRecord, operands) == 8 && offsetof(StepRecord, given) == 200 &&
              offsetof(StepRecord, returned) == 208);

constexpr uint32_t kStepCount = kScript;         // u32
constexpr uint32_t kMallocCloses = kScript + 4;  // u32
constexpr uint32_t kZero = kScript + 8;          // u64
constexpr uint32_t kRecords = kScript + 16;
constexpr uint32_t kAllocated = kArguments + 0xc000;  // what malloc() gives
static_assert(kRecords + kStepsMax * sizeof(StepRecord) <= kScript + kPageBytes / 2);

std::string operand(size_t index, ValueType type) {
  const std::string value = std::to_string(offsetof(StepRecord, operands) + 16 * index);
  const std::string added = std::to_string(offsetof(StepRecord, operands) + 16 * index + 8);
  const std::string record = "(local.get $record)";
  if (type == ValueType::kF64) return "(f64.load offset=" + value + " " + record + ")";
  if (type == ValueType::kF32) return "(f32.load offset=" + value + " " + record + ")";
  const std::string sum = "(i64.add (i64.load offset=" + value + " " + record +
                          ") (i64.load (i32.load offset=" + added + " " + record + ")))";
  return type == ValueType::kI64 ? sum : "(i32.wrap_i64 " + sum + ")";
}

std::string as_i64(ValueType type, const std::string& value) {
  switch (type) {
    case ValueType::kI32: return "(i64.extend_i32_u " + value + ")";
    case ValueType::kF64: return "(i64.reinterpret_f64 " + value + ")";
    case ValueType::kF32: return "(i64.extend_i32_u (i32.reinterpret_f32 " + value + "))";
    default: return value;
  }
}

// What stands behind @ is filled in. A step is run by its function in the table, which is given its record.
constexpr std::string_view kModule = R"((module
@imports
(memory (export "memory") 4 8)
(table funcref (elem $noop $copy $alternate @elements))
(type $step (func (param i32)))
(func $noop)
(func $copy (param $record i32) (memory.copy @operand0 @operand1 @operand2))
(func $alternate (param $record i32)
  (loop $again (memory.copy @operand0 @operand1 @operand3) (memory.copy @operand0 @operand2 @operand3) (br $again)))
@functions
(func (export "malloc") (param i32) (result i32)
  (if (i32.load (i32.const @malloc_closes)) (then (drop (call @call_close (i32.const 1)))))
  (i32.const @allocated))
(func (export "spore_call") (local $record i32) (local $left i32) (local $times i32)
  (if (i32.eqz (i32.load (i32.const @step_count)))
    (then (drop (call @input_read (i32.const 0) (i32.const 0) (i32.const @memory_bytes)))))
  (local.set $record (i32.const @records))
  (local.set $left (i32.load (i32.const @step_count)))
  (block $end (loop $next (br_if $end (i32.eqz (local.get $left)))
    (local.set $times (i32.load offset=4 (local.get $record)))
    (loop $again
      (call_indirect (type $step) (local.get $record) (i32.load (local.get $record)))
      (i32.store offset=208 (local.get $record) (i32.add (i32.load offset=208 (local.get $record)) (i32.const 1)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
    (local.set $record (i32.add (local.get $record) (i32.const @record_bytes)))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br $next)))))
)";

std::string filled_in(std::string text, std::string_view name, const std::string& with) {
  for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += with.size())
    text.replace(at, name.size(), with);
  return text;
}

std::string module_text() {
  std::string imports, functions, elements, call_close, input_read;
  size_t index = 0;
  for (const auto& declaration : host::imports()) {
    const std::string module(declaration.module), name(declaration.name);
    const std::string import = "$import" + std::to_string(index);
    const std::string step = "$step" + std::to_string(index++);
    CHECK(declaration.signature.params.size() <= 12 && declaration.signature.results.size() <= 1, name);
    imports += "(import \"" + module + "\" \"" + name + "\" (func " + import;
    std::string called = "(call " + import;
    for (size_t i = 0; i < declaration.signature.params.size(); ++i) {
      imports += " (param " + std::string(wasm::to_string(declaration.signature.params[i])) + ")";
      called += " " + operand(i, declaration.signature.params[i]);
    }
    called += ")";
    for (const ValueType type : declaration.signature.results) {
      imports += " (result " + std::string(wasm::to_string(type)) + ")";
      called = "(i64.store offset=200 (local.get $record) " + as_i64(type, called) + ")";
    }
    imports += "))\n";
    functions += "(func " + step + " (param $record i32) " + called + ")\n";
    elements += " " + step;
    if (module == "spore" && name == "call_close") call_close = import;
    if (module == "spore" && name == "input_read") input_read = import;
  }
  std::string text(kModule);
  for (size_t i = 0; i < 4; ++i)
    text = filled_in(std::move(text), "@operand" + std::to_string(i), operand(i, ValueType::kI32));
  const std::pair<std::string_view, std::string> parts[] = {
      {"@imports", imports},
      {"@elements", elements},
      {"@functions", functions},
      {"@malloc_closes", std::to_string(kMallocCloses)},
      {"@call_close", call_close},
      {"@allocated", std::to_string(kAllocated)},
      {"@step_count", std::to_string(kStepCount)},
      {"@input_read", input_read},
      {"@memory_bytes", std::to_string(kMemoryBytes)},
      {"@records", std::to_string(kRecords)},
      {"@record_bytes", std::to_string(sizeof(StepRecord))},
  };
  for (const auto& [name, with] : parts) text = filled_in(std::move(text), name, with);
  return text;
}

}  // namespace

Prober::Prober() {
  names_ = {"noop", "copy", "alternate"};
  for (const auto& declaration : host::imports())
    names_.push_back(std::string(declaration.module) + "." + std::string(declaration.name));
  module_ = testing::wasm_from_text(module_text());
  auto ready = testing::prepare(module_);
  CHECK(ready, ready.error().message);
  ready_ = std::move(*ready);
  auto links = host::link(ready_.proto->module());
  CHECK(links, links.error().message);
  links_ = std::move(*links);
  auto entry = host::find_entry(ready_.proto->module());
  CHECK(entry, entry.error().message);
  entry_ = std::move(*entry);
}

uint32_t Prober::table_index(std::string_view function) const {
  const auto found = std::ranges::find(names_, function);
  CHECK(found != names_.end(), function);
  return static_cast<uint32_t>(found - names_.begin());
}

void Prober::write(const Probe& probe, uint8_t* memory) const {
  CHECK(probe.steps.size() <= kStepsMax, probe.steps.size());
  for (const Placed& placed : probe.memory) {
    if (placed.address >= kMemoryBytes) continue;
    std::memcpy(memory + placed.address, placed.bytes.data(),
                std::min<size_t>(placed.bytes.size(), kMemoryBytes - placed.address));
  }
  const auto count = static_cast<uint32_t>(probe.steps.size());
  const uint32_t closes = probe.malloc_closes_calls;
  std::memcpy(memory + kStepCount, &count, sizeof(count));
  std::memcpy(memory + kMallocCloses, &closes, sizeof(closes));
  for (size_t i = 0; i < probe.steps.size(); ++i) {
    const Step& step = probe.steps[i];
    StepRecord record;
    record.table_index = table_index(step.function);
    record.repeat = step.repeat;
    CHECK(step.operands.size() <= std::size(record.operands), step.function);
    for (auto& to : record.operands) to.added = kZero;
    for (size_t j = 0; j < step.operands.size(); ++j) {
      record.operands[j].value = step.operands[j].value;
      if (const auto from = step.operands[j].added_to)
        record.operands[j].added =
            static_cast<uint32_t>(kRecords + *from * sizeof(StepRecord) + offsetof(StepRecord, given));
    }
    std::memcpy(memory + kRecords + i * sizeof(record), &record, sizeof(record));
  }
}

Bytes Prober::memory_of(const Probe& probe) const {
  Bytes memory(kMemoryBytes);
  write(probe, memory.data());
  return memory;
}

Probed Prober::run(const Probe& probe, host::CallSetup setup, std::chrono::milliseconds time_max,
                   const std::function<void(std::function<void()>)>& on_start) {
  auto state = host::HostState::make(std::move(setup));
  CHECK(state, state.error().message);
  Probed probed;
  probed.state = std::move(*state);
  const auto faaslet = testing::restore(ready_, links_, &probed.state);
  CHECK(faaslet->memory_bytes() == kMemoryBytes);
  write(probe, faaslet->memory());
  probed.before.assign(faaslet->memory(), faaslet->memory() + kMemoryBytes);

  faaslet::Seat& seat = testing::seat();
  const uint64_t generation = seat.begin_call();
  const auto begin = faaslet::Clock::now();
  {
    const auto guard = watchdog_.watch(seat, generation, begin + time_max);
    if (on_start) on_start([&seat, generation] { seat.interrupt(generation); });
    probed.result = host::run(*faaslet, probed.state, seat, entry_, {.deadline = begin + time_max});
  }
  seat.end_call();
  probed.took = faaslet::Clock::now() - begin;

  probed.after.assign(faaslet->memory(), faaslet->memory() + faaslet->memory_bytes());
  for (size_t i = 0; i < probe.steps.size(); ++i) {
    StepRecord record;
    std::memcpy(&record, probed.after.data() + kRecords + i * sizeof(record), sizeof(record));
    if (record.returned < probe.steps[i].repeat) break;
    probed.given.push_back(record.given);
  }
  return probed;
}

std::unique_ptr<faaslet::Faaslet> Prober::neighbour(ByteSpan bytes, host::HostState& state) {
  auto faaslet = testing::restore(ready_, links_, &state);
  for (uint32_t i = 0; i + bytes.size() <= kMemoryBytes; i += static_cast<uint32_t>(bytes.size()))
    std::memcpy(faaslet->memory() + i, bytes.data(), bytes.size());
  return faaslet;
}

}  // namespace spore::security
