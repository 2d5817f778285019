#include "host/host_state.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "host/wasi_abi.h"

namespace spore::host {
namespace {

HostState make(CallSetup setup = {}) {
  auto state = HostState::make(std::move(setup));
  EXPECT_TRUE(state) << state.error().message;
  return std::move(*state);
}

TEST(HostState, HasThreeStreamsAndThenThePreopenedDirectories) {
  CallSetup setup;
  setup.preopens = {{"/usr", "/data", Access::kReadOnly}, {"/", "/", Access::kReadWrite}};
  HostState state = make(std::move(setup));
  ASSERT_EQ(state.descriptors.size(), 5u);
  EXPECT_EQ(state.descriptor(0)->kind, Descriptor::Kind::kStdin);
  EXPECT_EQ(state.descriptor(2)->kind, Descriptor::Kind::kStderr);
  EXPECT_TRUE(state.descriptor(3)->is_preopen);
  EXPECT_EQ(state.descriptor(3)->path, "/data");
  EXPECT_EQ(state.descriptor(3)->access, Access::kReadOnly);
  EXPECT_EQ(state.descriptor(4)->preopen, 1u);
  EXPECT_EQ(state.descriptor(5), nullptr);
  EXPECT_EQ(state.descriptor(0xffffffff), nullptr);
}

TEST(HostState, MissingDirectoryIsNamed) {
  CallSetup setup;
  setup.preopens = {{"/nonesuch/here", "/", Access::kReadOnly}};
  const auto state = HostState::make(std::move(setup));
  ASSERT_FALSE(state);
  EXPECT_NE(state.error().message.find("/nonesuch/here"), std::string::npos) << state.error().message;
}

TEST(HostState, RefusesArgumentsWithNulAndTooMany) {
  CallSetup nul;
  nul.arguments = {std::string("a\0b", 3)};
  EXPECT_FALSE(HostState::make(std::move(nul)));
  CallSetup nul_environment;
  nul_environment.environment = {std::string("A=\0", 3)};
  EXPECT_FALSE(HostState::make(std::move(nul_environment)));
  CallSetup large;
  large.arguments = {std::string(kArgumentsBytesMax, 'x')};
  EXPECT_FALSE(HostState::make(std::move(large)));
}

TEST(HostState, DescriptorsTakeTheLowestFreeNumberUpToTheLimit) {
  CallSetup setup;
  setup.limits.descriptors_max = 5;
  HostState state = make(std::move(setup));
  EXPECT_EQ(state.add_descriptor({}), 3u);
  EXPECT_EQ(state.add_descriptor({}), 4u);
  EXPECT_EQ(state.add_descriptor({}), std::nullopt);
  state.descriptors[1].reset();
  EXPECT_EQ(state.add_descriptor({}), 1u);
  EXPECT_EQ(state.add_descriptor({}), std::nullopt);
}

TEST(HostState, OutputEndsAtItsLimit) {
  CallSetup setup;
  setup.limits.output_bytes_max = 10;
  HostState state = make(std::move(setup));
  int stream = 0;
  const auto may = [&](uint64_t bytes) { return state.direct_output(bytes, stream); };
  EXPECT_TRUE(may(0));
  EXPECT_EQ(stream, -1);
  EXPECT_EQ(state.extend_output(4).size(), 4u);
  EXPECT_TRUE(may(6));
  EXPECT_EQ(state.extend_output(6).data(), state.output.data() + 4);
  EXPECT_FALSE(state.output_overflow);
  EXPECT_TRUE(may(0));
  EXPECT_FALSE(may(1));
  EXPECT_TRUE(state.output_overflow);
  EXPECT_EQ(state.output.size(), 10u);
  EXPECT_FALSE(may(UINT64_MAX));
}

// Takes the output into descriptor 7, or does not.
struct Taker : CallStreams {
  explicit Taker(int fd) : stream(fd) {}
  bool hold_input(uint64_t) override { return true; }
  int begin_output(Bytes& so_far) override {
    ++asked;
    if (stream >= 0) taken = std::exchange(so_far, {});
    return stream;
  }
  int stream;
  int asked = 0;
  Bytes taken;
};

TEST(HostState, OutputThatIsTooLargeToBeHeldGoesToAStream) {
  Taker taker(7);
  CallSetup setup;
  setup.call_streams = &taker;
  setup.limits.output_bytes_max = 10;
  setup.limits.output_held_max = 4;
  HostState state = make(std::move(setup));
  int stream = 0;
  EXPECT_TRUE(state.direct_output(4, stream));
  EXPECT_EQ(stream, -1);
  state.extend_output(4);
  EXPECT_TRUE(state.direct_output(1, stream));
  EXPECT_EQ(stream, 7);
  EXPECT_EQ(taker.taken.size(), 4u);
  state.output_streamed += 1;
  EXPECT_TRUE(state.direct_output(5, stream));
  EXPECT_FALSE(state.direct_output(6, stream));  // the limit is that of all of it
  EXPECT_TRUE(state.output_overflow);
  EXPECT_EQ(taker.asked, 1);
}

TEST(HostState, OutputThatNobodyTakesGoesOnToBeHeld) {
  Taker taker(-1);
  CallSetup setup;
  setup.call_streams = &taker;
  setup.limits.output_bytes_max = 10;
  setup.limits.output_held_max = 4;
  HostState state = make(std::move(setup));
  int stream = 0;
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(state.direct_output(5, stream));
    EXPECT_EQ(stream, -1);
    state.extend_output(5);
  }
  EXPECT_EQ(taker.asked, 1);
  EXPECT_FALSE(state.direct_output(1, stream));
}

TEST(HostState, LogIsCutOffOnceAndSaysSo) {
  CallSetup setup;
  setup.limits.log_bytes_max = 8;
  HostState state = make(std::move(setup));
  state.append_log(as_bytes("12345"));
  EXPECT_FALSE(state.log_truncated);
  state.append_log(as_bytes("67890"));
  EXPECT_TRUE(state.log_truncated);
  EXPECT_EQ(as_text(state.log), "12345678\n[log cut off after 8 bytes]\n");
  state.append_log(as_bytes("more"));
  EXPECT_EQ(as_text(state.log), "12345678\n[log cut off after 8 bytes]\n");
}

TEST(HostState, StandardStreamsInBuffersAreNoTerminals) {
  HostState state = make();
  for (uint32_t fd = 0; fd < 3; ++fd) {
    EXPECT_EQ(state.descriptor(fd)->file_type, static_cast<uint8_t>(wasi::FileType::kUnknown));
  }
  EXPECT_FALSE(state.descriptor(0)->rights_base & wasi::rights::kFdWrite);
  EXPECT_FALSE(state.descriptor(1)->rights_base & wasi::rights::kFdRead);
}

}  // namespace
}  // namespace spore::host
