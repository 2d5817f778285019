// Guests that move to another slot and another thread at every host call they make compute the same as guests that stay
// where they are. The slots they leave are cleared, so an address of one that generated code had kept would fault.
#include <gtest/gtest.h>

#include <ostream>
#include <thread>

#include "support/runtime.h"

namespace spore::faaslet {
namespace {

// Imports of every guest: step(x) = 3 x + 1; pair(a, b, c) = (c + a, b ^ a); nest(x), which calls the export "inner"
// from within the host and gives what that gives.
struct World {
  bool moves = false;
  bool waiting = false;  // parked once already in the present host call
  uint32_t nested = 0;   // a guest that a host function runs cannot park
  uint64_t calls = 0;
  Seat* seat = nullptr;  // of the present thread
};

// Whether the call is to park first.
bool parks(World& world) {
  if (!world.moves || world.nested > 0) return false;
  return world.waiting = !world.waiting;
}

HostResult step(HostCall& call) {
  auto& world = call.state<World>();
  if (parks(world)) return call.park({});
  ++world.calls;
  call.set_result<uint64_t>(0, call.argument<uint64_t>(0) * 3 + 1);
  return HostResult::kDone;
}

HostResult pair(HostCall& call) {
  auto& world = call.state<World>();
  if (parks(world)) return call.park({});
  ++world.calls;
  const auto a = call.argument<uint32_t>(0);
  const auto b = call.argument<uint64_t>(1);
  const auto c = call.argument<double>(2);
  call.set_result<double>(0, c + a);
  call.set_result<uint64_t>(1, b ^ a);
  return HostResult::kDone;
}

HostResult nest(HostCall& call) {
  auto& world = call.state<World>();
  if (parks(world)) return call.park({});
  ++world.calls;
  const wasm::Cell argument{call.argument<uint64_t>(0), 0};
  ++world.nested;
  const uint32_t inner = testing::exported_function(call.faaslet().module(), "inner");
  const Outcome outcome = call.faaslet().start(*world.seat, inner, {&argument, 1});
  --world.nested;
  if (outcome.kind != Outcome::Kind::kReturned) return call.trap(wasm::TrapKind::kHostCall, outcome.trap.message);
  call.set_result<uint64_t>(0, call.faaslet().result(0).low);
  return HostResult::kDone;
}

constexpr uint64_t kArgument = 7;  // of run
constexpr HostFunction kLinks[] = {step, pair, nest};
constexpr std::string_view kImports = R"((module
  (import "h" "step" (func $step (param i64) (result i64)))
  (import "h" "pair" (func $pair (param i32 i64 f64) (result f64 i64)))
  (import "h" "nest" (func $nest (param i64) (result i64))))";

struct Ended {
  Outcome outcome;
  uint64_t result = 0;
  uint64_t moves = 0;
  uint64_t calls = 0;
  Bytes memory;
};

Slot new_slot() {
  auto slot = Slot::reserve();
  EXPECT_TRUE(slot.has_value());
  return std::move(*slot);
}

// Runs run(argument) on this thread, or, where it moves, from one thread to the next.
Ended run(const testing::Ready& ready, bool moves, uint64_t argument) {
  World world{.moves = moves};
  const auto faaslet = testing::restore(ready, kLinks, &world);
  Slot other = new_slot();
  Ended ended;
  const uint32_t function = testing::exported_function(faaslet->module(), "run");
  const auto piece = [&](Seat& seat, bool first) {
    world.seat = &seat;
    seat.begin_call();
    const wasm::Cell cell{argument, 0};
    ended.outcome = first ? faaslet->start(seat, function, {&cell, 1}) : faaslet->resume(seat);
    seat.end_call();
  };
  if (!moves) {
    piece(testing::seat(), true);
  } else {
    bool first = true;
    do {
      std::thread([&] {
        Seat seat;
        piece(seat, first);
      }).join();
      first = false;
      if (ended.outcome.kind != Outcome::Kind::kParked) break;
      EXPECT_TRUE(faaslet->can_move());
      auto left = faaslet->move_out();
      EXPECT_TRUE(left.has_value() && left->clear().has_value());
      EXPECT_TRUE(faaslet->move_into(std::move(other)).has_value());
      other = std::move(*left);
      ++ended.moves;
    } while (ended.moves < 20'000);
  }
  if (ended.outcome.kind == Outcome::Kind::kReturned) ended.result = faaslet->result(0).low;
  ended.calls = world.calls;
  ended.memory.assign(faaslet->memory(), faaslet->memory() + faaslet->memory_bytes());
  return ended;
}

struct Guest {
  std::string_view name;
  std::string_view body;  // the rest of the module; run is (i64) -> i64
  uint64_t moves_min = 1;
  wasm::TrapKind trap = wasm::TrapKind::kNone;  // that run ends with
};

constexpr Guest kGuests[] = {
    {"Recursion", R"(
  (func $tree (param $depth i64) (param $x i64) (result i64) (local $left i64) (local $kept i64)
    (local.set $kept (i64.mul (local.get $x) (i64.const 0x9e3779b97f4a7c15)))
    (local.set $x (call $step (local.get $x)))
    (if (i64.eqz (local.get $depth)) (then (return (i64.xor (local.get $x) (local.get $kept)))))
    (local.set $left (call $tree (i64.sub (local.get $depth) (i64.const 1)) (local.get $x)))
    (i64.rotl (i64.add (i64.mul (local.get $left) (local.get $kept))
      (call $tree (i64.sub (local.get $depth) (i64.const 1)) (i64.add (local.get $left) (local.get $x)))) (i64.const 7)))
  (func (export "run") (param i64) (result i64) (call $tree (local.get 0) (i64.const 3))))",
     255},
    {"DeepStack", R"(
  (func $down (param $depth i64) (param $x i64) (result i64)
    (if (i64.eqz (local.get $depth)) (then (return (call $step (local.get $x)))))
    (i64.rotl (i64.xor (call $down (i64.sub (local.get $depth) (i64.const 1)) (i64.add (local.get $x) (local.get $depth)))
      (local.get $x)) (i64.const 3)))
  (func (export "run") (param i64) (result i64)
    (i64.add (call $down (i64.const 40000) (local.get 0)) (call $down (i64.const 20000) (local.get 0)))))",
     2},
    {"ManyLiveValues", R"((memory 1)
  (func (export "run") (param $n i64) (result i64)
    (local $a i64) (local $b i64) (local $c i64) (local $d i64) (local $e i64) (local $f i64) (local $g i64) (local $h i64)
    (local $i i64) (local $j i64) (local $k i64) (local $l i64) (local $p f64) (local $q f64) (local $r f64) (local $s f32)
    (local $v v128) (local $w v128) (local $x i64)
    (local.set $a (local.get $n)) (local.set $p (f64.const 1.25)) (local.set $s (f32.const 0.1))
    (local.set $n (i64.const 200))
    (loop $again
      (local.set $x (call $step (i64.add (local.get $a) (local.get $l))))
      (local.set $b (i64.add (local.get $a) (local.get $x))) (local.set $c (i64.xor (local.get $b) (local.get $d)))
      (local.set $d (i64.mul (local.get $c) (i64.const 31))) (local.set $e (i64.sub (local.get $e) (local.get $d)))
      (local.set $f (i64.rotl (local.get $e) (i64.const 5))) (local.set $g (i64.add (local.get $g) (local.get $f)))
      (local.set $h (i64.xor (local.get $h) (local.get $g))) (local.set $i (i64.add (local.get $i) (local.get $h)))
      (local.set $j (i64.or (local.get $i) (local.get $c))) (local.set $k (i64.add (local.get $k) (local.get $j)))
      (local.set $l (i64.xor (local.get $l) (local.get $k))) (local.set $a (i64.add (local.get $a) (local.get $l)))
      (local.set $q (f64.add (f64.mul (local.get $p) (f64.const 1.0000001)) (f64.convert_i64_s (local.get $n))))
      (local.set $r (f64.div (local.get $q) (f64.add (local.get $p) (f64.const 3))))
      (local.set $p (f64.sqrt (f64.add (local.get $q) (local.get $r))))
      (local.set $s (f32.mul (local.get $s) (f32.const 1.01)))
      (local.set $v (i64x2.add (local.get $v) (i64x2.splat (local.get $a))))
      (local.set $w (i32x4.mul (local.get $v) (i32x4.sub (local.get $w) (local.get $v))))
      (i64.store (i32.and (i32.wrap_i64 (local.get $a)) (i32.const 0xfff8)) (local.get $j))
      (br_if $again (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
    (i64.xor (i64.xor (local.get $a) (i64.reinterpret_f64 (local.get $p)))
      (i64.xor (i64.extend_i32_u (i32.reinterpret_f32 (local.get $s)))
        (i64.add (i64x2.extract_lane 0 (local.get $w)) (i64x2.extract_lane 1 (local.get $v)))))))",
     200},
    {"Simd", R"((memory 2) (data (i32.const 0) "some bytes that are shuffled and added, again and again")
  (global $sum (mut v128) (v128.const i64x2 1 2))
  (func (export "run") (param $x i64) (result i64) (local $at i32) (local $one v128) (local $two v128)
    (loop $again
      (local.set $one (v128.load (local.get $at)))
      (local.set $two (i8x16.shuffle 3 2 1 0 7 6 5 4 16 17 18 19 31 30 29 28 (local.get $one) (local.get $two)))
      (local.set $x (call $step (i64.add (local.get $x) (i64x2.extract_lane 1 (local.get $two)))))
      (global.set $sum (i8x16.add_sat_u (global.get $sum) (i8x16.swizzle (local.get $two) (local.get $one))))
      (v128.store offset=70000 (local.get $at) (f32x4.convert_i32x4_s (i16x8.mul (local.get $two) (local.get $one))))
      (local.set $two (i64x2.add (local.get $two) (i64x2.splat (local.get $x))))
      (br_if $again (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (i32.const 1600))))
    (i64.xor (local.get $x) (i64.xor (i64x2.extract_lane 0 (global.get $sum)) (i64x2.extract_lane 1 (local.get $two))))))",
     100},
    {"CallIndirect", R"(
  (type $op (func (param i64 i64) (result i64)))
  (table $t 4 funcref) (elem (i32.const 0) func $add $mul $turn $deeper) (global $ref (mut funcref) (ref.func $mul))
  (func $add (type $op) (i64.add (call $step (local.get 0)) (local.get 1)))
  (func $mul (type $op) (i64.mul (local.get 0) (i64.or (call $step (local.get 1)) (i64.const 1))))
  (func $turn (type $op) (i64.rotl (local.get 0) (call $step (local.get 1))))
  (func $deeper (type $op) (local $kept funcref) (local $r i64)
    (if (i64.eqz (local.get 1)) (then (return (local.get 0))))
    (local.set $kept (table.get $t (i32.const 1)))
    (table.set $t (i32.const 1) (table.get $t (i32.const 2)))
    (local.set $r (call_indirect $t (type $op) (local.get 0) (local.get 1) (i32.wrap_i64 (i64.rem_u (local.get 1) (i64.const 3)))))
    (table.set $t (i32.const 2) (local.get $kept))
    (i64.xor (local.get $r) (call_indirect $t (type $op) (local.get $r) (i64.sub (local.get 1) (i64.const 1)) (i32.const 3))))
  (func (export "run") (param i64) (result i64) (call $deeper (local.get 0) (i64.const 60))))",
     60},
    {"Exceptions", R"(
  (tag $one (param i64)) (tag $two (param i32 v128 i64)) (global $seen (mut i64) (i64.const 0))
  (func $thrower (param $x i64) (result i64)
    (local.set $x (call $step (local.get $x)))
    (if (i64.eqz (i64.rem_u (local.get $x) (i64.const 3))) (then (throw $one (local.get $x))))
    (if (i64.eqz (i64.rem_u (local.get $x) (i64.const 2)))
      (then (throw $two (i32.const 9) (i64x2.splat (local.get $x)) (i64.mul (local.get $x) (i64.const 11)))))
    (local.get $x))
  (func $between (param $x i64) (result i64) (local $kept i64)
    (local.set $kept (i64.mul (local.get $x) (i64.const 1000003)))
    (try (result i64)
      (do (i64.add (call $thrower (local.get $x)) (local.get $kept)))
      (catch $one (drop) (global.set $seen (i64.add (global.get $seen) (call $step (local.get $kept)))) (rethrow 0))))
  (func $catcher (param $x i64) (result i64) (local $n i32) (local $v v128) (local $y i64)
    (block $two (result i32 v128 i64)
      (block $one (result i64)
        (return (try (result i64)
          (do (call $between (local.get $x)))
          (catch $one (br $one)) (catch $two (br $two)))))
      (return (i64.add (call $step) (local.get $x))))
    (local.set $y) (local.set $v) (local.set $n)
    (i64.add (i64.add (local.get $y) (i64.extend_i32_u (local.get $n)))
      (call $step (i64.xor (i64x2.extract_lane 1 (local.get $v)) (local.get $x)))))
  (func $cleanup (param $x i64) (result i64)
    (try (result i64)
      (do (call $catcher (call $between (local.get $x))))
      (catch_all (i64.add (local.get $x) (call $step (i64.const 77))))))
  (func (export "run") (param $x i64) (result i64) (local $n i32)
    (local.set $n (i32.const 60))
    (loop $again
      (local.set $x (i64.add (call $catcher (local.get $x)) (call $cleanup (i64.extend_i32_u (local.get $n)))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (i64.xor (local.get $x) (global.get $seen))))",
     150},
    {"ManyParametersAndResults", R"(
  (func $many (param i32 i64 i32 i64 i32 i64 i64 i64 i64 i32) (param f64 f64 f32 f64 f64 f64 f64 f64 f64 f64 f32) (param v128 v128)
    (result i64 f64 v128 i32)
    (i64.add (i64.add (local.get 1) (local.get 6)) (i64.mul (call $step (local.get 8)) (i64.extend_i32_u (local.get 9))))
    (f64.add (f64.mul (local.get 10) (local.get 19)) (f64.promote_f32 (f32.add (local.get 12) (local.get 20))))
    (i32x4.add (local.get 21) (i32x4.mul (local.get 22) (i32x4.splat (i32.wrap_i64 (call $step (local.get 7))))))
    (i32.add (local.get 0) (local.get 4)))
  (func $both (param $x i64) (result i64) (local $f f64) (local $i i64) (local $n i32) (local $v v128)
    (call $pair (i32.wrap_i64 (local.get $x)) (local.get $x) (f64.convert_i64_u (i64.and (local.get $x) (i64.const 0xffff))))
    (local.set $i) (local.set $f)
    (call $many (i32.const 1) (local.get $i) (i32.const 2) (i64.const 3) (i32.const 4) (i64.const 5) (local.get $x) (local.get $i)
      (i64.const 8) (i32.wrap_i64 (local.get $x)) (local.get $f) (f64.const 2) (f32.const 3) (f64.const 4) (f64.const 5) (f64.const 6)
      (f64.const 7) (f64.const 8) (f64.const 9) (local.get $f) (f32.const 0.5) (i64x2.splat (local.get $x)) (i64x2.splat (local.get $i)))
    (local.set $n) (local.set $v) (local.set $f)
    (i64.add (i64.add (i64.xor (i64.reinterpret_f64 (local.get $f))) (i64.extend_i32_u (local.get $n)))
      (i64x2.extract_lane 1 (local.get $v))))
  (func (export "run") (param $x i64) (result i64) (local $n i32)
    (local.set $n (i32.const 40))
    (loop $again (local.set $x (call $both (local.get $x)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x)))",
     120},
    {"TailCalls", R"(
  (func $even (param $n i64) (param $x i64) (result i64)
    (if (i64.eqz (local.get $n)) (then (return (local.get $x))))
    (return_call $odd (i64.sub (local.get $n) (i64.const 1)) (call $step (local.get $x))))
  (func $odd (param $n i64) (param $x i64) (result i64)
    (if (i64.eqz (local.get $n)) (then (return (i64.xor (local.get $x) (i64.const -1)))))
    (return_call $even (i64.sub (local.get $n) (i64.const 1)) (i64.add (call $step (local.get $x)) (local.get $n))))
  (func (export "run") (param i64) (result i64) (call $even (i64.const 101) (local.get 0))))",
     101},
    {"NestedEntries", R"(
  (global $depth (mut i64) (i64.const 0))
  (func (export "inner") (param $x i64) (result i64) (local $kept i64)
    (local.set $kept (i64.mul (local.get $x) (i64.const 77)))
    (global.set $depth (i64.add (global.get $depth) (i64.const 1)))
    (if (i64.eqz (local.get $x)) (then (return (i64.const 1))))
    (i64.xor (local.get $kept) (call $step (call $nest (i64.sub (local.get $x) (i64.const 1))))))
  (func (export "run") (param $x i64) (result i64) (local $n i64) (local $kept i64)
    (local.set $n (i64.const 20))
    (loop $again
      (local.set $kept (i64.rotl (i64.add (local.get $kept) (local.get $x)) (i64.const 11)))
      (local.set $x (i64.add (call $step (call $nest (local.get $n))) (local.get $kept)))
      (br_if $again (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
    (i64.add (local.get $x) (global.get $depth))))",
     40},
    {"GrowingMemoriesAndTables",
     R"((memory 1 200) (memory 1 60) (table $t 1 2000 funcref) (data $later "0123456789abcdef")
  (elem declare func $one) (func $one (result i64) (i64.const 41))
  (func (export "run") (param $x i64) (result i64) (local $at i32) (local $n i32)
    (local.set $n (i32.const 40))
    (loop $again
      (local.set $at (i32.shl (memory.grow (i32.const 2)) (i32.const 16)))
      (local.set $x (call $step (local.get $x)))
      (i64.store (local.get $at) (local.get $x)) (i64.store offset=65000 (local.get $at) (local.get $x))
      (memory.init $later (i32.add (local.get $at) (i32.const 99)) (i32.const 3) (i32.const 9))
      (drop (memory.grow 1 (i32.const 1)))
      (i64.store 1 (i32.mul (local.get $n) (i32.const 1024)) (call $step (i64.load offset=96 (local.get $at))))
      (memory.copy 0 1 (i32.add (local.get $at) (i32.const 4093)) (i32.const 0) (i32.const 50000))
      (memory.fill (i32.add (local.get $at) (i32.const 60000)) (i32.wrap_i64 (local.get $x)) (i32.const 4000))
      (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (table.grow $t (ref.func $one) (i32.const 3)))))
      (local.set $x (i64.add (call $step (local.get $x)) (call_indirect $t (result i64) (i32.sub (table.size $t) (i32.const 1)))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (data.drop $later)
    (i64.add (call $step (local.get $x)) (i64.extend_i32_u (i32.add (memory.size) (memory.size 1))))))",
     121},
    {"Switches", R"((memory 1)
  (func (export "run") (param $x i64) (result i64) (local $n i32)
    (local.set $n (i32.const 150))
    (loop $again
      (block $end (block $e (block $d (block $c (block $b (block $a
        (br_table $a $b $c $d $e $a $b $end (i32.wrap_i64 (i64.and (call $step (local.get $x)) (i64.const 7)))))
        (local.set $x (i64.add (local.get $x) (i64.const 17))) (br $end))
        (local.set $x (call $step (i64.mul (local.get $x) (i64.const 5)))) (br $end))
        (i64.store (i32.const 80) (call $step (local.get $x))) (br $end))
        (local.set $x (i64.xor (local.get $x) (i64.load (i32.const 80)))) (br $end))
        (local.set $x (i64.div_u (call $step (local.get $x)) (i64.const 3))))
      (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (local.get $n))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x)))",
     150},
    {"WalksThroughMemory", R"((memory 4)
  (func (export "run") (param $x i64) (result i64) (local $p i32) (local $end i32)
    (loop $fill (i32.store (local.get $p) (i32.mul (local.get $p) (i32.const 2654435761)))
      (br_if $fill (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 4))) (i32.const 262144))))
    (local.set $p (i32.const 1000)) (local.set $end (i32.const 3000))
    (loop $sum
      (local.set $x (i64.add (call $step (i64.add (local.get $x) (i64.load32_u (local.get $p))))
        (i64.add (i64.load offset=8 (local.get $p)) (i64.load16_s offset=100000 (local.get $p)))))
      (i64.store offset=200000 (local.get $p) (local.get $x))
      (br_if $sum (i32.lt_u (local.tee $p (i32.add (local.get $p) (i32.const 12))) (local.get $end))))
    (local.get $x)))",
     160},
    {"TrapsAfterMoves", R"((memory 1)
  (func $inner (param $x i64) (result i64) (i64.div_u (i64.const 1) (i64.sub (call $step (local.get $x)) (i64.const 22))))
  (func (export "run") (param $x i64) (result i64)
    (i64.add (i64.add (call $step (i64.const 1)) (call $inner (i64.const 5))) (call $inner (local.get $x)))))",
     3, wasm::TrapKind::kIntegerDivideByZero},
    {"ThrowsPastTheHost", R"((tag $t (param i64))
  (func $inner (param $x i64) (result i64) (throw $t (call $step (local.get $x))))
  (func (export "run") (param $x i64) (result i64) (i64.add (call $step (i64.const 1)) (call $inner (local.get $x)))))",
     2, wasm::TrapKind::kUncaughtException},
};

std::string text_of(const Guest& guest) { return std::string(kImports) + std::string(guest.body) + ")"; }

struct Case {
  Guest guest;
  wasm::CpuLevel level;
  bool hardened = false;

  std::string name() const {
    return std::string(guest.name) + (level == wasm::CpuLevel::kV2 ? "V2" : "V3") + (hardened ? "Hardened" : "");
  }
};

void PrintTo(const Case& shown, std::ostream* out) { *out << shown.name(); }

std::vector<Case> cases() {
  const auto best = wasm::cpu_level_of_this_machine();
  std::vector<Case> all;
  for (const Guest& guest : kGuests)
    for (const wasm::CpuLevel level : {wasm::CpuLevel::kV2, wasm::CpuLevel::kV3})
      for (const bool hardened : {false, true})
        if (best && level <= *best) all.push_back({guest, level, hardened});
  return all;
}

class Migrate : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Guests, Migrate, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name(); });

TEST_P(Migrate, AtEveryHostCallChangesNothing) {
  const Guest& guest = GetParam().guest;
  const std::string text = text_of(guest);
  const auto ready = testing::prepare(
      text, {.tier = wasm::Tier::kOptimised, .cpu_level = GetParam().level, .hardened = GetParam().hardened});
  ASSERT_TRUE(ready.has_value()) << ready.error().message;
  const Ended stayed = run(*ready, false, kArgument);
  const Ended moved = run(*ready, true, kArgument);
  EXPECT_EQ(stayed.moves, 0u);
  EXPECT_GE(moved.moves, guest.moves_min);
  EXPECT_EQ(moved.outcome.kind, stayed.outcome.kind) << moved.outcome.trap.message << stayed.outcome.trap.message;
  const bool traps = guest.trap != wasm::TrapKind::kNone;
  EXPECT_EQ(stayed.outcome.kind, traps ? Outcome::Kind::kTrapped : Outcome::Kind::kReturned);
  EXPECT_EQ(stayed.outcome.trap.kind, guest.trap);
  EXPECT_EQ(moved.outcome.trap.kind, stayed.outcome.trap.kind);
  EXPECT_EQ(moved.outcome.trap.message, stayed.outcome.trap.message);
  ASSERT_EQ(moved.outcome.trap.stack.size(), stayed.outcome.trap.stack.size());
  for (size_t i = 0; i < stayed.outcome.trap.stack.size(); ++i)
    EXPECT_EQ(moved.outcome.trap.stack[i].code_offset, stayed.outcome.trap.stack[i].code_offset);
  EXPECT_EQ(moved.result, stayed.result);
  EXPECT_EQ(moved.calls, stayed.calls);
  EXPECT_EQ(moved.memory, stayed.memory);
}

// The fast tier keeps the base in a register; its guests stay until their call has ended.
TEST(MigrateFastTier, MovesBetweenCallsOnly) {
  const std::string text = text_of(kGuests[0]);
  const auto ready = testing::prepare(text, {.tier = wasm::Tier::kFast});
  ASSERT_TRUE(ready.has_value()) << ready.error().message;
  World world{.moves = true};
  const auto faaslet = testing::restore(*ready, kLinks, &world);
  EXPECT_TRUE(faaslet->can_move());
  const wasm::Cell zero;
  ASSERT_EQ(testing::call(*faaslet, "run", {&zero, 1}).kind, Outcome::Kind::kParked);
  EXPECT_FALSE(faaslet->can_move());
  ASSERT_TRUE(faaslet->reset());
  EXPECT_TRUE(faaslet->can_move());
}

}  // namespace
}  // namespace spore::faaslet
