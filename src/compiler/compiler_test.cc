#include "compiler/compiler.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/runtime.h"

namespace spore::compiler {
namespace {

using testing::prepare;
using testing::restore;
using testing::wasm_from_text;
using wasm::Cell;
using wasm::Tier;

// Many functions, so that there are several parts.
Bytes large_module() {
  std::string text = "(module (memory 1) (global $g (mut i32) (i32.const 0)) (table 64 funcref)";
  for (int i = 0; i < 2000; ++i) {
    const std::string n = std::to_string(i);
    text += "(func $f" + n +
            " (param i32 i64 f64) (result i64) (local $x i64)"
            "(local.set $x (i64.add (local.get 1) (i64.const " +
            n +
            ")))"
            "(loop $l (i64.store (local.get 0) (i64.rotl (i64.load offset=8 (local.get 0)) (local.get $x)))"
            "(local.set 0 (i32.add (local.get 0) (i32.const 8)))"
            "(global.set $g (i32.xor (global.get $g) (i32.trunc_sat_f64_s (f64.mul (local.get 2) (f64.const " +
            n +
            ")))))"
            "(br_if $l (i32.lt_u (local.get 0) (i32.const 4096))))"
            "(call $f" +
            std::to_string((i * 7 + 1) % 2000) + " (local.get 0) (local.get $x) (local.get 2)))";
  }
  return wasm_from_text(text + ")");
}

TEST(Compiler, AnyNumberOfThreadsGivesTheSameBytes) {
  const Bytes module = large_module();
  for (Tier tier : {Tier::kFast, Tier::kOptimised}) {
    Options options;
    options.tier = tier;
    const auto one = compile(module, options);
    options.threads = 4;
    const auto four = compile(module, options);
    ASSERT_TRUE(one.has_value() && four.has_value());
    EXPECT_EQ(wasm::serialize(*one), wasm::serialize(*four)) << wasm::to_string(tier);
  }
}

TEST(Compiler, ProgressRisesToOne) {
  std::vector<double> shares;
  ASSERT_TRUE(compile(large_module(), {.tier = Tier::kFast}, [&](double share) { shares.push_back(share); }));
  ASSERT_GT(shares.size(), 1u);
  EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end()));
  EXPECT_EQ(shares.back(), 1.0);
}

TEST(Compiler, AMalformedModuleIsRefusedWithItsByteOffset) {
  Bytes module = wasm_from_text("(module (func (result i32) (i32.const 1)))");
  module.resize(module.size() - 4);
  const auto result = compile(module, {});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidModule);
  EXPECT_NE(result.error().message.find("at byte 0x"), std::string::npos) << result.error().message;
}

TEST(Compiler, EveryTruncationIsRefusedOrCompiles) {
  const Bytes module = wasm_from_text(R"((module (memory 1) (table 1 funcref) (elem (i32.const 0) 0)
    (data (i32.const 0) "abc") (func (export "f") (param i32) (result i32) (i32.load8_u (local.get 0)))))");
  size_t refused = 0;
  for (size_t size = 0; size < module.size(); ++size) {
    const auto result = compile(ByteSpan(module).first(size), {.tier = Tier::kFast});
    if (!result) {
      EXPECT_EQ(result.error().code, ErrorCode::kInvalidModule) << size;
      ++refused;
    }
  }
  EXPECT_GT(refused, module.size() - 8);  // a cut between sections may leave a whole, smaller module
}

// A name that runs past its section, and bodies of leftovers: libwabt's tree builder aborted on it. Found by
// decode_fuzz.
TEST(Compiler, AMalformedModuleDoesNotReachTheTreeBuilder) {
  const uint8_t module[] = {
      0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x03, 0x08, 0x07, 0x00, 0x01, 0x04, 0x00, 0x00, 0x01, 0x02,
      0x06, 0x08, 0x01, 0x7f, 0x01, 0x01, 0x80, 0x88, 0x04, 0x0b, 0x0a, 0xff, 0x00, 0x07, 0x48, 0x01, 0x03, 0x7f,
      0x41, 0x21, 0x10, 0x81, 0x80, 0x80, 0x80, 0x00, 0x21, 0x00, 0x41, 0x02, 0x41, 0xdc, 0x00, 0xb8, 0x44, 0x8d,
      0xb5, 0xa0, 0xf7, 0x80, 0x80, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x41, 0x01,
      0x4b, 0x0d, 0x00, 0x0b, 0x0b, 0x20, 0x00, 0x6a, 0x0b, 0x3a, 0x02, 0x40, 0x20, 0x04, 0x0b, 0x02, 0x00, 0x0b,
      0x0e, 0x00, 0x10, 0x84, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x00, 0x00,
      0x80, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x80, 0x80, 0x00, 0xff, 0xff, 0xff, 0xff, 0x80, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x80, 0x0b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0b,
  };
  const auto result = compile(module, {});
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidModule);
}

class Semantics : public ::testing::TestWithParam<Tier> {
 protected:
  uint64_t run(std::string_view text, std::vector<Cell> arguments) {
    Options options;
    options.tier = GetParam();
    const auto ready = prepare(text, options);
    EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
    auto faaslet = restore(*ready);
    const auto outcome = testing::call(*faaslet, "f", arguments);
    EXPECT_EQ(outcome.kind, faaslet::Outcome::Kind::kReturned) << outcome.trap.message;
    return faaslet->result(0).low;
  }
};
INSTANTIATE_TEST_SUITE_P(Tiers, Semantics, ::testing::Values(Tier::kFast, Tier::kOptimised));

// LLVM would take each of these for its operand, and so let a signalling NaN through.
TEST_P(Semantics, SignallingNansAreQuietedByEveryOperation) {
  constexpr uint64_t kSignalling32 = 0x7fa00000, kQuiet32 = 0x00400000;
  constexpr uint64_t kSignalling64 = 0x7ff4000000000000, kQuiet64 = 0x0008000000000000;
  for (const char* body :
       {"(f32.mul (local.get 0) (f32.const 1))", "(f32.mul (f32.const -1) (local.get 0))",
        "(f32.div (local.get 0) (f32.const 1))", "(f32.div (local.get 0) (f32.const -1))",
        "(f32.add (local.get 0) (f32.const -0))", "(f32.sub (local.get 0) (f32.const 0))",
        "(f32.sub (f32.const -0) (local.get 0))", "(f32.min (local.get 0) (f32.const 3))",
        "(f32.max (f32.const 3) (local.get 0))", "(f32.sqrt (local.get 0))", "(f32.ceil (local.get 0))",
        "(f32.nearest (local.get 0))", "(f32.demote_f64 (f64.promote_f32 (local.get 0)))",
        "(f32.demote_f64 (f64.neg (f64.promote_f32 (local.get 0))))"}) {
    const std::string text = std::string("(module (func (export \"f\") (param f32) (result f32) ") + body + "))";
    EXPECT_TRUE(run(text, {{kSignalling32, 0}}) & kQuiet32) << body;
  }
  for (const char* body : {"(f64.mul (local.get 0) (f64.const 1))", "(f64.sub (local.get 0) (f64.const 0))",
                           "(f64.min (local.get 0) (local.get 0))", "(f64.trunc (local.get 0))"}) {
    const std::string text = std::string("(module (func (export \"f\") (param f64) (result f64) ") + body + "))";
    EXPECT_TRUE(run(text, {{kSignalling64, 0}}) & kQuiet64) << body;
  }
}

TEST_P(Semantics, TailCallsKeepTheStackFlat) {
  EXPECT_EQ(static_cast<uint32_t>(run(R"((module
    (func $odd (param i64 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
      (if (result i32) (i64.eqz (local.get 0)) (then (i32.const 0))
        (else (return_call $even (i64.sub (local.get 0) (i64.const 1))))))
    (func $even (param i64) (result i32)
      (if (result i32) (i64.eqz (local.get 0)) (then (i32.const 1))
        (else (return_call $odd (i64.sub (local.get 0) (i64.const 1))
          (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5) (i32.const 6) (i32.const 7)
          (i32.const 8)))))
    (func (export "f") (result i32) (call $even (i64.const 3000000)))))",
                                      {})),
            1u);
}

TEST_P(Semantics, ManyParametersAndResultsTravel) {
  std::string params, results, body;
  for (int i = 0; i < 60; ++i) {
    params += " i64";
    results += " i64";
    body += " (i64.add (local.get " + std::to_string(i) + ") (i64.const " + std::to_string(i) + "))";
  }
  std::string arguments, sum;
  for (int i = 0; i < 60; ++i) arguments += " (i64.const " + std::to_string(i * 100) + ")";
  for (int i = 0; i < 59; ++i) sum += " i64.add";
  const std::string text = "(module (type $wide (func (param" + params + ") (result" + results +
                           "))) (table funcref (elem $g))"
                           "(func $g (type $wide)" +
                           body +
                           ")"
                           "(func (export \"f\") (result i64) (call_indirect (type $wide)" +
                           arguments + " (i32.const 0))" + sum + "))";
  EXPECT_EQ(run(text, {}), static_cast<uint64_t>(59 * 60 / 2 * 101));
}

// ---- what a processor does while it runs ahead ----------------------------------------------------------------------

// The machine code of a module's only function.
Bytes code_of(const std::string& body, bool hardened = false) {
  const auto object =
      compile(wasm_from_text("(module (memory i64 1 2) (table 4 funcref) (type $t (func))" + body + ")"),
              {.hardened = hardened});
  if (!object) ADD_FAILURE() << object.error().message;
  const auto begin = object->code.begin() + (object->functions.back() - wasm::kStubPageBytes);
  return {begin, std::find(begin, object->code.end(), 0xcc)};  // what is behind it
}

bool has(const Bytes& code, std::initializer_list<uint8_t> bytes) { return !std::ranges::search(code, bytes).empty(); }
// How often cmp is directly followed by sbb of a register of 64 bits with itself.
int masks_in(const Bytes& code) {
  int count = 0;
  for (size_t i = 4; i + 3 <= code.size(); ++i) {
    const bool masks = (code[i] == 0x48 || code[i] == 0x4d) && code[i + 1] == 0x19 && code[i + 2] >= 0xc0 &&
                       (code[i + 2] - 0xc0) % 9 == 0;
    const bool compares = code[i - 2] == 0x39 || (code[i - 3] == 0x83 && code[i - 2] >= 0xf8);
    count += masks && compares;
  }
  return count;
}

constexpr const char* kTableJump = R"((func (param i32 i32 i32) (result i32)
  (block (block (block (block (block (br_table 0 1 2 3 2 1 4 (local.get 0)))
    (return (i32.mul (local.get 1) (local.get 2)))) (return (i32.add (local.get 1) (local.get 2))))
    (return (i32.sub (local.get 1) (local.get 2)))) (return (i32.xor (local.get 1) (local.get 2)))) (i32.const 5)))";

TEST(Speculation, NoTableOfJumpsIsReadPastItsEnd) {
  const Bytes code = code_of(kTableJump);
  EXPECT_TRUE(has(code, {0xff, 0xe0}) || has(code, {0xff, 0xe1}) || has(code, {0xff, 0xe2})) << "a jump by a register";
  EXPECT_TRUE(has(code, {0x0f, 0x47})) << "bounded by cmova";
  EXPECT_FALSE(has(code, {0x77})) << "not by ja, which is predicted";
}

TEST(Speculation, NothingIsCalledOrReadThatACheckWouldRefuse) {
  EXPECT_EQ(masks_in(code_of("(func (param i32) (call_indirect (type $t) (local.get 0)))")), 2) << "of index and type";
  EXPECT_EQ(masks_in(code_of("(func (param i32) (result funcref) (table.get 0 (local.get 0)))")), 1) << "of the index";
  EXPECT_EQ(masks_in(code_of("(func (param i64) (result i64) (i64.load (local.get 0)))")), 1) << "of memory64";
  EXPECT_EQ(masks_in(code_of("(func (param i64) (i64.store (local.get 0) (local.get 0)))")), 1) << "of memory64";
}

TEST(Speculation, HardenedCodeStopsAtCallsAndHasNoTables) {
  const char* const calls = "(func $f (param i64) (result i64) (i64.load (call $f (i64.load (local.get 0)))))";
  EXPECT_FALSE(has(code_of(calls), {0x0f, 0xae, 0xe8}));
  EXPECT_TRUE(has(code_of(calls, true), {0x0f, 0xae, 0xe8})) << "lfence";
  const Bytes code = code_of(kTableJump, true);
  EXPECT_FALSE(has(code, {0xff, 0xe0}) || has(code, {0xff, 0xe1}) || has(code, {0xff, 0xe2}));
}

}  // namespace
}  // namespace spore::compiler
