// Standard streams that are descriptors of the process, as under `spore run`.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "guest_runner.h"

namespace spore::host {
namespace {

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    reader = UniqueFd(fds[0]);
    writer = UniqueFd(fds[1]);
  }
  UniqueFd reader;
  UniqueFd writer;
};

std::string read_to_end(int fd) {
  auto bytes = read_all(fd);
  EXPECT_TRUE(bytes);
  return bytes ? std::string(as_text(*bytes)) : "";
}

// More than a pipe holds, so that both sides wait for each other.
std::string large_text() {
  std::string text;
  for (int i = 0; text.size() < 1'000'000; ++i) text += "word" + std::to_string(i) + " ";
  return text;
}

// Runs the guest between two pipes while this feeds the one and reads the other.
struct Piped {
  GuestRun run;
  std::string out;
};
Piped run_piped(const std::string& guest, const std::string& in) {
  Pipe input;
  Pipe output;
  Pipe errors;
  CallSetup setup;
  setup.streams = {.in = input.reader.get(), .out = output.writer.get(), .err = errors.writer.get()};
  std::string out;
  std::thread feeder([&] {
    EXPECT_TRUE(write_all(input.writer.get(), as_bytes(in)));
    input.writer.reset();
  });
  std::thread drainer([&] { out = read_to_end(output.reader.get()); });
  GuestRun run = run_guest(guest, {}, std::move(setup));
  // Never made non-blocking: others share these.
  EXPECT_EQ(::fcntl(input.reader.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(output.writer.get(), F_GETFL) & O_NONBLOCK, 0);
  output.writer.reset();
  feeder.join();
  drainer.join();
  return {std::move(run), std::move(out)};
}

TEST(StandardStreams, PipesAreReadAndWrittenWhole) {
  const std::string in = large_text();
  const Piped piped = run_piped("upper", in);
  EXPECT_EQ(piped.run.result.exit_code, 0) << piped.run.summary();
  std::string wanted = in;
  for (char& c : wanted) c = static_cast<char>(::toupper(c));
  EXPECT_TRUE(piped.out == wanted) << piped.out.size() << " bytes";
  EXPECT_TRUE(piped.run.state.output.empty());
}

TEST(StandardStreams, ReactorGetsTheWholeStreamAsItsInput) {
  const std::string in = large_text();
  const Piped piped = run_piped("reactor", in);
  EXPECT_EQ(piped.run.result.exit_code, 41) << piped.run.summary();
  EXPECT_TRUE(piped.out == std::string(in.rbegin(), in.rend())) << piped.out.size() << " bytes";
}

TEST(StandardStreams, InputOverTheLimitEndsTheCall) {
  Pipe input;
  CallSetup setup;
  setup.streams.in = input.reader.get();
  setup.limits.input_bytes_max = 1000;
  EXPECT_TRUE(write_all(input.writer.get(), as_bytes(std::string(1001, 'x'))));
  const GuestRun run = run_guest("reactor", {}, std::move(setup));
  EXPECT_EQ(run.result.kind, CallResult::Kind::kTrapped) << run.summary();
  EXPECT_EQ(run.result.trap.message, "the input is larger than 1000 bytes");
}

TEST(StandardStreams, PollWaitsForInput) {
  Pipe input;
  CallSetup setup;
  setup.streams.in = input.reader.get();
  const GuestRun run = run_guest("wait", {"stdin"}, std::move(setup), {},
                                 [&](auto) { EXPECT_TRUE(write_all(input.writer.get(), as_bytes("hello"))); });
  EXPECT_EQ(run.result.kind, CallResult::Kind::kExited) << run.summary();
  EXPECT_EQ(run.result.exit_code, 0) << run.summary();
}

TEST(StandardStreams, FileIsReadFromWhereItStands) {
  TemporaryDirectory root;
  const auto path = root.path() / "in";
  ASSERT_TRUE(write_file_atomically(path, as_bytes("skipped, read")));
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::lseek(file.get(), 9, SEEK_SET), 9);
  CallSetup setup;
  setup.streams.in = file.get();
  const GuestRun run = run_guest("upper", {}, std::move(setup));
  EXPECT_EQ(as_text(run.state.output), "READ") << run.summary();
}

TEST(StandardStreams, InterruptEndsAGuestThatWaitsForInput) {
  Pipe input;
  CallSetup setup;
  setup.streams.in = input.reader.get();
  const GuestRun run = run_guest("upper", {}, std::move(setup), {}, [](auto interrupt) { interrupt(); });
  EXPECT_EQ(run.result.kind, CallResult::Kind::kInterrupted) << run.summary();
}

}  // namespace
}  // namespace spore::host
