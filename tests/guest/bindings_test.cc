// The bindings of the SDKs: the same three steps in every language (guests/bindings_*), on two hosts with one global
// tier. A language whose tools are not here is skipped.
#include <gtest/gtest.h>

#include <filesystem>

#include "guest_runner.h"
#include "state/reference_tier.h"
#include "state_host.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;

struct Language {
  const char* name;
  bool step_by_input = false;  // a function without arguments
};
void PrintTo(const Language& language, std::ostream* to) { *to << language.name; }

std::string guest(const char* language) { return std::string("bindings_") + language; }
bool built(const char* language) {
  return std::filesystem::exists(std::filesystem::path(GUEST_MODULES) / (guest(language) + ".wasm"));
}

class Bindings : public ::testing::TestWithParam<Language> {};

}  // namespace

TEST_P(Bindings, ReachEveryCall) {
  const Language& language = GetParam();
  if (!built(language.name)) GTEST_SKIP() << "no tools for " << language.name << " when this was configured";
  state::ReferenceTier global;
  StateHost a(global), b(global);
  const auto take = [&](StateHost& host, const std::string& step) {
    const Bytes input(step.begin(), step.end());
    const GuestRun run =
        host.run(guest(language.name), language.step_by_input ? std::vector<std::string>{} : std::vector{step},
                 {.input = input});
    EXPECT_TRUE(run.result.kind == Kind::kExited && run.result.exit_code == 0) << step << ": " << run.summary();
    EXPECT_EQ(as_text(run.state.output), step);
  };
  take(a, "first");
  take(b, "second");
  take(a, "third");
}

INSTANTIATE_TEST_SUITE_P(In, Bindings,
                         ::testing::Values(Language{"c"}, Language{"rust"}, Language{"go"},
                                           Language{"assemblyscript", /*step_by_input=*/true}),
                         [](const auto& info) { return std::string(info.param.name); });

// The runtime's heap grows from below, windows lie above it, and its collector looks at neither.
TEST(GoBinding, HeapGrowsBesideMappedState) {
  if (!built("go")) GTEST_SKIP() << "no Go >= 1.21 when this was configured";
  state::ReferenceTier global;
  StateHost host(global);
  const GuestRun run = host.run(guest("go"), {"grow"});
  ASSERT_TRUE(run.result.kind == Kind::kExited && run.result.exit_code == 0) << run.summary();
  const auto replica = host.tier.find({"t", "go/large"});
  ASSERT_TRUE(replica);
  Bytes bytes(10 << 20), wanted(10 << 20);
  const iovec to{bytes.data(), bytes.size()};
  ASSERT_EQ(replica->try_read(0, {&to, 1}), 10 << 20);
  for (size_t i = 0; i < wanted.size(); ++i) wanted[i] = static_cast<uint8_t>(i * 7 + (i >> 12));
  EXPECT_TRUE(bytes == wanted);
}

}  // namespace spore::host
