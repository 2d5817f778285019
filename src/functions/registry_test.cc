#include "functions/registry.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <set>
#include <thread>

#include "faaslet/faaslet.h"
#include "functions/modules.h"
#include "functions/object_cache.h"
#include "functions/test_world.h"

namespace spore::functions {
namespace {

namespace fs = std::filesystem;

Result<void> no_imports(const wasm::ModuleInfo& module) {
  std::string missing;
  for (const auto& import : module.imports) missing += " " + import.module + "." + import.name;
  if (!missing.empty()) return fail(ErrorCode::kInvalidModule, "unknown imports:" + missing);
  return {};
}

class RegistryTest : public ::testing::Test {
 protected:
  HostHooks hooks_{.check = no_imports};
  static void SetUpTestSuite() { ASSERT_TRUE(faaslet::install_signal_handlers()); }

  RegistryTest() {
    options_.host_key = Bytes(32, 1);
    options_.fast_tier_above_bytes = 1 << 20;
    open();
  }
  void open(object_store::ObjectStore* store = nullptr) {
    registry_.reset();
    auto opened = Registry::open(store ? *store : *store_, compiler_, *arena_, hooks_, options_);
    ASSERT_TRUE(opened) << opened.error().message;
    registry_ = std::move(*opened);
  }
  Result<VersionInfo> publish(ByteSpan wasm, const FunctionId& id = kId) {
    return registry_->publish({.id = id, .wasm = wasm});
  }
  // What f() of the loaded function returns; -1 where it cannot be loaded or run.
  int call(const FunctionId& id = kId, std::optional<uint64_t> number = {}) {
    const auto function = registry_->load(id, number);
    return function ? run(**function) : -1;
  }
  static int run(const LoadedFunction& function) {
    auto slot = faaslet::Slot::reserve();
    if (!slot) return -1;
    auto faaslet = faaslet::Faaslet::restore(std::move(*slot), function.proto, {}, nullptr);
    if (!faaslet) return -1;
    faaslet::Seat seat;
    seat.begin_call();
    const auto outcome =
        (*faaslet)->start(seat, function.proto->module().find_export("f", wasm::ExternalKind::kFunction)->index);
    const int result =
        outcome.kind == faaslet::Outcome::Kind::kReturned ? static_cast<int>((*faaslet)->result(0).low) : -1;
    seat.end_call();
    return result;
  }
  std::set<std::string> stored(const char* prefix = "") {
    std::set<std::string> out;
    for (auto& entry : *store_->list(prefix)) out.insert(entry.name);
    return out;
  }

  static inline const FunctionId kId{"acme", "f"};
  static inline const FunctionId kOther{"acme", "g"};

  TemporaryDirectory directory_;
  std::unique_ptr<object_store::DirectoryStore> store_ =
      std::move(*object_store::DirectoryStore::open(directory_.path()));
  compiler::ChildCompiler compiler_;
  std::unique_ptr<faaslet::CodeArena> arena_ = std::move(*faaslet::CodeArena::reserve(Bytes(32, 2)));
  RegistryOptions options_;
  std::unique_ptr<Registry> registry_;
};

// ---- publish, load --------------------------------------------------------------------------------------------------

TEST_F(RegistryTest, APublishedFunctionRuns) {
  const auto version = publish(module_that_returns(7));
  ASSERT_TRUE(version) << version.error().message;
  EXPECT_EQ(version->number, 1u);
  EXPECT_EQ(version->module_digest, sha256(module_that_returns(7)));
  EXPECT_EQ(version->tier, wasm::Tier::kOptimised);
  EXPECT_GT(version->object_bytes, 0u);
  EXPECT_EQ(call(), 7);
}

TEST_F(RegistryTest, ANewPublishReplacesAndCallsUnderWayKeepTheOld) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  const auto old = *registry_->load(kId);
  const auto second = publish(module_that_returns(2));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->number, 2u);
  EXPECT_EQ(call(), 2);
  EXPECT_EQ(run(*old), 1);
  EXPECT_EQ(call(kId, 1), 1);
  EXPECT_EQ(registry_->load(kId, 9).error().code, ErrorCode::kNotFound);
}

TEST_F(RegistryTest, PublishingTheSameAgainChangesNothing) {
  const auto first = publish(module_that_returns(1));
  const auto again = publish(module_that_returns(1));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->number, 1u);
  EXPECT_EQ(again->published_at, first->published_at);
  EXPECT_EQ(registry_->describe(kId)->versions.size(), 1u);
}

TEST_F(RegistryTest, FunctionsWithTheSameModuleShareItsCode) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(publish(module_that_returns(1), kOther));
  EXPECT_EQ((*registry_->load(kId))->proto->object(), (*registry_->load(kOther))->proto->object());
  EXPECT_EQ(registry_->stats().compiled, 1u);
  EXPECT_EQ(stored("modules/").size(), 1u);
  // And it stays while one of them needs it.
  ASSERT_TRUE(registry_->remove(kId));
  EXPECT_EQ(stored("modules/").size(), 1u);
  open();
  EXPECT_EQ(call(kOther), 1);
}

TEST_F(RegistryTest, HardenedCodeLiesBesideOrdinaryCodeOfItsModuleAndGoesWithItsFunctions) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(publish(module_that_returns(1), kOther));
  ASSERT_TRUE(registry_->configure(kOther, {.spectre_hardening = true}));
  EXPECT_EQ(registry_->stats().compiled, 2u);
  EXPECT_EQ(call(kId), 1);
  EXPECT_EQ(call(kOther), 1);
  EXPECT_FALSE((*registry_->load(kId))->proto->object()->object().hardened);
  EXPECT_TRUE((*registry_->load(kOther))->proto->object()->object().hardened);
  EXPECT_NE((*registry_->load(kId))->proto->object(), (*registry_->load(kOther))->proto->object());
  const auto both = stored("objects/");
  EXPECT_EQ(both.size(), 2u);
  EXPECT_EQ(stored("modules/").size(), 1u);
  open();  // both are found, neither is compiled again
  EXPECT_EQ(call(kOther), 1);
  EXPECT_TRUE((*registry_->load(kOther))->proto->object()->object().hardened);
  EXPECT_EQ(registry_->stats().compiled, 0u);
  EXPECT_EQ(stored("objects/"), both);
  ASSERT_TRUE(registry_->remove(kOther));
  const auto left = stored("objects/");
  ASSERT_EQ(left.size(), 1u);
  EXPECT_FALSE(left.begin()->ends_with("-hardened"));
  EXPECT_EQ(stored("modules/").size(), 1u);
  EXPECT_EQ(call(kId), 1);
  open();
  EXPECT_EQ(call(kId), 1);
}

TEST_F(RegistryTest, WhatIsLoadedIsFoundWithoutWaiting) {
  EXPECT_EQ(registry_->find_loaded(kId), nullptr);
  ASSERT_TRUE(publish(module_that_returns(1)));
  EXPECT_NE(registry_->find_loaded(kId), nullptr);
  open();
  EXPECT_EQ(registry_->find_loaded(kId), nullptr);
  const auto loaded = registry_->load(kId);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(registry_->find_loaded(kId), *loaded);
  EXPECT_EQ(registry_->find_loaded(kId, 1), *loaded);
  EXPECT_EQ(registry_->find_loaded(kId, 2), nullptr);
}

TEST_F(RegistryTest, RefusesModulesAndLeavesNothingOfThem) {
  const auto refused = [&](ByteSpan wasm, ErrorCode code, std::string_view reason) {
    const auto version = publish(wasm);
    ASSERT_FALSE(version) << reason;
    EXPECT_EQ(version.error().code, code) << version.error().message;
    EXPECT_NE(version.error().message.find(reason), std::string::npos) << version.error().message;
    EXPECT_TRUE(stored().empty());
    EXPECT_FALSE(registry_->describe(kId));
    EXPECT_EQ(registry_->load(kId).error().code, ErrorCode::kNotFound);
    EXPECT_EQ(arena_->objects(), 0u);
  };
  refused({}, ErrorCode::kInvalidModule, "");
  refused(as_bytes("garbage"), ErrorCode::kInvalidModule, "");
  refused(ByteSpan(module_that_returns(1)).first(30), ErrorCode::kInvalidModule, "");
  refused(module_that_imports(), ErrorCode::kInvalidModule, "unknown imports: env.missing");
  refused(module_with_memory(16385), ErrorCode::kResourceExhausted, "memory");
  refused(Bytes(options_.module_bytes_max + 1), ErrorCode::kResourceExhausted, "the module is too large");
}

TEST_F(RegistryTest, RefusesBadNamesAndConfigurations) {
  EXPECT_EQ(publish(module_that_returns(1), {"..", "x"}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(registry_->publish({.id = kId, .wasm = module_that_returns(1), .config = FunctionConfig{.timeout_ms = 0}})
                .error()
                .code,
            ErrorCode::kInvalidArgument);
  EXPECT_TRUE(stored().empty());
}

TEST_F(RegistryTest, APublishCanDemandWhatItReplaces) {
  const Bytes one = module_that_returns(1), two = module_that_returns(2);
  const auto publish_if = [&](ByteSpan wasm, auto set) {
    PublishRequest request{.id = kId, .wasm = wasm};
    set(request);
    return registry_->publish(request);
  };
  EXPECT_EQ(publish_if(one, [](auto& r) { r.must_exist = true; }).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(publish_if(one, [&](auto& r) { r.expected_digest = sha256(one); }).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(publish_if(one, [](auto& r) { r.must_not_exist = true; }));
  EXPECT_EQ(publish_if(two, [](auto& r) { r.must_not_exist = true; }).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(publish_if(two, [&](auto& r) { r.expected_digest = sha256(two); }).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(call(), 1);
  EXPECT_TRUE(publish_if(two, [&](auto& r) { r.expected_digest = sha256(one); }));
  EXPECT_EQ(call(), 2);
}

TEST_F(RegistryTest, OfPublishesThatExpectTheSameOnlyOneWins) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  std::atomic<int> won = 0, lost = 0;
  std::vector<std::thread> threads;
  for (uint8_t i = 2; i < 6; ++i)
    threads.emplace_back([&, i] {
      const Bytes wasm = module_that_returns(i);
      const auto done =
          registry_->publish({.id = kId, .wasm = wasm, .expected_digest = sha256(module_that_returns(1))});
      if (done) ++won;
      if (!done && done.error().code == ErrorCode::kAlreadyExists) ++lost;
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 3);
  EXPECT_EQ(registry_->describe(kId)->versions.size(), 2u);
  EXPECT_EQ(stored("modules/").size(), 2u);
}

// ---- versions and configuration -------------------------------------------------------------------------------------

TEST_F(RegistryTest, RollsBackAndForth) {
  for (uint8_t i = 1; i <= 3; ++i) ASSERT_TRUE(publish(module_that_returns(i)));
  EXPECT_EQ(registry_->rollback(kId)->number, 2u);
  EXPECT_EQ(call(), 2);
  EXPECT_EQ(registry_->rollback(kId)->number, 1u);
  EXPECT_EQ(registry_->rollback(kId).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(registry_->rollback(kId, 3)->number, 3u);
  EXPECT_EQ(call(), 3);
  EXPECT_EQ(registry_->rollback(kId, 4).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(registry_->rollback(kOther).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(registry_->rollback(kId, 1));
  open();
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(publish(module_that_returns(4))->number, 4u);
}

TEST_F(RegistryTest, ForgetsTheOldestVersionsButNeverTheCurrentOne) {
  options_.versions_max = 3;
  open();
  for (uint8_t i = 1; i <= 3; ++i) ASSERT_TRUE(publish(module_that_returns(i)));
  ASSERT_TRUE(registry_->rollback(kId, 1));
  ASSERT_TRUE(registry_->configure(kId, {.timeout_ms = 5}));
  std::vector<uint64_t> numbers;
  for (const auto& version : registry_->describe(kId)->versions) numbers.push_back(version.number);
  EXPECT_EQ(numbers, (std::vector<uint64_t>{2, 3, 4}));
  EXPECT_EQ(stored("modules/").size(), 3u);
  ASSERT_TRUE(publish(module_that_returns(5)));
  ASSERT_TRUE(publish(module_that_returns(6)));
  EXPECT_EQ(stored("modules/").size(), 3u);
  EXPECT_EQ(stored("objects/").size(), 3u);
  EXPECT_EQ(call(kId, 4), 1);
}

TEST_F(RegistryTest, AConfigurationIsANewVersionAndStays) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  const FunctionConfig config{.timeout_ms = 123, .args = {"x"}};
  const auto version = registry_->configure(kId, config);
  ASSERT_TRUE(version) << version.error().message;
  EXPECT_EQ(version->number, 2u);
  EXPECT_EQ((*registry_->load(kId))->version.config, config);
  EXPECT_EQ(registry_->configure(kId, config)->number, 2u);
  EXPECT_EQ(publish(module_that_returns(2))->config, config);
  EXPECT_EQ(registry_->configure(kOther, config).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(registry_->configure(kId, config, sha256(module_that_returns(1))).error().code, ErrorCode::kAlreadyExists);
  EXPECT_EQ(registry_->configure(kId, {.timeout_ms = 0}).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(RegistryTest, AConfigurationThatTheModuleCannotHaveIsRefused) {
  ASSERT_TRUE(publish(module_with_memory(200)));
  const auto version = registry_->configure(kId, {.memory_max_bytes = 199 * wasm::kPageBytes});
  ASSERT_FALSE(version);
  EXPECT_EQ(version.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(registry_->describe(kId)->current, 1u);
}

TEST_F(RegistryTest, ListsByTenantAndPrefixPageByPage) {
  for (const auto& id : {FunctionId{"a", "x1"}, FunctionId{"a", "x2"}, FunctionId{"a", "y"}, FunctionId{"b", "x3"}})
    ASSERT_TRUE(publish(module_that_returns(1), id));
  const auto names = [&](const ListQuery& query) {
    std::string out;
    for (const auto& info : registry_->list(query)) out += info.id.text() + " ";
    return out;
  };
  EXPECT_EQ(names({}), "a/x1 a/x2 a/y b/x3 ");
  EXPECT_EQ(names({.tenant = "a"}), "a/x1 a/x2 a/y ");
  EXPECT_EQ(names({.prefix = "x"}), "a/x1 a/x2 b/x3 ");
  EXPECT_EQ(names({.count_max = 2}), "a/x1 a/x2 ");
  EXPECT_EQ(names({.after = FunctionId{"a", "x2"}, .count_max = 2}), "a/y b/x3 ");
  EXPECT_EQ(names({.tenant = "c"}), "");
}

TEST_F(RegistryTest, BoundsTheNumberOfFunctions) {
  options_.functions_max = 1;
  open();
  ASSERT_TRUE(publish(module_that_returns(1)));
  EXPECT_EQ(publish(module_that_returns(1), kOther).error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(publish(module_that_returns(2)));
}

TEST_F(RegistryTest, ImagesCountWhileTheyAreLoadedAndThoseThatNoCallHasCanGo) {
  std::atomic<uint64_t> counted = 0, count_max = UINT64_MAX;
  hooks_.count_image = [&](const FunctionId&, uint64_t bytes) -> Result<std::shared_ptr<const void>> {
    EXPECT_GT(bytes, 0u);
    if (counted + bytes > count_max) return fail(ErrorCode::kResourceExhausted, "no room for its image");
    counted += bytes;
    return std::shared_ptr<const void>(static_cast<const void*>(this), [&counted, bytes](auto) { counted -= bytes; });
  };
  open();
  const FunctionId others{"others", "f"};
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(publish(module_that_returns(2), kOther));
  ASSERT_TRUE(publish(module_that_returns(3), others));
  const uint64_t three = counted;
  EXPECT_GT(three, 0u);
  const auto used = *registry_->load(kId);
  EXPECT_EQ(registry_->drop_unused_images(&kId.tenant, UINT64_MAX), three / 3);
  EXPECT_EQ(counted, three / 3 * 2);
  EXPECT_EQ(registry_->find_loaded(kOther), nullptr);
  EXPECT_NE(registry_->find_loaded(kId), nullptr) << "a call has it";
  EXPECT_NE(registry_->find_loaded(others), nullptr);
  EXPECT_EQ(call(kOther), 2) << "it is loaded again";
  EXPECT_EQ(registry_->stats().loaded, 3u);
  EXPECT_EQ(counted, three);
  count_max = counted.load();
  const auto refused = publish(module_that_returns(4), {"acme", "more"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(registry_->describe({"acme", "more"}).has_value());
  registry_.reset();
  EXPECT_EQ(counted, three / 3) << "of the one that a call has";
}

TEST_F(RegistryTest, HoldsABoundedNumberOfFunctionsReady) {
  options_.loaded_max = 2;
  open();
  for (uint8_t i = 1; i <= 3; ++i) ASSERT_TRUE(publish(module_that_returns(i), {"acme", "f" + std::to_string(i)}));
  EXPECT_EQ(registry_->stats().loaded, 2u);
  EXPECT_EQ(registry_->find_loaded({"acme", "f1"}), nullptr);
  EXPECT_EQ(call({"acme", "f1"}), 1);
  EXPECT_EQ(registry_->find_loaded({"acme", "f2"}), nullptr);
  EXPECT_EQ(registry_->stats().loaded, 2u);
  EXPECT_EQ(arena_->objects(), 2u);
}

// ---- what survives --------------------------------------------------------------------------------------------------

TEST_F(RegistryTest, FunctionsSurviveARestartWithoutCompiling) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(publish(module_that_returns(2)));
  const auto before = registry_->describe(kId);
  open();
  const auto after = registry_->describe(kId);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->current, before->current);
  EXPECT_EQ(after->versions.size(), 2u);
  EXPECT_EQ(after->current_version().object_bytes, before->current_version().object_bytes);
  EXPECT_EQ(after->current_version().tier, wasm::Tier::kOptimised);
  EXPECT_EQ(call(), 2);
  EXPECT_EQ(registry_->stats().compiled, 0u);
}

TEST_F(RegistryTest, ARemovedFunctionIsGoneWithAllThatWasStored) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  const auto running = *registry_->load(kId);
  ASSERT_TRUE(registry_->remove(kId));
  EXPECT_TRUE(stored().empty());
  EXPECT_EQ(registry_->load(kId).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(registry_->remove(kId).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(run(*running), 1);
  open();
  EXPECT_FALSE(registry_->describe(kId));
  EXPECT_EQ(publish(module_that_returns(2))->number, 1u);
}

TEST_F(RegistryTest, AHostThatDiesDuringAPublishHasTheOldVersionOrTheNew) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  bool completed = false;
  for (int writes = 0; !completed; ++writes) {
    ASSERT_LT(writes, 20);
    DyingStore dying(*store_);
    open(&dying);
    dying.die_after(writes);
    completed = publish(module_that_returns(2)).has_value();
    open();
    const auto info = registry_->describe(kId);
    ASSERT_TRUE(info) << writes;
    EXPECT_EQ(info->current, completed ? 2u : 1u) << writes;
    EXPECT_EQ(call(), completed ? 2 : 1) << writes;
    // What the dead publish left was removed at the start.
    EXPECT_EQ(stored("modules/").size(), completed ? 2u : 1u) << writes;
    EXPECT_EQ(stored("objects/").size(), completed ? 2u : 1u) << writes;
  }
}

TEST_F(RegistryTest, AHostThatDiesDuringARemoveHasTheFunctionOrNot) {
  for (int writes = 0; writes < 3; ++writes) {
    ASSERT_TRUE(publish(module_that_returns(1)));
    DyingStore dying(*store_);
    open(&dying);
    dying.die_after(writes);
    EXPECT_EQ(registry_->remove(kId).has_value(), writes > 0);
    open();
    EXPECT_EQ(call(), writes > 0 ? -1 : 1);
    EXPECT_EQ(stored().empty(), writes > 0);
  }
}

TEST_F(RegistryTest, ADamagedObjectIsCompiledAnew) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  const std::string name = *stored("objects/").begin();
  Bytes bytes = *store_->get(name);
  bytes[bytes.size() / 2] ^= 0x40;
  ASSERT_TRUE(store_->put(name, bytes));
  open();
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(registry_->stats().compiled, 1u);
  ASSERT_TRUE(store_->remove(name));
  open();
  EXPECT_EQ(registry_->describe(kId)->current_version().object_bytes, 0u);
  EXPECT_EQ(call(), 1);
}

TEST_F(RegistryTest, ADamagedModuleIsToldAndHealedByAPublish) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(store_->remove(*stored("objects/").begin()));
  ASSERT_TRUE(store_->put(*stored("modules/").begin(), module_that_returns(2)));
  open();
  const auto function = registry_->load(kId);
  ASSERT_FALSE(function);
  EXPECT_EQ(function.error().message, "function acme/f: its module in the store is damaged; publish it again");
  ASSERT_TRUE(publish(module_that_returns(1)));
  EXPECT_EQ(call(), 1);
  ASSERT_TRUE(store_->remove(*stored("objects/").begin()));
  open();
  EXPECT_EQ(call(), 1);
}

TEST_F(RegistryTest, ADamagedRecordLeavesTheOthersAndTheModules) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  ASSERT_TRUE(publish(module_that_returns(2), kOther));
  const Bytes record = *store_->get("functions/acme/f.json");
  ASSERT_TRUE(store_->put("functions/acme/f.json", as_bytes("{")));
  open();
  EXPECT_FALSE(registry_->describe(kId));
  EXPECT_EQ(call(kOther), 2);
  EXPECT_EQ(stored("modules/").size(), 2u);
  ASSERT_TRUE(store_->put("functions/acme/f.json", record));
  open();
  EXPECT_EQ(call(), 1);
}

TEST_F(RegistryTest, AFullStoreFailsThePublishAndLeavesTheOldVersion) {
  ASSERT_TRUE(publish(module_that_returns(1)));
  store_ = std::move(*object_store::DirectoryStore::open(directory_.path(), {.object_bytes_max = 100}));
  open();
  EXPECT_EQ(publish(module_that_returns(2)).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(registry_->describe(kId)->current, 1u);
}

// ---- two tiers ------------------------------------------------------------------------------------------------------

class TwoTiersTest : public RegistryTest {
 protected:
  TwoTiersTest() {
    options_.fast_tier_above_bytes = 10;  // every module is a large one
    open();
  }
};

TEST_F(TwoTiersTest, ALargeModuleIsFastFirstAndOptimisedLater) {
  const auto version = publish(module_that_returns(3));
  ASSERT_TRUE(version) << version.error().message;
  EXPECT_EQ(version->tier, wasm::Tier::kFast);
  EXPECT_EQ(call(), 3);
  registry_->wait_for_background();
  const auto better = registry_->find_loaded(kId);
  ASSERT_TRUE(better);
  EXPECT_EQ(better->version.tier, wasm::Tier::kOptimised);
  EXPECT_EQ(better->version.number, 1u);
  EXPECT_EQ(better->proto->object()->object().tier, wasm::Tier::kOptimised);
  EXPECT_EQ(registry_->describe(kId)->current_version().tier, wasm::Tier::kOptimised);
  EXPECT_EQ(call(), 3);
  open();
  EXPECT_EQ((*registry_->load(kId))->version.tier, wasm::Tier::kOptimised);
  EXPECT_EQ(registry_->stats().compiled, 0u);
}

TEST_F(TwoTiersTest, AfterARestartAMissingOptimisedObjectIsMade) {
  ASSERT_TRUE(publish(module_that_returns(3)));
  registry_->wait_for_background();
  ASSERT_TRUE(store_->remove(ObjectCache::name_of(sha256(module_that_returns(3)), {.cpu_level = options_.cpu_level})));
  open();
  registry_->wait_for_background();
  EXPECT_EQ(registry_->stats().compiled, 1u);
  EXPECT_EQ(registry_->describe(kId)->current_version().tier, wasm::Tier::kOptimised);
}

TEST_F(TwoTiersTest, AFailedOptimisedCompileLeavesTheFastTier) {
  // The fast object is there; the module, from which the optimised one would be compiled, is damaged.
  ASSERT_TRUE(publish(module_that_returns(3)));
  registry_->wait_for_background();
  ASSERT_TRUE(store_->remove(ObjectCache::name_of(sha256(module_that_returns(3)), {.cpu_level = options_.cpu_level})));
  ASSERT_TRUE(store_->put(*stored("modules/").begin(), as_bytes("damaged")));
  open();
  registry_->wait_for_background();
  EXPECT_EQ(call(), 3);
  registry_->wait_for_background();
  EXPECT_EQ((*registry_->load(kId))->version.tier, wasm::Tier::kFast);
}

TEST_F(TwoTiersTest, ARemovedFunctionLeavesNoOptimisedObject) {
  for (uint8_t i = 0; i < 4; ++i) {
    ASSERT_TRUE(publish(module_that_returns(i)));
    ASSERT_TRUE(registry_->remove(kId));
  }
  registry_->wait_for_background();
  EXPECT_TRUE(stored().empty());
  EXPECT_EQ(registry_->stats().compile_failures, 0u);
}

TEST_F(TwoTiersTest, ClosingTheRegistryEndsTheBackgroundCompile) {
  for (uint8_t i = 0; i < 6; ++i) ASSERT_TRUE(publish(module_that_returns(i), {"acme", "f" + std::to_string(i)}));
  registry_.reset();
  open();
  registry_->wait_for_background();
  for (const auto& info : registry_->list({})) EXPECT_EQ(info.current_version().tier, wasm::Tier::kOptimised);
}

// ---- many at once, many times ---------------------------------------------------------------------------------------

TEST_F(RegistryTest, PublishLoadAndRemoveAtOnce) {
  options_.fast_tier_above_bytes = 10;  // so that tiers are swapped meanwhile, too
  open();
  std::atomic<bool> done = false;
  std::atomic<int> wrong = 0, loads = 0;
  std::vector<std::thread> readers, writers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      while (!done) {
        const auto function = registry_->load(kId);
        if (function) {
          ++loads;
          // The image always belongs to the version that it is said to be.
          if ((*function)->proto->object()->object().module_digest != (*function)->version.module_digest) ++wrong;
        } else if (function.error().code != ErrorCode::kNotFound && function.error().code != ErrorCode::kUnavailable) {
          ++wrong;
        }
        for (const auto& info : registry_->list({}))
          if (info.versions.empty()) ++wrong;
        (void)registry_->stats();
      }
    });
  for (uint8_t id = 0; id < 3; ++id)
    writers.emplace_back([&, id] {
      for (uint8_t i = 0; i < 8; ++i) {
        const Bytes wasm = module_that_returns(static_cast<uint8_t>((id + i) % 4));
        if (const auto version = publish(wasm); !version) ++wrong;
        if (id == 1) (void)registry_->rollback(kId);
        if (id == 2) (void)registry_->remove(kId);
      }
    });
  for (auto& thread : writers) thread.join();
  done = true;
  for (auto& thread : readers) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(loads, 0);
  ASSERT_TRUE(publish(module_that_returns(1)));
  EXPECT_EQ(call(), 1);
  ASSERT_TRUE(registry_->remove(kId));
  registry_->wait_for_background();
  EXPECT_TRUE(stored().empty());
  EXPECT_EQ(arena_->objects(), 0u);
}

TEST_F(RegistryTest, PublishAndRemoveLeaveNothingBehind) {
  const auto count_lines = [](const char* file) {
    std::ifstream in(file);
    return std::count(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>(), '\n');
  };
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto cycle = [&](int i) {
    const FunctionId id{"acme", "f" + std::to_string(i)};
    ASSERT_TRUE(publish(module_that_returns(static_cast<uint8_t>(i % 60)), id));
    ASSERT_EQ(call(id), i % 60);
    ASSERT_TRUE(registry_->remove(id));
  };
  for (int i = 0; i < 5; ++i) cycle(i);
  const auto mappings = count_lines("/proc/self/maps");
  const auto open_files = descriptors();
  for (int i = 5; i < 25; ++i) cycle(i);
  EXPECT_LE(count_lines("/proc/self/maps"), mappings + 2);  // malloc may take another range
  EXPECT_EQ(descriptors(), open_files);
  EXPECT_EQ(arena_->objects(), 0u);
  EXPECT_EQ(arena_->used_bytes(), 0u);
  EXPECT_TRUE(stored().empty());
  EXPECT_FALSE(fs::exists(directory_.path() / "functions"));
}

// ---- the gate of compilations ---------------------------------------------------------------------------------------

TEST(CompileGate, LetsAsManyThroughAsItMayAndRefusesTheRest) {
  CompileGate gate(2, 0);
  auto first = gate.enter({});
  auto second = gate.enter({});
  ASSERT_TRUE(first && second);
  EXPECT_EQ(gate.enter({}).error().code, ErrorCode::kUnavailable);
  {
    const auto gone = std::move(*first);
  }
  EXPECT_TRUE(gate.enter({}));
}

TEST(CompileGate, AWaitEndsWithATurnOrAStop) {
  CompileGate gate(1, 1);
  std::optional<CompileGate::Pass> pass;
  pass.emplace(std::move(*gate.enter({})));
  std::stop_source stop;
  std::jthread stopped([&] { EXPECT_EQ(gate.enter(stop.get_token()).error().code, ErrorCode::kUnavailable); });
  stop.request_stop();
  stopped.join();
  std::jthread waiting([&] { EXPECT_TRUE(gate.enter({})); });
  pass.reset();
  waiting.join();
  EXPECT_TRUE(gate.enter({}));
}

}  // namespace
}  // namespace spore::functions
