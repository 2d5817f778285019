#include "leak/modules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

namespace spore::leak {

namespace {

struct MemorySpec {
  uint64_t min = 0;
  uint64_t max = 0;
  uint64_t size = 0;                   // when check() looks
  std::map<uint64_t, uint64_t> words;  // what 8 bytes are to be, by address
};

struct TableSpec {
  uint64_t min = 0;
  uint64_t max = 0;
  uint64_t size = 0;
  bool functions = true;                // else externref
  std::map<uint64_t, uint32_t> filled;  // functions by entry; $answer{number} gives 100 + number
};

enum class GlobalKind { kI32, kI64, kV128, kFuncRef };
struct GlobalSpec {
  GlobalKind kind = GlobalKind::kI64;
  uint64_t value = 0;  // kV128: both halves. kFuncRef: 0 null, else $answer{value - 1}
};

struct SegmentSpec {
  uint64_t word = 0;
  bool dropped = false;  // by the initialiser
};

constexpr uint32_t kAnswers = 4;
constexpr uint64_t kSegmentBytes = 8;

std::string bytes_of(uint64_t word) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += fmt::format("\\{:02x}", (word >> (8 * i)) & 0xff);
  return text;
}

class Writer {
 public:
  explicit Writer(uint64_t seed) : random_(seed) {}
  ModuleText write();

 private:
  void choose();
  void declare();
  void write_initialiser();
  void write_check();
  void write_steps();
  void write_endings();
  void step(const std::string& body) { steps_.push_back(body); }

  template <class... Args>
  void out(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  std::string memory_bytes(size_t memory) const { return fmt::format("(call $bytes{})", memory); }
  // An address in that memory, from the local $r, with room for 8 bytes.
  std::string address(size_t memory) const { return fmt::format("(call $address{} (local.get $r))", memory); }
  static std::string constant_of(const GlobalSpec& global);

  Random random_;
  std::string text_;
  std::vector<MemorySpec> memories_;
  std::vector<TableSpec> tables_;
  std::vector<GlobalSpec> globals_;
  std::vector<SegmentSpec> segments_;  // passive data
  bool elements_dropped_ = false;
  bool initialiser_ = false;
  std::vector<std::string> steps_;
};

void Writer::choose() {
  constexpr std::array<uint64_t, 10> kSizes = {1, 1, 2, 5, 16, 17, 64, 100, 256, 1024};
  initialiser_ = random_.one_in(2);
  if (!random_.one_in(8)) {
    MemorySpec& memory = memories_.emplace_back();
    memory.min = random_.one_in(12) ? 0 : kSizes[random_.below(kSizes.size())];
    memory.max = memory.min + std::array<uint64_t, 4>{0, 3, 40, 600}[random_.below(4)];
    if (random_.one_in(3)) {
      const uint64_t others = 1 + random_.below(5);
      // Memories that are as large as they may get lie next to each other.
      const bool tight = random_.one_in(2);
      for (uint64_t i = 0; i < others; ++i) {
        MemorySpec& other = memories_.emplace_back();
        other.min = random_.below(tight ? 3 : 20);
        other.max = other.min + (tight ? random_.below(2) : random_.below(30));
      }
    }
  }
  for (MemorySpec& memory : memories_) {
    memory.size = memory.min;
    for (uint64_t i = 0; memory.size > 0 && i < 4; ++i) {
      // Not across each other, now and then across pages.
      uint64_t address = random_.below(memory.size * 65536 / 16) * 16;
      if (i == 0 && memory.size * 65536 > 4096) address = 4096 * (1 + random_.below(memory.size * 16 - 1)) - 4;
      const auto next = memory.words.lower_bound(address > 8 ? address - 8 : 0);
      if (next == memory.words.end() || next->first >= address + 8) memory.words[address] = random_.next();
    }
  }
  for (uint64_t i = random_.below(4); i > 0; --i) {
    TableSpec& table = tables_.emplace_back();
    table.functions = random_.one_in(4) ? false : true;
    table.min = random_.below(random_.one_in(4) ? 3000 : 12);
    table.max = table.min + random_.below(random_.one_in(3) ? 20'000 : 20);
    table.size = table.min;
    if (table.functions && table.min > 0)
      for (int j = 0; j < 3; ++j)
        table.filled[random_.below(table.min)] = static_cast<uint32_t>(random_.below(kAnswers));
  }
  for (uint64_t i = random_.below(random_.one_in(4) ? 300 : 8); i > 0; --i) {
    GlobalSpec& global = globals_.emplace_back();
    global.kind = static_cast<GlobalKind>(random_.below(4));
    global.value = global.kind == GlobalKind::kFuncRef ? random_.below(kAnswers + 1)
                   : global.kind == GlobalKind::kI32   ? random_.next() & 0xffff'ffff
                                                       : random_.next();
  }
  for (uint64_t i = random_.below(4); i > 0; --i) segments_.push_back({random_.next(), false});
}

std::string Writer::constant_of(const GlobalSpec& global) {
  switch (global.kind) {
    case GlobalKind::kI32: return fmt::format("(i32.const {})", global.value);
    case GlobalKind::kI64: return fmt::format("(i64.const {})", global.value);
    case GlobalKind::kV128: return fmt::format("(v128.const i64x2 {0} {0})", global.value);
    case GlobalKind::kFuncRef: break;
  }
  return global.value ? fmt::format("(ref.func $answer{})", global.value - 1) : "(ref.null func)";
}

void Writer::declare() {
  out(R"((import "h" "ask" (func $ask (param i32) (result i32))))");
  out(R"((import "h" "grown" (func $grown (param i32 i32 i32))))");
  out(R"((import "h" "wrong" (func $wrong (param i32))))");
  out(R"((import "h" "exit" (func $exit (param i32))))");
  out("(type $answer (func (result i32))) (tag $thrown (param i64 i32)) (tag $other)");
  for (size_t i = 0; i < memories_.size(); ++i) {
    out("(memory {} {})", memories_[i].min, memories_[i].max);
    for (const auto& [at, word] : memories_[i].words)
      out(R"((data (memory {}) (i32.const {}) "{}"))", i, at, bytes_of(word));
  }
  for (size_t i = 0; i < segments_.size(); ++i) out(R"((data $segment{} "{}"))", i, bytes_of(segments_[i].word));
  for (size_t i = 0; i < tables_.size(); ++i) {
    out("(table $table{} {} {} {})", i, tables_[i].min, tables_[i].max, tables_[i].functions ? "funcref" : "externref");
    for (const auto& [entry, function] : tables_[i].filled)
      out("(elem (table $table{}) (i32.const {}) func $answer{})", i, entry, function);
  }
  out("(elem $elements func $answer0 $answer1 $answer2)");
  out("(elem declare func $answer0 $answer1 $answer2 $answer3)");
  constexpr std::array<std::string_view, 4> kTypes = {"i32", "i64", "v128", "funcref"};
  for (size_t i = 0; i < globals_.size(); ++i)
    out("(global $global{} (mut {}) {})", i, kTypes[static_cast<size_t>(globals_[i].kind)], constant_of(globals_[i]));
  for (uint32_t i = 0; i < kAnswers; ++i) out("(func $answer{} (type $answer) (i32.const {}))", i, 100 + i);

  out(R"((func $next (param $r i64) (result i64)
    (local.set $r (i64.xor (local.get $r) (i64.shl (local.get $r) (i64.const 13))))
    (local.set $r (i64.xor (local.get $r) (i64.shr_u (local.get $r) (i64.const 7))))
    (i64.xor (local.get $r) (i64.shl (local.get $r) (i64.const 17)))))");
  // A number below $bound (at most 2^32; 0: 0) out of a random one.
  out(R"((func $below (param $r i64) (param $bound i64) (result i64)
    (i64.shr_u (i64.mul (i64.and (local.get $r) (i64.const 0xffffffff)) (local.get $bound)) (i64.const 32))))");
  for (size_t i = 0; i < memories_.size(); ++i) {
    out("(func $bytes{0} (result i64) (i64.shl (i64.extend_i32_u (memory.size {0})) (i64.const 16)))", i);
    out("(func $address{0} (param $r i64) (result i32)\n"
        "    (i32.wrap_i64 (call $below (local.get $r) (i64.sub (call $bytes{0}) (i64.const 7)))))",
        i);
  }
}

// Changes what the module says, and what check() is to expect with it.
void Writer::write_initialiser() {
  if (!initialiser_) return;
  out(R"((func (export "initialise"))");
  for (size_t i = 0; i < memories_.size(); ++i) {
    MemorySpec& memory = memories_[i];
    if (memory.size < memory.max && random_.one_in(2)) {
      const uint64_t delta = 1 + random_.below(std::min<uint64_t>(memory.max - memory.size, 20));
      out("  (drop (memory.grow {} (i32.const {})))", i, delta);
      memory.size += delta;
    }
    if (memory.size == 0) continue;
    for (int j = 0; j < 3; ++j) {
      const uint64_t address = memory.size * 65536 - 8 * (1 + random_.below(2 * 65536 / 8 / 2));
      const auto near = memory.words.lower_bound(address > 8 ? address - 8 : 0);
      if (near != memory.words.end() && near->first < address + 8) continue;
      memory.words[address] = random_.next();
      out("  (i64.store {} (i32.const {}) (i64.const {}))", i, address, memory.words[address]);
    }
  }
  for (size_t i = 0; i < segments_.size(); ++i) {
    if (!random_.one_in(2)) continue;
    segments_[i].dropped = true;
    out("  (data.drop $segment{})", i);
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    TableSpec& table = tables_[i];
    if (!table.functions || table.size == table.max) continue;
    const uint64_t delta = 1 + random_.below(std::min<uint64_t>(table.max - table.size, 50));
    const auto function = static_cast<uint32_t>(random_.below(kAnswers));
    out("  (drop (table.grow $table{} (ref.func $answer{}) (i32.const {})))", i, function, delta);
    table.filled[table.size + random_.below(delta)] = function;
    table.size += delta;
  }
  if (random_.one_in(2)) {
    elements_dropped_ = true;
    out("  (elem.drop $elements)");
  }
  for (size_t i = 0; i < globals_.size(); ++i) {
    if (!random_.one_in(2)) continue;
    GlobalSpec& global = globals_[i];
    global.value = global.kind == GlobalKind::kFuncRef ? random_.below(kAnswers + 1) : random_.next() & 0x7fff'ffff;
    out("  (global.set $global{} {})", i, constant_of(global));
  }
  out(")");
}

void Writer::write_check() {
  out(R"((func (export "check") (result i32))");
  uint32_t number = 0;
  const auto expect = [&](const std::string& condition) {
    out("  (if (i32.eqz {}) (then (return (i32.const {}))))", condition, ++number);
  };
  for (size_t i = 0; i < memories_.size(); ++i) {
    expect(fmt::format("(i32.eq (memory.size {}) (i32.const {}))", i, memories_[i].size));
    for (const auto& [at, word] : memories_[i].words)
      expect(fmt::format("(i64.eq (i64.load {} (i32.const {})) (i64.const {}))", i, at, word));
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    expect(fmt::format("(i32.eq (table.size $table{}) (i32.const {}))", i, tables_[i].size));
    for (const auto& [entry, function] : tables_[i].filled)
      expect(fmt::format("(i32.eq (call_indirect $table{} (type $answer) (i32.const {})) (i32.const {}))", i, entry,
                         100 + function));
    // One that is empty.
    for (uint64_t entry = 0; entry < tables_[i].min; ++entry) {
      if (tables_[i].filled.contains(entry)) continue;
      expect(fmt::format("(ref.is_null (table.get $table{} (i32.const {})))", i, entry));
      break;
    }
  }
  for (size_t i = 0; i < globals_.size(); ++i) {
    const std::string value = fmt::format("(global.get $global{})", i);
    switch (globals_[i].kind) {
      case GlobalKind::kI32: expect(fmt::format("(i32.eq {} {})", value, constant_of(globals_[i]))); break;
      case GlobalKind::kI64: expect(fmt::format("(i64.eq {} {})", value, constant_of(globals_[i]))); break;
      case GlobalKind::kV128:
        expect(fmt::format("(i32.eqz (v128.any_true (v128.xor {} {})))", value, constant_of(globals_[i])));
        break;
      case GlobalKind::kFuncRef:
        expect(fmt::format("(i32.eq (ref.is_null {}) (i32.const {}))", value, globals_[i].value ? 0 : 1));
        break;
    }
  }
  // Whether a segment is still there is told by using it; that changes memory, as the call does anyhow.
  for (size_t i = 0; i < segments_.size() && !memories_.empty() && memories_[0].size > 0; ++i) {
    if (segments_[i].dropped) continue;
    out("  (memory.init $segment{} (i32.const 16) (i32.const 0) (i32.const {}))", i, kSegmentBytes);
    expect(fmt::format("(i64.eq (i64.load (i32.const 16)) (i64.const {}))", segments_[i].word));
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (!tables_[i].functions || tables_[i].size < 3 || elements_dropped_) continue;
    out("  (table.init $table{} $elements (i32.const 0) (i32.const 0) (i32.const 3))", i);
    expect(fmt::format("(i32.eq (call_indirect $table{} (type $answer) (i32.const 2)) (i32.const 102))", i));
  }
  out("  (i32.const 0))");
}

// Each is one branch of $step, with the random number in $r; $a, $b: i32.
void Writer::write_steps() {
  for (size_t i = 0; i < memories_.size(); ++i) {
    const auto when_there = [&](const std::string& body) {
      step(fmt::format("(if (memory.size {}) (then {}))", i, body));
    };
    const std::string at = address(i);
    const std::string again = "(local.set $r (call $next (local.get $r)))";
    when_there(fmt::format("(i64.store {} {} (local.get $r))", i, at));
    when_there(fmt::format("(v128.store {} (i32.and {} (i32.const -16)) (i64x2.splat (local.get $r)))", i, at));
    when_there(fmt::format("(i32.store8 {} {} (i32.wrap_i64 (i64.shr_u (local.get $r) (i64.const 33))))", i, at));
    // Across a page's border, and at both ends.
    when_there(fmt::format(
        "(i64.store {} (i32.sub (i32.or {} (i32.const 4095)) (i32.const 3)) (local.get $r))", i,
        fmt::format("(i32.wrap_i64 (call $below (local.get $r) (i64.sub {} (i64.const 4100))))", memory_bytes(i))));
    when_there(
        fmt::format("(i64.store {} (i32.const 0) (local.get $r)) "
                    "(i64.store {} (i32.wrap_i64 (i64.sub {} (i64.const 8))) (local.get $r))",
                    i, i, memory_bytes(i)));
    // One byte in each of so many pages, from an address on; seldom in all.
    when_there(fmt::format(
        "(local.set $a {}) {} "
        "(local.set $b (select (i32.const 0x7fffffff) (i32.wrap_i64 (call $below (local.get $r) (i64.const 64))) "
        "  (i64.eqz (i64.and (local.get $r) (i64.const 0x1ff00000000))))) "
        "(loop $pages (i32.store8 {} (local.get $a) (i32.const 0xa5)) "
        "  (local.set $a (i32.add (local.get $a) (i32.const 4096))) "
        "  (br_if $pages (i32.and (i64.lt_u (i64.extend_i32_u (local.get $a)) {}) "
        "    (i32.gt_s (local.tee $b (i32.sub (local.get $b) (i32.const 1))) (i32.const 0)))))",
        at, again, i, memory_bytes(i)));
    // The host writes: a fill of up to 20,000 bytes, a copy.
    when_there(fmt::format(
        "(local.set $a {0}) {1} (local.set $b (i32.wrap_i64 (call $below (local.get $r) (i64.const 20000)))) "
        "(if (i64.gt_u (i64.add (i64.extend_i32_u (local.get $a)) (i64.extend_i32_u (local.get $b))) {2}) "
        "  (then (local.set $b (i32.const 8)))) "
        "(memory.fill {3} (local.get $a) (i32.wrap_i64 (local.get $r)) (local.get $b))",
        at, again, memory_bytes(i), i));
    const size_t other = random_.below(memories_.size());
    when_there(
        fmt::format("(if (memory.size {3}) (then (local.set $a {0}) {1} (memory.copy {2} {3} (local.get $a) {4} "
                    "(i32.const 8))))",
                    at, again, i, other, address(other)));
    const std::string grow = fmt::format(
        "(local.set $a (memory.grow {0} (i32.wrap_i64 (call $below (local.get $r) (i64.const {1}))))) "
        "(if (i32.ne (local.get $a) (i32.const -1)) (then (call $grown (i32.const {0}) (local.get $a) (memory.size "
        "{0})) "
        "  (if (i32.lt_u (local.get $a) (memory.size {0})) (then "
        "    (i64.store {0} (i32.shl (local.get $a) (i32.const 16)) (local.get $r)) "
        "    (i64.store {0} (i32.wrap_i64 (i64.sub {2} (i64.const 8))) (local.get $r)) "
        "    (i64.store {0} (i32.add (i32.shl (local.get $a) (i32.const 16)) (i32.wrap_i64 (call $below (local.get $r) "
        "      (i64.const 65000)))) (local.get $r))))))",
        i, 1 + random_.below(10) * random_.below(10), memory_bytes(i));
    step(grow);
    step(grow);
  }
  for (size_t i = 0; i < segments_.size(); ++i) {
    step(fmt::format("(data.drop $segment{})", i));
  }
  step("(elem.drop $elements)");
  for (size_t i = 0; i < tables_.size(); ++i) {
    const std::string reference =
        tables_[i].functions ? fmt::format("(ref.func $answer{})", random_.below(kAnswers)) : "(ref.null extern)";
    const std::string entry =
        fmt::format("(i32.wrap_i64 (call $below (local.get $r) (i64.extend_i32_u (table.size $table{}))))", i);
    const auto when_there = [&](const std::string& body) {
      step(fmt::format("(if (table.size $table{}) (then {}))", i, body));
    };
    when_there(fmt::format("(table.set $table{} {} {})", i, entry, reference));
    when_there(
        fmt::format("(table.set $table{} {} (ref.null {}))", i, entry, tables_[i].functions ? "func" : "extern"));
    when_there(
        fmt::format("(local.set $a {0}) (table.fill $table{1} (local.get $a) {2} "
                    "(i32.sub (table.size $table{1}) (local.get $a)))",
                    entry, i, reference));
    when_there(fmt::format("(table.copy $table{0} $table{0} (i32.const 0) {1} (i32.const 1))", i, entry));
    step(fmt::format("(drop (table.grow $table{} {} (i32.wrap_i64 (call $below (local.get $r) (i64.const 500)))))", i,
                     reference));
  }
  std::string all_globals;
  for (size_t i = 0; i < globals_.size(); ++i) {
    std::string value;
    switch (globals_[i].kind) {
      case GlobalKind::kI32: value = "(i32.wrap_i64 (local.get $r))"; break;
      case GlobalKind::kI64: value = "(local.get $r)"; break;
      case GlobalKind::kV128: value = "(i64x2.splat (local.get $r))"; break;
      case GlobalKind::kFuncRef: value = fmt::format("(ref.func $answer{})", random_.below(kAnswers)); break;
    }
    all_globals += fmt::format("(global.set $global{} {}) ", i, value);
    if (i < 3) step(fmt::format("(global.set $global{} {})", i, value));
  }
  step(all_globals);
  step("(drop (call $dig (i32.wrap_i64 (call $below (local.get $r) (i64.const 300))) (local.get $r)))");
  // Deep enough for most of the stack, seldom.
  step(
      "(if (i64.eqz (i64.and (local.get $r) (i64.const 0xf00000000))) (then "
      "(drop (call $dig (i32.const 12000) (local.get $r)))))");
  step("(call $catch (local.get $r))");
  for (int i = 0; i < 2; ++i)
    step(
        "(local.set $a (i32.wrap_i64 (local.get $r))) "
        "(if (i32.ne (call $ask (local.get $a)) (i32.add (i32.mul (local.get $a) (i32.const 3)) (i32.const 1))) "
        "(then (call $wrong (i32.const 1000))))");
}

void Writer::write_endings() {
  // Frames with locals that live across the call; `rotl` keeps it from becoming a loop.
  out(R"((func $dig (param $depth i32) (param $r i64) (result i64) (local $wide v128)
    (local.set $wide (i64x2.splat (local.get $r)))
    (if (i32.eqz (local.get $depth)) (then (return (local.get $r))))
    (local.set $r (call $next (local.get $r)))
    (i64.rotl (i64.add (call $dig (i32.sub (local.get $depth) (i32.const 1)) (local.get $r))
                       (i64x2.extract_lane 1 (i64x2.add (local.get $wide) (i64x2.splat (local.get $r)))))
              (i64.const 9))))");
  out(R"((func $throw (param $r i64) (throw $thrown (local.get $r) (i32.const 77))))");
  out(R"((func $catch (param $r i64) (local $number i32)
    (block $out (result i64 i32)
      (try (result i64 i32)
        (do (call $throw (local.get $r)) (i64.const 0) (i32.const 0))
        (catch $thrown (br $out))))
    (local.set $number)
    (if (i32.or (i64.ne (local.get $r)) (i32.ne (local.get $number) (i32.const 77)))
      (then (call $wrong (i32.const 1001))))))");
  // Branch k of the br_table leaves k blocks, and so goes to step k.
  out("(func $step (param $r i64) (local $a i32) (local $b i32)");
  for (size_t i = steps_.size(); i-- > 0;) out("(block $begin{}", i);
  std::string targets;
  for (size_t i = 0; i < steps_.size(); ++i) targets += fmt::format("$begin{} ", i);
  out("  (br_table {} (i32.rem_u (i32.wrap_i64 (i64.shr_u (local.get $r) (i64.const 45))) (i32.const {})))", targets,
      steps_.size());
  for (const std::string& body : steps_) out(") {} (return)", body);
  out(")");
  const std::string outside =
      memories_.empty() ? "unreachable" : fmt::format("(i64.store (i32.wrap_i64 {}) (i64.const 1))", memory_bytes(0));
  out(R"((func $finish (param $ending i32)
    (block $divide (block $exit (block $exception (block $overflow (block $loop (block $outside (block $unreachable
      (block $return (br_table $return $unreachable $outside $loop $overflow $exception $divide $exit (local.get $ending)))
      (return))
      unreachable)
      {} (return))
      (loop $for_ever (br $for_ever)))
      (drop (call $dig (i32.const -1) (i64.const 5))) (return))
      (call $throw (i64.const 1)) (return))
      (call $exit (i32.const 7)) (return))
      (drop (i32.div_u (local.get $ending) (i32.eqz (local.get $ending))))))",
      outside);
  out(R"((func (export "act") (param $r i64) (param $steps i32) (param $ending i32)
    (block $done (loop $again
      (br_if $done (i32.eqz (local.get $steps)))
      (local.set $r (call $next (local.get $r)))
      (call $step (local.get $r))
      (local.set $steps (i32.sub (local.get $steps) (i32.const 1)))
      (br $again)))
    (call $finish (local.get $ending))))");
}

ModuleText Writer::write() {
  choose();
  text_ = "(module\n";
  declare();
  write_initialiser();
  write_check();
  write_steps();
  write_endings();
  text_ += ")\n";
  ModuleText module{std::move(text_), "memories", initialiser_};
  for (const MemorySpec& memory : memories_) module.description += fmt::format(" {}/{}", memory.size, memory.max);
  if (memories_.empty()) module.description += " none";
  module.description += ", tables";
  for (const TableSpec& table : tables_) module.description += fmt::format(" {}/{}", table.size, table.max);
  if (tables_.empty()) module.description += " none";
  module.description += fmt::format(", {} globals, {} passive segments", globals_.size(), segments_.size());
  return module;
}

}  // namespace

std::string_view to_string(Ending ending) {
  constexpr std::array<std::string_view, static_cast<size_t>(Ending::kCount)> kNames = {
      "return", "unreachable", "out of bounds", "loop", "stack overflow", "exception", "divide by zero", "exit"};
  return kNames[static_cast<size_t>(ending)];
}

ModuleText make_module(uint64_t seed) { return Writer(seed).write(); }

}  // namespace spore::leak
