#include "functions/object_cache.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "functions/test_world.h"

namespace spore::functions {
namespace {

const compiler::Options kFast{.tier = wasm::Tier::kFast};
const compiler::Options kOptimised{.tier = wasm::Tier::kOptimised};

class ObjectCacheTest : public ::testing::Test {
 protected:
  ObjectCache cache(uint8_t key = 1) { return ObjectCache(*store_, compiler_, Bytes(32, key)); }
  std::string stored_name() { return ObjectCache::name_of(digest_, kFast); }

  TemporaryDirectory directory_;
  std::unique_ptr<object_store::DirectoryStore> store_ =
      std::move(*object_store::DirectoryStore::open(directory_.path()));
  compiler::ChildCompiler compiler_;
  Bytes wasm_ = module_that_returns(7);
  Digest digest_ = sha256(wasm_);
};

TEST_F(ObjectCacheTest, CompilesOnce) {
  EXPECT_FALSE(*cache().find(digest_, kFast));
  const auto first = cache().find_or_compile(wasm_, kFast);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_TRUE(first->compiled);
  const auto second = cache().find_or_compile(wasm_, kFast);
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->compiled);
  EXPECT_EQ(wasm::serialize(second->object), wasm::serialize(first->object));
  EXPECT_EQ(second->stored_bytes, first->stored_bytes);
}

TEST_F(ObjectCacheTest, KeepsApartWhatDiffers) {
  ASSERT_TRUE(cache().find_or_compile(wasm_, kFast));
  EXPECT_FALSE(*cache().find(digest_, kOptimised));
  EXPECT_FALSE(*cache().find(sha256(module_that_returns(8)), kFast));
  auto options = kFast;
  options.cpu_level = wasm::CpuLevel::kV3;
  EXPECT_FALSE(*cache().find(digest_, options));
  options = kFast;
  options.cross_instance = true;
  EXPECT_FALSE(*cache().find(digest_, options));
  options = kFast;
  options.threads = 2;  // makes no difference
  EXPECT_TRUE(*cache().find(digest_, options));
}

TEST_F(ObjectCacheTest, DoesNotUseAnObjectWithAnyByteChanged) {
  ASSERT_TRUE(cache().find_or_compile(wasm_, kFast));
  const Bytes good = *store_->get(stored_name());
  for (size_t at = 0; at < good.size(); at += at < 64 ? 1 : good.size() / 50) {
    Bytes bad = good;
    bad[at] ^= 1;
    ASSERT_TRUE(store_->put(stored_name(), bad));
    EXPECT_FALSE(*cache().find(digest_, kFast)) << at;
  }
  for (const size_t size : {size_t{0}, size_t{8}, size_t{40}, good.size() - 1}) {
    ASSERT_TRUE(store_->put(stored_name(), ByteSpan(good).first(size)));
    EXPECT_FALSE(*cache().find(digest_, kFast)) << size;
  }
  EXPECT_TRUE(cache().find_or_compile(wasm_, kFast)->compiled);
  EXPECT_EQ(*store_->get(stored_name()), good);
}

TEST_F(ObjectCacheTest, DoesNotUseWhatAnotherHostSealed) {
  ASSERT_TRUE(cache(1).find_or_compile(wasm_, kFast));
  EXPECT_FALSE(*cache(2).find(digest_, kFast));
  EXPECT_TRUE(cache(2).find_or_compile(wasm_, kFast)->compiled);
}

TEST_F(ObjectCacheTest, DoesNotUseASealedObjectUnderAnotherName) {
  ASSERT_TRUE(cache().find_or_compile(wasm_, kFast));
  const Digest other = sha256(module_that_returns(8));
  ASSERT_TRUE(store_->put(ObjectCache::name_of(other, kFast), *store_->get(stored_name())));
  ASSERT_TRUE(store_->put(ObjectCache::name_of(digest_, kOptimised), *store_->get(stored_name())));
  EXPECT_FALSE(*cache().find(other, kFast));
  EXPECT_FALSE(*cache().find(digest_, kOptimised));
}

TEST_F(ObjectCacheTest, RemovesAllObjectsOfAModule) {
  ASSERT_TRUE(cache().find_or_compile(wasm_, kFast));
  ASSERT_TRUE(cache().find_or_compile(wasm_, kOptimised));
  ASSERT_TRUE(cache().find_or_compile(module_that_returns(8), kFast));
  ASSERT_TRUE(cache().remove(digest_));
  EXPECT_EQ(store_->list("")->size(), 1u);
}

TEST_F(ObjectCacheTest, AnInvalidModuleLeavesNothing) {
  const auto object = cache().find_or_compile(as_bytes("no module"), kFast);
  ASSERT_FALSE(object);
  EXPECT_EQ(object.error().code, ErrorCode::kInvalidModule);
  EXPECT_TRUE(store_->list("")->empty());
}

TEST_F(ObjectCacheTest, AStoreThatFailsIsNotTakenForAMiss) {
  DyingStore dying(*store_);
  const ObjectCache failing(dying, compiler_, Bytes(32, 1));
  dying.die_after(0);
  EXPECT_EQ(failing.find_or_compile(wasm_, kFast).error().code, ErrorCode::kInternal);
  EXPECT_EQ(failing.find(digest_, kFast).error().code, ErrorCode::kInternal);
}

TEST_F(ObjectCacheTest, TheUsersCacheKeepsItsKeyAndObjects) {
  const auto directory = directory_.path() / "cache" / "spore";
  {
    const auto cache = UserCache::open(directory);
    ASSERT_TRUE(cache) << cache.error().message;
    EXPECT_TRUE((*cache)->objects().find_or_compile(wasm_, kFast)->compiled);
  }
  const auto again = UserCache::open(directory);
  ASSERT_TRUE(again);
  EXPECT_FALSE((*again)->objects().find_or_compile(wasm_, kFast)->compiled);
}

}  // namespace
}  // namespace spore::functions
