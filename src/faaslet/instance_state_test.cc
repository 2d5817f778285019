#include "faaslet/instance_state.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/runtime.h"

namespace spore::faaslet {
namespace {

constexpr std::string_view kModule = R"((module
  (type $t (func (result i32)))
  (memory (export "memory") 2 10) (memory 1 2)
  (data (i32.const 65530) "across pages") (data $passive "later") (data (memory 1) (i32.const 7) "second")
  (table $t 3 20 funcref) (table 2 externref)
  (elem (table $t) (i32.const 1) func $one) (elem $e func $one $two)
  (global $number (mut i64) (i64.const 5)) (global $ref (mut funcref) (ref.func $two)) (global v128 (v128.const i64x2 1 2))
  (func $one (type $t) (i32.const 1))
  (func $two (type $t) (i32.const 2))
  (func (export "initialise")
    (global.set $number (i64.const 77)) (global.set $ref (ref.func $one))
    (drop (memory.grow (i32.const 3))) (drop (memory.grow 1 (i32.const 1)))
    (i32.store (i32.const 300000) (i32.const 0x12345678)) (i32.store 1 (i32.const 70000) (i32.const 9))
    (memory.init $passive (i32.const 10) (i32.const 0) (i32.const 5)) (data.drop $passive)
    (drop (table.grow $t (ref.func $two) (i32.const 4))) (table.set $t (i32.const 0) (ref.func $one)) (elem.drop $e))
  (func (export "sum") (result i64)
    (i64.add (global.get $number) (i64.extend_i32_u
      (i32.add (i32.add (i32.load (i32.const 300000)) (i32.load8_u (i32.const 10)))
        (i32.add (i32.add (memory.size) (memory.size 1))
          (i32.add (table.size $t) (i32.add (call_indirect $t (type $t) (i32.const 0)) (call_indirect $t (type $t) (i32.const 6)))))))))
  (func (export "drop again") (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 1)))))";
constexpr uint64_t kSum = 77 + 0x12345678 + 'l' + 5 + 2 + 7 + 1 + 2;

const testing::Ready& module(wasm::Tier tier = wasm::Tier::kOptimised) {
  static const auto make = [](wasm::Tier wanted) {
    auto ready = testing::prepare(kModule, {.tier = wanted});
    EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
    return *ready;
  };
  static const testing::Ready optimised = make(wasm::Tier::kOptimised), fast = make(wasm::Tier::kFast);
  return tier == wasm::Tier::kOptimised ? optimised : fast;
}

const Digest& digest() { return module().object->object().module_digest; }

Bytes image_of_initialised(const testing::Ready& ready) {
  const auto faaslet = testing::restore(ready);
  EXPECT_EQ(testing::call(*faaslet, "initialise").kind, Outcome::Kind::kReturned);
  auto state = faaslet->capture();
  EXPECT_TRUE(state.has_value());
  state->initialised = true;
  return serialize(*state, digest());
}

Result<InstanceState> parse(ByteSpan bytes, uint64_t pages_max = wasm::kMemory32PagesMax) {
  return parse_instance_state(bytes, module().object->module(), digest(), pages_max);
}

TEST(InstanceState, WhatWasCapturedGoesOnInAnyTier) {
  const Bytes image = image_of_initialised(module());
  for (const wasm::Tier tier : {wasm::Tier::kOptimised, wasm::Tier::kFast}) {
    const auto state = parse(image);
    ASSERT_TRUE(state.has_value()) << state.error().message;
    EXPECT_TRUE(state->initialised);
    auto proto = ProtoFaaslet::make(module(tier).object, *state);
    ASSERT_TRUE(proto.has_value());
    const auto faaslet = testing::restore({module(tier).object, *proto});
    for (int call = 0; call < 3; ++call) {
      ASSERT_EQ(testing::call(*faaslet, "sum").kind, Outcome::Kind::kReturned);
      EXPECT_EQ(faaslet->result(0).low, kSum);
      EXPECT_EQ(testing::call(*faaslet, "drop again").trap.kind, wasm::TrapKind::kMemoryOutOfBounds);
      EXPECT_EQ(testing::call(*faaslet, "initialise").kind, Outcome::Kind::kTrapped);  // its segment is dropped
      ASSERT_TRUE(faaslet->reset());
    }
  }
}

TEST(InstanceState, TheSameStateGivesTheSameBytesFromAnySource) {
  const Bytes image = image_of_initialised(module());
  EXPECT_EQ(image, image_of_initialised(module()));
  EXPECT_EQ(image, image_of_initialised(module(wasm::Tier::kFast)));
  const auto state = parse(image);
  ASSERT_TRUE(state.has_value());
  const auto proto = ProtoFaaslet::make(module().object, *state);
  ASSERT_TRUE(proto.has_value());
  EXPECT_EQ(image, serialize((*proto)->state(), digest()));
}

TEST(InstanceState, NothingOfTheStackOrOfAddressesIsInIt) {
  const auto faaslet = testing::restore(module());
  testing::call(*faaslet, "sum");
  ASSERT_TRUE(faaslet->reset());
  const auto untouched = testing::restore(module());
  testing::call(*untouched, "sum");
  EXPECT_EQ(serialize(*faaslet->capture(), digest()), serialize(*untouched->capture(), digest()));
}

TEST(InstanceState, ChangedBytesAreRefusedOrHarmless) {
  const Bytes image = image_of_initialised(module());
  for (size_t at = 0; at < image.size(); ++at) {
    Bytes changed = image;
    changed[at] ^= 1 << (at % 8);
    const auto state = parse(changed);
    if (state) EXPECT_TRUE(ProtoFaaslet::make(module().object, *state).has_value());
  }
  for (size_t size = 0; size < image.size(); ++size) EXPECT_FALSE(parse(ByteSpan(image).first(size)).has_value());
}

TEST(InstanceState, RefusalsSayWhatIsWrong) {
  const Bytes image = image_of_initialised(module());
  const auto message = [&](size_t at, uint8_t value, uint64_t pages_max = wasm::kMemory32PagesMax) {
    Bytes changed = image;
    changed[at] = value;
    const auto state = parse(changed, pages_max);
    return state ? std::string() : state.error().message;
  };
  EXPECT_EQ(message(0, 0), "image: it is no image");
  EXPECT_EQ(message(8, 99), "image: its format is version 99, not 1");
  EXPECT_EQ(message(12, 99), "image: its layout is version 99, not " + std::to_string(wasm::kAbiVersion));
  EXPECT_EQ(message(24, static_cast<uint8_t>(image[24] + 1)), "image: it is of another module");
  EXPECT_EQ(message(63, 0xff), "image: it holds more than the module may have");
  EXPECT_EQ(message(8, 1, 4), "image: a memory has an impossible size");
}

}  // namespace
}  // namespace spore::faaslet
