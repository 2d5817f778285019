#include "functions/image_store.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>

#include "faaslet/faaslet.h"
#include "functions/image_description.h"
#include "functions/registry.h"
#include "functions/seal.h"
#include "functions/test_world.h"
#include "support/runtime.h"

namespace spore::functions {
namespace {

// Passes on to another store, but fails what a test wants to see fail; the store itself lives on, as with a full disk.
class FailingStore final : public object_store::ObjectStore {
 public:
  explicit FailingStore(object_store::ObjectStore& store) : store_(store) {}
  std::string fail_puts_of = "-", fail_gets_of = "-";  // names that begin so

  Result<void> put(std::string_view name, ByteSpan bytes) override {
    if (name.starts_with(fail_puts_of)) return fail(ErrorCode::kResourceExhausted, "no space left on device");
    return store_.put(name, bytes);
  }
  Result<Bytes> get(std::string_view name, uint64_t size_max_bytes) override {
    if (name.starts_with(fail_gets_of)) return fail(ErrorCode::kInternal, "input/output error");
    return store_.get(name, size_max_bytes);
  }
  Result<bool> exists(std::string_view name) override { return store_.exists(name); }
  Result<void> remove(std::string_view name) override { return store_.remove(name); }
  Result<std::vector<object_store::ObjectEntry>> list(std::string_view prefix) override { return store_.list(prefix); }

 private:
  object_store::ObjectStore& store_;
};

// f() gives what the initialiser that made the image left in the global.
Bytes module(int number = 0) {
  return testing::wasm_from_text(
      "(module (memory 2 9) (memory 1 1) (table 2 7 funcref) (elem (i32.const 0) $f)"
      "(data (i32.const 70000) \"bytes of module " +
      std::to_string(number) +
      "\") (data $passive \"later\") (global $g (mut i64) (i64.const 0))"
      "(func $f (export \"f\") (result i32) (i32.wrap_i64 (global.get $g))))");
}

// A host's registry whose initialisers leave behind how many have run; and the log of it.
class ImageTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(faaslet::install_signal_handlers()); }

  ImageTest() {
    auto logger = std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
    options_.host_key = kKey;
    options_.fast_tier_above_bytes = 1 << 20;
    open();
  }
  ~ImageTest() override { spdlog::set_default_logger(log_before_); }

  void open() {
    registry_.reset();
    const HostHooks hooks{.initialise = [this](std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, const auto&,
                                               const auto&) -> Result<std::shared_ptr<const faaslet::ProtoFaaslet>> {
      if (initialise_error_) return std::unexpected(*initialise_error_);
      auto state = instantiated->state();
      state.globals[0].low = static_cast<uint64_t>(++runs_);
      state.initialised = true;
      return faaslet::ProtoFaaslet::make(instantiated->object(), state, instantiated->memory_pages_max());
    }};
    auto opened = Registry::open(store_, compiler_, *arena_, hooks, options_);
    ASSERT_TRUE(opened) << opened.error().message;
    registry_ = std::move(*opened);
  }
  Result<VersionInfo> publish(const FunctionId& id = kId, int number = 0) {
    const Bytes wasm = module(number);
    return registry_->publish({.id = id, .wasm = wasm});
  }
  // Which run of the initialisers the image is of; -1 where it cannot be loaded or run.
  int call(const FunctionId& id = kId, std::optional<uint64_t> number = {}) {
    const auto function = registry_->load(id, number);
    if (!function) return -1;
    auto slot = faaslet::Slot::reserve();
    if (!slot) return -1;
    auto faaslet = faaslet::Faaslet::restore(std::move(*slot), (*function)->proto, {}, nullptr);
    if (!faaslet) return -1;
    faaslet::Seat seat;
    seat.begin_call();
    const auto outcome = (*faaslet)->start(seat, testing::exported_function((*faaslet)->module(), "f"));
    seat.end_call();
    return outcome.kind == faaslet::Outcome::Kind::kReturned ? static_cast<int>((*faaslet)->result(0).low) : -1;
  }
  std::vector<std::string> stored(const char* prefix = "images/") {
    std::vector<std::string> out;
    for (auto& entry : *files_->list(prefix)) out.push_back(entry.name);
    return out;
  }
  std::string warnings() {
    std::string out = log_.str();
    log_.str("");
    return out;
  }
  // The stored image of a function that has one.
  std::string name_of(const FunctionId& id = kId) {
    const auto names = stored(("images/" + id.text() + "/").c_str());
    EXPECT_EQ(names.size(), 1u);
    return names.at(0);
  }

  static inline const FunctionId kId{"acme", "f"};
  static inline const FunctionId kOther{"acme", "g"};
  static inline const FunctionId kForeign{"umbrella", "f"};
  static inline const Bytes kKey = Bytes(32, 1);

  std::ostringstream log_;
  std::shared_ptr<spdlog::logger> log_before_ = spdlog::default_logger();
  TemporaryDirectory directory_;
  std::unique_ptr<object_store::DirectoryStore> files_ =
      std::move(*object_store::DirectoryStore::open(directory_.path()));
  FailingStore store_{*files_};
  compiler::ChildCompiler compiler_;
  std::unique_ptr<faaslet::CodeArena> arena_ = std::move(*faaslet::CodeArena::reserve(Bytes(32, 2)));
  RegistryOptions options_;
  int runs_ = 0;
  std::optional<Error> initialise_error_;
  std::unique_ptr<Registry> registry_;
};

// ---- the files ------------------------------------------------------------------------------------------------------

// One that is published, as its file in the store.
class ImageFileTest : public ImageTest {
 protected:
  ImageFileTest() {
    EXPECT_TRUE(publish());
    proto_ = (*registry_->load(kId))->proto;
    name_ = name_of();
    sealed_ = *files_->get(name_);
    content_ = Bytes(sealed_.begin() + kSealBytes, sealed_.end());
  }
  // Whether it is found when the store holds these bytes.
  bool found(ByteSpan bytes, const FunctionConfig& config = {}) {
    EXPECT_TRUE(files_->put(ImageStore::name_of(kId, proto_->object()->object().module_digest, config), bytes));
    const auto image = images_.find(kId, config, proto_->object());
    EXPECT_TRUE(image.has_value()) << image.error().message;  // damage is no error
    return image.has_value() && image->has_value();
  }
  // Sealed as this host does it.
  Bytes seal_here(ByteSpan content) { return seal(kKey, "spore image", name_, content); }

  ImageStore images_{store_, kKey};
  std::shared_ptr<const faaslet::ProtoFaaslet> proto_;
  std::string name_;
  Bytes sealed_, content_;
};

TEST_F(ImageFileTest, WhatIsPutIsFound) {
  const Digest& digest = proto_->object()->object().module_digest;
  EXPECT_EQ(name_, ImageStore::name_of(kId, digest, {}));
  const auto image = images_.find(kId, {}, proto_->object());
  ASSERT_TRUE(image && *image);
  EXPECT_EQ((*image)->stored_bytes, sealed_.size());
  EXPECT_EQ(faaslet::serialize((*image)->proto->state(), digest), faaslet::serialize(proto_->state(), digest));
  EXPECT_EQ(*images_.put(kId, {}, *proto_), sealed_.size());
  EXPECT_EQ(*files_->get(name_), sealed_);  // the same image gives the same file
  EXPECT_FALSE(*images_.find(kOther, {}, proto_->object()));
  EXPECT_EQ(warnings(), "");
}

TEST_F(ImageFileTest, OneWithAFlippedBitIsNotUsed) {
  for (size_t at = 0; at < sealed_.size(); ++at) {
    Bytes changed = sealed_;
    changed[at] ^= 1 << at % 8;
    EXPECT_FALSE(found(changed)) << at;
    EXPECT_EQ(warnings(), "warning " + name_ + " is not used, it will be made anew: its seal does not verify\n") << at;
  }
  EXPECT_TRUE(found(sealed_));
}

TEST_F(ImageFileTest, OneCutShortOrLongerIsNotUsed) {
  for (size_t size = 0; size < sealed_.size(); ++size) EXPECT_FALSE(found(ByteSpan(sealed_).first(size))) << size;
  Bytes longer = sealed_;
  longer.push_back(0);
  EXPECT_FALSE(found(longer));
}

TEST_F(ImageFileTest, OneThatSomebodyElseSealedIsNotUsed) {
  EXPECT_TRUE(found(seal_here(content_)));
  EXPECT_FALSE(found(seal(Bytes(32, 9), "spore image", name_, content_)));
  EXPECT_FALSE(found(seal(kKey, "spore object", name_, content_)));
  EXPECT_FALSE(found(content_));
}

TEST_F(ImageFileTest, OneOfAnotherTenantFunctionConfigurationOrModuleIsNotUsed) {
  ASSERT_TRUE(publish(kForeign) && publish(kOther));
  for (const FunctionId& id : {kForeign, kOther}) EXPECT_FALSE(found(*files_->get(name_of(id)))) << id.text();
  FunctionConfig other;
  other.env["A"] = "b";
  EXPECT_FALSE(found(sealed_, other));
  ASSERT_TRUE(publish({"acme", "h"}, 1));
  EXPECT_FALSE(found(*files_->get(name_of({"acme", "h"}))));
}

// What a host would have to be tricked into sealing, or an older one sealed: it is checked all the same.
TEST_F(ImageFileTest, OneThatDoesNotFitIsNotUsedAndTheLogSaysWhy) {
  const auto refused = [&](ByteSpan content, const std::string& why) {
    EXPECT_FALSE(found(seal_here(content))) << why;
    EXPECT_NE(warnings().find("made anew: image: " + why), std::string::npos) << why;
  };
  const auto with = [&](size_t at, uint8_t value) {
    Bytes changed = content_;
    changed[at] = value;
    return changed;
  };
  refused({}, "it is no image");
  refused(with(8, 99), "its format is version 99");
  refused(with(12, 99), "its layout is version 99");
  refused(with(24, static_cast<uint8_t>(content_[24] + 1)), "it is of another module");
  refused(ByteSpan(content_).first(content_.size() - 1), "it does not decompress");
  auto large = proto_->state();
  large.memories[0].size_bytes = 10 * wasm::kPageBytes;  // the module says 9
  refused(faaslet::serialize(large, proto_->object()->object().module_digest), "a memory has an impossible size");
}

TEST_F(ImageFileTest, OneLargerThanTheFunctionsLimitIsNotUsed) {
  FunctionConfig small{.memory_max_bytes = wasm::kPageBytes};
  const std::string name = ImageStore::name_of(kId, proto_->object()->object().module_digest, small);
  EXPECT_FALSE(found(seal(kKey, "spore image", name, content_), small));
  EXPECT_NE(warnings().find("a memory has an impossible size"), std::string::npos);
  small.memory_max_bytes *= 2;
  const std::string fits = ImageStore::name_of(kId, proto_->object()->object().module_digest, small);
  EXPECT_TRUE(found(seal(kKey, "spore image", fits, content_), small));
}

TEST_F(ImageFileTest, AStoreThatFailsIsAnError) {
  store_.fail_gets_of = "images/";
  const auto image = images_.find(kId, {}, proto_->object());
  ASSERT_FALSE(image.has_value());
  EXPECT_EQ(image.error().code, ErrorCode::kInternal);
}

// ---- in the life of a function --------------------------------------------------------------------------------------

TEST_F(ImageTest, InitialisersRunOnceForAllHostsToCome) {
  ASSERT_TRUE(publish());
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(registry_->stats().initialised, 1u);
  for (int restart = 1; restart <= 3; ++restart) {
    open();
    EXPECT_EQ(call(), 1);
    EXPECT_EQ(registry_->stats().initialised, 0u);
    EXPECT_EQ(registry_->stats().images_found, 1u);
  }
  EXPECT_EQ(runs_, 1);
  ASSERT_TRUE(publish());  // the same again
  EXPECT_EQ(runs_, 1);
}

TEST_F(ImageTest, OneThatDoesNotVerifyIsMadeAnewAndStored) {
  ASSERT_TRUE(publish() && publish(kForeign));
  const std::string name = name_of();
  const Bytes good = *files_->get(name), foreign = *files_->get(name_of(kForeign));
  const auto changed = [&](size_t at) {
    Bytes out = good;
    out[at] ^= 0x40;
    return out;
  };
  const Bytes content(good.begin() + kSealBytes, good.end());
  for (const Bytes& bytes :
       {changed(0), changed(20), changed(kSealBytes + 9), changed(good.size() - 1), Bytes(good.begin(), good.end() - 1),
        Bytes(), foreign, seal(Bytes(32, 9), "spore image", name, content)}) {
    const int before = runs_;
    ASSERT_TRUE(files_->put(name, bytes));
    open();
    warnings();
    EXPECT_EQ(call(), before + 1);
    EXPECT_NE(warnings().find("warning " + name + " is not used, it will be made anew"), std::string::npos);
    open();
    EXPECT_EQ(call(), before + 1);
    EXPECT_EQ(runs_, before + 1);
  }
}

TEST_F(ImageTest, AHostWithAnotherKeyMakesItAnew) {
  ASSERT_TRUE(publish());
  options_.host_key = Bytes(32, 9);
  open();
  EXPECT_EQ(call(), 2);
}

TEST_F(ImageTest, AConfigurationHasItsOwnAndARollbackFindsTheOld) {
  ASSERT_TRUE(publish());
  ASSERT_TRUE(registry_->configure(kId, {.env = {{"A", "b"}}}));
  EXPECT_EQ(call(), 2);
  EXPECT_EQ(stored().size(), 2u);
  ASSERT_TRUE(registry_->rollback(kId));
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(call(kId, 2), 2);
  EXPECT_EQ(runs_, 2);
}

TEST_F(ImageTest, ImagesGoWithTheirVersionsAndFunctions) {
  options_.versions_max = 2;
  open();
  for (int number = 0; number < 4; ++number) ASSERT_TRUE(publish(kId, number));
  ASSERT_TRUE(publish(kOther) && publish({"acme", "ff"}));
  EXPECT_EQ(stored("images/acme/f/").size(), 2u);
  EXPECT_EQ(call(kId, 4), 4);
  EXPECT_EQ(call(kId, 3), 3);
  ASSERT_TRUE(registry_->remove(kId));
  EXPECT_EQ(stored("images/acme/f/").size(), 0u);
  EXPECT_EQ(stored().size(), 2u);  // the others' stay
  EXPECT_EQ(warnings(), "");
}

TEST_F(ImageTest, WhatNothingRefersToGoesAtTheStart) {
  ASSERT_TRUE(publish());
  const std::string name = name_of();
  ASSERT_TRUE(files_->put("images/acme/gone/some-image", as_bytes("x")) && files_->put(name + "0", as_bytes("x")));
  open();
  EXPECT_EQ(stored(), std::vector{name});
}

TEST_F(ImageTest, APublishWhoseInitialisersFailLeavesTheOldVersion) {
  ASSERT_TRUE(publish());
  const auto before = stored("");
  initialise_error_ = Error{ErrorCode::kInvalidModule, "the initialiser init traps: unreachable"};
  const auto failed = publish(kId, 1);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kInvalidModule);
  EXPECT_EQ(failed.error().message, "the initialiser init traps: unreachable");
  EXPECT_EQ(stored(""), before);
  EXPECT_FALSE(registry_->configure(kId, {.timeout_ms = 1}));
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(registry_->describe(kId)->versions.size(), 1u);
}

TEST_F(ImageTest, APublishThatCannotStoreLeavesNothingBehind) {
  for (const char* what : {"images/", "modules/", "functions/", ""}) {
    store_.fail_puts_of = what;
    const auto failed = publish();
    ASSERT_FALSE(failed) << what;
    EXPECT_EQ(failed.error().code, ErrorCode::kResourceExhausted);
    if (what == std::string("images/"))
      EXPECT_EQ(failed.error().message, "its image cannot be stored: no space left on device");
    EXPECT_TRUE(stored("").empty()) << what;
    EXPECT_FALSE(registry_->describe(kId)) << what;
  }
  store_.fail_puts_of = "-";
  ASSERT_TRUE(publish());
  const auto before = stored("");
  store_.fail_puts_of = "functions/";
  ASSERT_FALSE(publish(kId, 1));
  ASSERT_FALSE(registry_->configure(kId, {.timeout_ms = 1}));
  EXPECT_EQ(stored(""), before);
}

TEST_F(ImageTest, ALoadThatCannotStoreGoesOn) {
  ASSERT_TRUE(publish());
  ASSERT_TRUE(files_->remove(name_of()));
  open();
  store_.fail_puts_of = "images/";
  EXPECT_EQ(call(), 2);
  EXPECT_NE(
      warnings().find("function acme/f: its image cannot be stored, so its initialisers will run again: no space"),
      std::string::npos);
  EXPECT_TRUE(stored().empty());
  store_.fail_puts_of = "-";
  open();
  EXPECT_EQ(call(), 3);
  EXPECT_EQ(stored().size(), 1u);
}

TEST_F(ImageTest, ALoadFromAStoreThatFailsTellsSo) {
  ASSERT_TRUE(publish());
  open();
  store_.fail_gets_of = "images/";
  const auto function = registry_->load(kId);
  ASSERT_FALSE(function.has_value());
  EXPECT_EQ(function.error().message, "function acme/f: input/output error");
  store_.fail_gets_of = "-";
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(runs_, 1);
}

TEST_F(ImageTest, AHostThatDiesDuringAPublishLeavesNoImageWithoutVersion) {
  ASSERT_TRUE(publish());
  bool completed = false;
  for (int writes = 0; !completed; ++writes) {
    ASSERT_LT(writes, 20);
    {
      DyingStore dying(*files_);
      auto registry = Registry::open(dying, compiler_, *arena_, {}, options_);
      ASSERT_TRUE(registry);
      dying.die_after(writes);
      const Bytes wasm = module(1);
      completed = (*registry)->publish({.id = kId, .wasm = wasm}).has_value();
    }
    open();
    EXPECT_EQ(stored().size(), completed ? 2u : 1u) << writes;
    EXPECT_EQ(call(), completed ? 0 : 1) << writes;
  }
}

TEST_F(ImageTest, TheOptimisedTierGoesOnFromTheSameImage) {
  options_.fast_tier_above_bytes = 10;
  open();
  ASSERT_TRUE(publish());
  registry_->wait_for_background();
  EXPECT_EQ((*registry_->load(kId))->version.tier, wasm::Tier::kOptimised);
  EXPECT_EQ(call(), 1);
  open();
  EXPECT_EQ(call(), 1);
  EXPECT_EQ(runs_, 1);
}

TEST_F(ImageTest, ImagesAreListedByFunctionAndVersion) {
  ASSERT_TRUE(publish() && publish(kId, 1) && publish(kForeign) && publish(kOther));
  open();
  ASSERT_TRUE(files_->remove(name_of(kOther)));
  ASSERT_TRUE(registry_->load(kId, 1));
  const auto told = [&](std::string_view tenant, std::string_view name = "") {
    std::string out;
    for (const ImageInfo& image : *registry_->images(tenant, name))
      out += image.id.text() + "@" + std::to_string(image.version) + (image.current ? " current" : "") +
             (image.loaded ? " loaded" : "") + (image.stored_bytes ? " stored; " : "; ");
    return out;
  };
  EXPECT_EQ(told(""),
            "acme/f@1 loaded stored; acme/f@2 current stored; acme/g@1 current; umbrella/f@1 current stored; ");
  EXPECT_EQ(told("acme"), "acme/f@1 loaded stored; acme/f@2 current stored; acme/g@1 current; ");
  EXPECT_EQ(told("acme", "g"), "acme/g@1 current; ");
  EXPECT_EQ(told("nobody"), "");
  const auto stored_bytes = registry_->images("umbrella")->at(0).stored_bytes;
  EXPECT_EQ(stored_bytes, files_->get(name_of(kForeign))->size());
}

TEST_F(ImageTest, ADescriptionHasTheImagesNumbers) {
  ASSERT_TRUE(registry_->publish({.id = kId, .wasm = module(), .config = FunctionConfig{.memory_max_bytes = 1 << 19}}));
  const auto function = *registry_->load(kId);
  const ImageDescription image = describe_image(*function->proto);
  EXPECT_EQ(image.format_version, faaslet::kImageFormatVersion);
  EXPECT_EQ(image.layout_version, wasm::kAbiVersion);
  EXPECT_EQ(image.module_digest, sha256(module()));
  EXPECT_EQ(image.initialisers, Initialisers::kCaptured);
  EXPECT_EQ(image.globals, 1u);
  ASSERT_EQ(image.memories.size(), 2u);
  EXPECT_EQ(image.memories[0].size_bytes, 2 * wasm::kPageBytes);
  EXPECT_EQ(image.memories[0].size_max_bytes, 8 * wasm::kPageBytes);  // the configuration's, below the module's 9
  EXPECT_EQ(image.memories[1].size_bytes, wasm::kPageBytes);
  EXPECT_EQ(image.memories[1].size_max_bytes, wasm::kPageBytes);
  ASSERT_EQ(image.tables.size(), 1u);
  EXPECT_EQ(image.tables[0].element, "funcref");
  EXPECT_EQ(image.tables[0].size, 2u);
  EXPECT_EQ(image.tables[0].size_max, 7u);
  EXPECT_GE(image.image_bytes, 3 * wasm::kPageBytes);
  EXPECT_GT(image.resident_bytes, 0u);
  EXPECT_LT(image.resident_bytes, 2 * wasm::kPageBytes);  // zeros take up nothing
}

TEST_F(ImageTest, ADescriptionTellsWhyInitialisersRunInEachCall) {
  ASSERT_TRUE(publish());
  const auto proto = (*registry_->load(kId))->proto;
  auto state = proto->state();
  state.initialised = false;
  EXPECT_EQ(describe_image(**faaslet::ProtoFaaslet::make(proto->object(), state)).initialisers, Initialisers::kNone);
  state.uninitialised_because = "it reads its input";
  const ImageDescription image = describe_image(**faaslet::ProtoFaaslet::make(proto->object(), state));
  EXPECT_EQ(image.initialisers, Initialisers::kInEachCall);
  EXPECT_EQ(image.because, "it reads its input");
}

}  // namespace
}  // namespace spore::functions
