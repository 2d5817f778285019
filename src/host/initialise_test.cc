#include "host/initialise.h"

#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "host/entry.h"
#include "host/imports.h"
#include "host/run.h"
#include "support/runtime.h"

namespace spore::host {
namespace {

using faaslet::ProtoFaaslet;
using Image = std::shared_ptr<const ProtoFaaslet>;
using std::chrono::milliseconds;

// What is logged while it lives.
class CapturedLog {
 public:
  CapturedLog() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~CapturedLog() { spdlog::set_default_logger(before_); }
  CapturedLog(const CapturedLog&) = delete;
  CapturedLog& operator=(const CapturedLog&) = delete;
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

// `fields`: of a module with one memory, whose bytes 0 to 15 are an iovec of 8 bytes at 16.
Image instantiated(const std::string& fields, uint64_t pages_max = wasm::kMemory32PagesMax) {
  const std::string text = R"((module
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $environ_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
    (import "spore" "output_write" (func $output_write (param i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\08\00\00\00")
    (global $order (mut i32) (i32.const 0))
    (func $note (param i32)
      (global.set $order (i32.add (i32.mul (global.get $order) (i32.const 10)) (local.get 0)))
      (i32.store (i32.const 16) (global.get $order)))
    (func $answer (drop (call $output_write (i32.const 16) (i32.const 8)))))" +
                           fields + ")";
  auto ready = testing::prepare(text);
  EXPECT_TRUE(ready.has_value()) << (ready ? "" : ready.error().message);
  auto image = ProtoFaaslet::make_instantiated(ready->object, pages_max);
  EXPECT_TRUE(image.has_value()) << (image ? "" : image.error().message);
  return *image;
}

constexpr const char* kCall = R"((func (export "spore_call") (call $answer)))";

Result<Image> initialise(const Image& image, milliseconds timeout = milliseconds(60'000)) {
  return host::initialise(image,
                          {.name = "acme/f", .arguments = {"f", "x"}, .environment = {"A=b"}, .timeout = timeout});
}
// Of a reactor whose `spore_init` does this.
Result<Image> initialise(const std::string& body, const std::string& more = "") {
  return initialise(instantiated(kCall + more + R"((func $init (export "spore_init") )" + body + ")"));
}

uint64_t peek(const ProtoFaaslet& image, uint64_t address) {
  uint64_t value = 0;
  std::memcpy(&value, image.image() - image.regions()[0].offset + address, sizeof(value));
  return value;
}

// What a call from the image gives: its output as a number.
uint64_t call(const Image& image) {
  auto state = HostState::make({});
  const auto links = link(image->module());
  const auto entry = find_entry(image->module());
  EXPECT_TRUE(state && links && entry);
  auto slot = faaslet::Slot::reserve();
  EXPECT_TRUE(slot.has_value());
  auto faaslet = faaslet::Faaslet::restore(std::move(*slot), image, *links, &*state);
  EXPECT_TRUE(faaslet.has_value());
  testing::seat().begin_call();
  const CallResult result = Run(**faaslet, *state, *entry, image->initialised()).finish(testing::seat(), {});
  testing::seat().end_call();
  EXPECT_EQ(result.kind, CallResult::Kind::kExited) << result.trap.message;
  uint64_t value = 0;
  std::memcpy(&value, state->output.data(), std::min(state->output.size(), sizeof(value)));
  return value;
}

Bytes file_of(const ProtoFaaslet& image) {
  return faaslet::serialize(image.state(), image.object()->object().module_digest);
}

void expect_refused(const Result<Image>& result, ErrorCode code, std::string_view message) {
  ASSERT_FALSE(result.has_value()) << message;
  EXPECT_EQ(result.error().code, code);
  EXPECT_TRUE(result.error().message.starts_with(message)) << result.error().message;
}

// The image is as instantiated, and says why.
void expect_in_each_call(const Result<Image>& result, std::string_view because) {
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_FALSE((*result)->initialised());
  EXPECT_EQ((*result)->uninitialised_because(), because);
  EXPECT_EQ(peek(**result, 16), 0u);
}

// ---- what runs ------------------------------------------------------------------------------------------------------

TEST(Initialise, AModuleWithoutInitialisersKeepsItsImage) {
  const Image image = instantiated(kCall);
  EXPECT_EQ(*initialise(image), image);
  EXPECT_FALSE(image->initialised());
  EXPECT_EQ(image->uninitialised_because(), "");
}

TEST(Initialise, ACommandDoesNotRun) {
  const Image image = instantiated(R"((func (export "_start") unreachable) (func (export "_initialize") unreachable))");
  EXPECT_EQ(*initialise(image), image);
}

TEST(Initialise, TheStartSectionOfACommandDoes) {
  const Image image = instantiated(R"((func $begin (call $note (i32.const 7))) (start $begin)
                                      (func (export "_start") (call $answer)))");
  const auto result = initialise(image);
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE((*result)->initialised());
  EXPECT_EQ(peek(**result, 16), 7u);
  EXPECT_EQ(call(*result), 7u);
  EXPECT_EQ(peek(*image, 16), 0u);
}

constexpr const char* kAllHooks = R"(
  (func (export "spore_call") (call $note (i32.const 6)) (call $answer))
  (func (export "spore_after_restore") (call $note (i32.const 5)))
  (func (export "spore_before_snapshot") (call $note (i32.const 4)))
  (func (export "spore_init") (call $note (i32.const 3)))
  (func (export "_initialize") (call $note (i32.const 2)))
  (func $begin (call $note (i32.const 1))) (start $begin))";

TEST(Initialise, AllRunInOrderOnceAndACallGoesOnBehindThem) {
  const auto result = initialise(instantiated(kAllHooks));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE((*result)->initialised());
  EXPECT_EQ(peek(**result, 16), 1234u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(call(*result), 123456u);
}

TEST(Initialise, AHookAloneMakesAnImage) {
  const auto before = initialise(
      instantiated(std::string(kCall) + R"((func (export "spore_before_snapshot") (call $note (i32.const 4))))"));
  ASSERT_TRUE(before.has_value());
  EXPECT_EQ(call(*before), 4u);
  const auto after = initialise(
      instantiated(std::string(kCall) + R"((func (export "spore_after_restore") (call $note (i32.const 5))))"));
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(peek(**after, 16), 0u);
  EXPECT_EQ(call(*after), 5u);
}

TEST(Initialise, MemoryItGrowsIsInTheImage) {
  const auto result = initialise(R"(
    (i32.store (i32.const 16) (memory.grow (i32.const 3))) (i32.store (i32.const 200000) (i32.const 77)))");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ((*result)->memory_bytes(), 4 * wasm::kPageBytes);
  EXPECT_EQ(peek(**result, 16), 1u);
  EXPECT_EQ(peek(**result, 200000), 77u);
}

TEST(Initialise, GrowthEndsAtTheFunctionsLimit) {
  const auto result = initialise(instantiated(
      std::string(kCall) + R"((func (export "spore_init") (i32.store (i32.const 16) (memory.grow (i32.const 4)))))",
      4));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ((*result)->memory_bytes(), wasm::kPageBytes);
  EXPECT_EQ(static_cast<int32_t>(peek(**result, 16)), -1);
}

TEST(Initialise, ItSeesArgumentsAndEnvironment) {
  const auto result = initialise(R"(
    (drop (call $args_get (i32.const 100) (i32.const 200))) (drop (call $environ_get (i32.const 120) (i32.const 300))))");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  const uint64_t arguments = peek(**result, 200), environment = peek(**result, 300);
  EXPECT_EQ(std::memcmp(&arguments, "f\0x\0", 4), 0);
  EXPECT_EQ(std::memcmp(&environment, "A=b\0", 4), 0);
}

// A subscription to the monotonic clock, for so many nanoseconds, at 64; then waits for it.
std::string sleep_for(uint64_t ns) {
  return "(i32.store (i32.const 80) (i32.const 1)) (i64.store (i32.const 88) (i64.const " + std::to_string(ns) +
         ")) (i32.store (i32.const 16) (i32.add (i32.const 100)"
         " (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 200))))";
}

TEST(Initialise, ItMaySleep) {
  const auto result = initialise(sleep_for(1'000'000));
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE((*result)->initialised());
  EXPECT_EQ(peek(**result, 16), 100u);
  EXPECT_EQ(peek(**result, 200) & 0xffffffff, 1u);  // one event
}

// ---- time stands still ----------------------------------------------------------------------------------------------

TEST(Initialise, ClocksStandStillSoThatImagesAreEqual) {
  std::string body;
  for (int look = 0; look < 8; ++look)
    body += "(drop (call $clock_time_get (i32.const " + std::to_string(look % 4) + ") (i64.const 1) (i32.const " +
            std::to_string(256 + 8 * look) + ")))";
  const std::string module = R"((func (export "spore_init") )" + body + R"()
    (func (export "spore_call") (drop (call $clock_time_get (i32.const 0) (i64.const 1) (i32.const 16))) (call $answer)))";
  const auto first = initialise(instantiated(module)), second = initialise(instantiated(module));
  ASSERT_TRUE(first.has_value() && second.has_value());
  EXPECT_EQ(file_of(**first), file_of(**second));
  // Each clock goes on by its own small step, so that a loop which waits for it ends.
  for (int clock = 0; clock < 4; ++clock)
    EXPECT_GT(peek(**first, 256 + 32 + 8 * clock), peek(**first, 256 + 8 * clock)) << clock;
  // A call has the real time.
  EXPECT_GT(call(*first), peek(**first, 256) + 1'000'000'000);
}

// ---- what makes it run in each call ---------------------------------------------------------------------------------

TEST(Initialise, OneThatReadsItsInputRunsInEachCall) {
  expect_in_each_call(initialise("(call $note (i32.const 3))"
                                 "(drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 60)))"),
                      "the initialiser init calls fd_read");
}

TEST(Initialise, OneThatWritesOutputRunsInEachCall) {
  expect_in_each_call(initialise("(call $note (i32.const 3)) (call $answer)"),
                      "the initialiser init calls output_write");
  const auto result = initialise(
      "(call $note (i32.const 3))"
      "(drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 60)))");
  expect_in_each_call(result, "the initialiser init writes output");
}

TEST(Initialise, OneThatAsksForRandomBytesRunsInEachCall) {
  const std::string random = "(call $note (i32.const 3)) (drop (call $random_get (i32.const 24) (i32.const 8)))";
  const auto result = initialise(random);
  expect_in_each_call(result, "the initialiser init calls random_get");
  EXPECT_EQ(call(*result), 3u);
}

TEST(Initialise, OneThatReseedsMayHaveRandomBytes) {
  const auto result = initialise("(call $note (i32.const 3)) (drop (call $random_get (i32.const 24) (i32.const 8)))",
                                 R"((func (export "spore_after_restore") (call $note (i32.const 5))))");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE((*result)->initialised());
  EXPECT_EQ(peek(**result, 16), 3u);
  EXPECT_NE(peek(**result, 24), 0u);
  EXPECT_EQ(call(*result), 35u);
}

// ---- what is refused ------------------------------------------------------------------------------------------------

TEST(Initialise, OneThatTrapsIsNamedWithItsStack) {
  expect_refused(initialise("(call $deep)", "(func $deep unreachable)"), ErrorCode::kInvalidModule,
                 "the initialiser init traps: ");
  const auto result = initialise("(call $deep)", "(func $deep unreachable)");
  EXPECT_NE(result.error().message.find("(in deep < init)"), std::string::npos) << result.error().message;
  expect_refused(initialise("(call $init)"), ErrorCode::kInvalidModule, "the initialiser init traps: ");
}

TEST(Initialise, TheFirstThatFailsIsNamed) {
  expect_refused(initialise(instantiated(std::string(kCall) + R"(
    (func $first (export "_initialize") unreachable) (func $second (export "spore_init") unreachable))")),
                 ErrorCode::kInvalidModule, "the initialiser first traps: ");
  expect_refused(initialise(instantiated(std::string(kCall) + R"(
    (func $last (export "spore_before_snapshot") unreachable) (func $init (export "spore_init")))")),
                 ErrorCode::kInvalidModule, "the initialiser last traps: ");
}

TEST(Initialise, OneThatDoesNotEndIsStopped) {
  const auto of = [](const std::string& body) {
    return instantiated(std::string(kCall) + R"((func $init (export "spore_init") )" + body + ")");
  };
  for (const Image& image : {of("(loop $again (br $again))"), of(sleep_for(3'600'000'000'000))})
    expect_refused(initialise(image, milliseconds(20)), ErrorCode::kDeadlineExceeded,
                   "the initialiser init did not end within 20 ms");
}

TEST(Initialise, OneThatExitsIsRefused) {
  expect_refused(initialise("(call $proc_exit (i32.const 3))"), ErrorCode::kInvalidModule,
                 "the initialiser init exits with code 3");
  expect_refused(initialise("(call $proc_exit (i32.const 0))"), ErrorCode::kInvalidModule,
                 "the initialiser init exits with code 0");
}

// One module for each import that an initialiser cannot have as it is: it calls that with zeros.
TEST(Initialise, EveryImportIsTreatedAsItsRuleSays) {
  const auto module = [](const ImportDeclaration& import, const std::string& more) {
    std::string type, arguments, results;
    for (const auto param : import.signature.params) {
      const std::string name(wasm::to_string(param));
      type += " (param " + name + ")";
      arguments += " (" + name + ".const 0)";
    }
    for (const auto result : import.signature.results) {
      type += " (result " + std::string(wasm::to_string(result)) + ")";
      results += " (drop";
    }
    const std::string text =
        "(module (import \"" + std::string(import.module) + "\" \"" + std::string(import.name) + "\" (func $f" + type +
        ")) (memory (export \"memory\") 1)" + R"((func (export "spore_call")) (func $init (export "spore_init") )" +
        results + " (call $f" + arguments + ")" + std::string(import.signature.results.size(), ')') + ")" + more + ")";
    auto ready = testing::prepare(text);
    EXPECT_TRUE(ready.has_value()) << text;
    return ready->proto;
  };
  int refused = 0;
  for (const ImportDeclaration& import : imports()) {
    if (import.in_initialiser == InInitialiser::kMay) continue;
    // Of several that are one function, the first is told.
    const std::string name(std::ranges::find(imports(), import.function, &ImportDeclaration::function)->name);
    const auto result = initialise(module(import, ""));
    if (import.in_initialiser == InInitialiser::kRefused) {
      ++refused;
      expect_refused(result, ErrorCode::kInvalidModule,
                     "the initialiser init calls " + name + ": an initialiser cannot use files");
      continue;
    }
    expect_in_each_call(result, "the initialiser init calls " + name);
    if (import.in_initialiser != InInitialiser::kRandom) continue;
    const auto reseeded = initialise(module(import, R"((func (export "spore_after_restore")))"));
    ASSERT_TRUE(reseeded.has_value()) << name;
    EXPECT_TRUE((*reseeded)->initialised()) << name;
  }
  EXPECT_GE(refused, 10);  // path_open among them
}

// ---- what it says ---------------------------------------------------------------------------------------------------

// Says the bytes at `from`.
std::string say(uint32_t from, uint32_t size) {
  return "(i32.store (i32.const 0) (i32.const " + std::to_string(from) + ")) (i32.store (i32.const 4) (i32.const " +
         std::to_string(size) + ")) (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 60)))";
}

TEST(Initialise, ItsLogGoesToTheHostsLogLineByLine) {
  const CapturedLog log;
  const auto result = initialise(say(300, 10) + say(310, 9), R"((data (i32.const 300) "one\n\1b[2Jtwo, and more"))");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_TRUE((*result)->initialised());
  EXPECT_EQ(log.text(), "acme/f: initialiser: one\nacme/f: initialiser: ?[2Jtwo, and mo\n");
}

TEST(Initialise, EachHasItsOwnLog) {
  const CapturedLog log;
  const auto result =
      initialise(say(300, 4), R"((data (i32.const 300) "two.one.") (func (export "_initialize") )" + say(304, 4) + ")");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_EQ(log.text(), "acme/f: initialiser: one.\nacme/f: initialiser: two.\n");
}

TEST(Initialise, OneThatTrapsHasItsLogToldToo) {
  const CapturedLog log;
  EXPECT_FALSE(initialise(say(300, 4) + "unreachable", R"((data (i32.const 300) "help"))").has_value());
  EXPECT_EQ(log.text(), "acme/f: initialiser: help\n");
}

TEST(Initialise, ItsLogIsBounded) {
  const CapturedLog log;
  const auto result = initialise("(local $i i32) (loop $again " + say(300, 60000) + R"(
    (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 100)))))");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  EXPECT_GT(log.text().size(), 60000u);
  EXPECT_LT(log.text().size(), 70000u);
}

}  // namespace
}  // namespace spore::host
