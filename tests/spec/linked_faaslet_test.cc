#include "faaslet/linked_faaslet.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/fd.h"
#include "compiler/compiler.h"
#include "convert.h"

namespace spore::faaslet {
namespace {

namespace fs = std::filesystem;
using wasm::ExternalKind;
using wasm::TrapKind;

class LinkedFaasletTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_TRUE(install_signal_handlers());
    auto arena = CodeArena::reserve(as_bytes("linked faaslet test"));
    ASSERT_TRUE(arena) << arena.error().message;
    arena_ = std::move(*arena);
    seat_ = std::make_unique<Seat>();
  }
  static void TearDownTestSuite() {
    seat_.reset();
    arena_.reset();
  }

  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "spore-linked-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    world_ = std::make_unique<LinkedWorld>(*seat_);
  }
  void TearDown() override {
    world_.reset();
    fs::remove_all(folder_);
  }

  std::shared_ptr<const LoadedObject> load(std::string_view text) {
    const fs::path file = folder_ / "module.wat";
    auto written = write_file_atomically(file, as_bytes(text));
    EXPECT_TRUE(written);
    auto bytes = spec::assemble(file, {}, /*validate=*/true, folder_);
    if (!bytes) {
      ADD_FAILURE() << bytes.error().message;
      return nullptr;
    }
    auto object = compiler::compile(*bytes, {.tier = wasm::Tier::kFast, .cross_instance = true});
    if (!object) {
      ADD_FAILURE() << object.error().message;
      return nullptr;
    }
    auto loaded = arena_->load(std::move(*object));
    EXPECT_TRUE(loaded);
    return loaded ? *loaded : nullptr;
  }

  LinkedFaaslet* add(const std::string& name, std::string_view text) {
    auto made = world_->instantiate(load(text));
    if (!made || made->outcome.kind != Outcome::Kind::kReturned) {
      ADD_FAILURE() << (made ? made->outcome.trap.message : made.error().message);
      return nullptr;
    }
    world_->register_instance(name, *made->instance);
    return made->instance;
  }

  Outcome call(LinkedFaaslet& instance, std::string_view name, std::vector<wasm::Cell> arguments,
               std::span<wasm::Cell> results) {
    const wasm::Export* found = instance.module().find_export(name, ExternalKind::kFunction);
    EXPECT_NE(found, nullptr) << name;
    return world_->call({ExternalKind::kFunction, &instance, found->index}, arguments, results);
  }

  static std::unique_ptr<CodeArena> arena_;
  static std::unique_ptr<Seat> seat_;
  fs::path folder_;
  std::unique_ptr<LinkedWorld> world_;
};
std::unique_ptr<CodeArena> LinkedFaasletTest::arena_;
std::unique_ptr<Seat> LinkedFaasletTest::seat_;

TEST_F(LinkedFaasletTest, EndlessRecursionBetweenInstancesIsAStackOverflow) {
  LinkedFaaslet* a = add("a", R"((module
    (type $f (func))
    (table (export "table") 1 funcref)
    (func (export "go") (call_indirect (type $f) (i32.const 0)))
    (func (export "one") (result i32) (i32.const 1))))");
  ASSERT_NE(a, nullptr);
  ASSERT_NE(add("b", R"((module
    (import "a" "table" (table 1 funcref))
    (import "a" "go" (func $go))
    (func $back (call $go))
    (elem (i32.const 0) $back)))"),
            nullptr);
  const Outcome outcome = call(*a, "go", {}, {});
  ASSERT_EQ(outcome.kind, Outcome::Kind::kTrapped);
  EXPECT_EQ(outcome.trap.kind, TrapKind::kStackOverflow);
  // Both can be used again.
  wasm::Cell result;
  EXPECT_EQ(call(*a, "one", {}, {&result, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(result.low), 1u);
}

TEST_F(LinkedFaasletTest, MemoryGrownByTheImporterIsReachableInTheExporter) {
  LinkedFaaslet* owner = add("owner", R"((module
    (memory (export "memory") 1 3)
    (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))))");
  LinkedFaaslet* user = add("user", R"((module
    (import "owner" "memory" (memory 1))
    (func (export "grow_and_store") (param i32 i32) (result i32)
      (drop (memory.grow (i32.const 1)))
      (i32.store (local.get 0) (local.get 1))
      (memory.size))))");
  ASSERT_TRUE(owner && user);
  wasm::Cell result;
  EXPECT_EQ(call(*owner, "load", {{65536, 0}}, {&result, 1}).trap.kind, TrapKind::kMemoryOutOfBounds);
  ASSERT_EQ(call(*user, "grow_and_store", {{65536, 0}, {77, 0}}, {&result, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(result.low), 2u);
  ASSERT_EQ(call(*owner, "load", {{65536, 0}}, {&result, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(result.low), 77u);
  EXPECT_EQ(owner->memory_bytes(), 2 * wasm::kPageBytes);
}

TEST_F(LinkedFaasletTest, ATrapInTheCalledInstanceEndsTheCallerWithTheSameTrap) {
  ASSERT_NE(add("a", R"((module (func (export "divide") (param i32) (result i32)
    (i32.div_u (i32.const 1) (local.get 0)))))"),
            nullptr);
  LinkedFaaslet* b = add("b", R"((module
    (import "a" "divide" (func $divide (param i32) (result i32)))
    (func (export "run") (param i32) (result i32) (call $divide (local.get 0)))))");
  ASSERT_NE(b, nullptr);
  wasm::Cell result;
  EXPECT_EQ(call(*b, "run", {{0, 0}}, {&result, 1}).trap.kind, TrapKind::kIntegerDivideByZero);
  ASSERT_EQ(call(*b, "run", {{1, 0}}, {&result, 1}).kind, Outcome::Kind::kReturned);
  EXPECT_EQ(static_cast<uint32_t>(result.low), 1u);
}

TEST_F(LinkedFaasletTest, AnImportThatDoesNotFitIsNamed) {
  ASSERT_NE(add("a", R"((module (global (export "g") (mut i32) (i32.const 1))))"), nullptr);
  const auto missing = world_->instantiate(load(R"((module (import "a" "h" (global i32))))"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message, R"(unknown import: "a" "h")");
  const auto wrong = world_->instantiate(load(R"((module (import "a" "g" (global i32))))"));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message, R"(incompatible import type: "a" "g" is no such global)");
}

}  // namespace
}  // namespace spore::faaslet
