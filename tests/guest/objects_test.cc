// The distributed data objects of the C++ SDK (guests/objects.cc), on two hosts with one global tier.
#include <gtest/gtest.h>

#include <thread>

#include "guest_runner.h"
#include "state/reference_tier.h"
#include "state_host.h"

namespace spore::host {

namespace {

using Kind = CallResult::Kind;

class Objects : public ::testing::Test {
 protected:
  // What the guest said, or how it ended.
  static std::string say(StateHost& host, std::vector<std::string> arguments) {
    const GuestRun run = host.run("objects", std::move(arguments));
    if (run.result.kind != Kind::kExited || run.result.exit_code != 0) return run.summary();
    return std::string(as_text(run.state.output));
  }
  // The error number with which it ended; -1: otherwise.
  static int error(StateHost& host, std::vector<std::string> arguments) {
    const GuestRun run = host.run("objects", std::move(arguments));
    return run.result.kind == Kind::kExited ? run.result.exit_code : -1;
  }

  state::ReferenceTier global_;
  StateHost a_{global_}, b_{global_};
};

constexpr int kEAGAIN = 6, kEBADMSG = 9, kEDOM = 18, kEFBIG = 22, kEINVAL = 28, kENOENT = 44, kESTALE = 72;
constexpr uint64_t kMiB = 1 << 20;

}  // namespace

TEST_F(Objects, StateIsOneValue) {
  EXPECT_EQ(error(a_, {"value", "v", "map"}), kENOENT);
  EXPECT_EQ(say(a_, {"value", "v", "map=10", "write=2,abc", "map"}), "10\n10\n");
  EXPECT_EQ(error(a_, {"value", "v", "map=11"}), kEINVAL);
  EXPECT_EQ(error(a_, {"value", "v", "write=8,abc"}), kEFBIG);
  EXPECT_EQ(say(a_, {"value", "v", "keys=v", "keys=w", "write=0,01", "write=5,56789", "print"}), "v \n\n01abc56789\n");
  EXPECT_EQ(error(b_, {"value", "v", "print"}), kENOENT);
  EXPECT_EQ(say(a_, {"value", "v", "push", "write=0,x", "push-if=0"}), "");
  EXPECT_EQ(error(a_, {"value", "v", "write=0,y", "push-if=1"}), kEAGAIN);
  EXPECT_EQ(say(b_, {"value", "v", "print", "keys"}), "x1abc56789\nv \n");
  EXPECT_EQ(say(a_, {"value", "v", "resize=5", "push"}), "");
  EXPECT_EQ(say(b_, {"value", "v", "pull", "print", "unmap"}), "y1abc\n");
  EXPECT_EQ(say(b_, {"value", "v", "remove"}), "");
  EXPECT_EQ(error(b_, {"value", "v", "pull"}), kENOENT);
}

TEST_F(Objects, LocksAreGivenBackOrPoisoned) {
  for (const std::string scope : {"host", "global"}) {
    const std::string write = "lock=write," + scope, read = "lock=read," + scope;
    EXPECT_EQ(say(a_, {"value", "v", write, write, read}), "locked\nlocked\nlocked\n");
    EXPECT_EQ(say(a_, {"value", "v", read, write}), "locked\nlocked\n");
    EXPECT_EQ(error(a_, {"value", "v", "die=write," + scope}), -1);
    EXPECT_EQ(say(scope == "host" ? a_ : b_, {"value", "v", write, write}), "poisoned\nlocked\n");
  }
}

TEST_F(Objects, CountersOfTwoHostsAddUp) {
  EXPECT_EQ(say(a_, {"counter", "c", "add=5", "print"}), "5\n");
  EXPECT_EQ(say(b_, {"counter", "c", "add=7", "push", "print"}), "7\n");
  EXPECT_EQ(say(a_, {"counter", "c", "push", "print", "pull", "print"}), "5\n12\n");
  EXPECT_EQ(say(b_, {"counter", "c", "add=-20", "pull", "print", "push", "push"}), "-8\n");
  EXPECT_EQ(say(a_, {"counter", "c", "pull", "print"}), "-8\n");
}

TEST_F(Objects, ACounterLosesNothingOfWhatManyAddAtOnce) {
  constexpr int kAdds = 1'000'000;
  std::vector<std::thread> threads;
  std::vector<std::string> said(4);
  for (size_t i = 0; i < said.size(); ++i)
    threads.emplace_back([&, i] {
      said[i] = say(i < 2 ? a_ : b_, {"counter", "c", "loop=" + std::to_string(kAdds) + ",10000", "push"});
    });
  for (auto& thread : threads) thread.join();
  for (const auto& line : said) EXPECT_EQ(line, "");
  for (StateHost* host : {&a_, &b_})
    EXPECT_EQ(say(*host, {"counter", "c", "pull", "print"}), std::to_string(4 * kAdds) + "\n");
}

TEST_F(Objects, ACounterRefusesAValueThatIsNone) {
  EXPECT_EQ(say(a_, {"value", "v", "map=10"}), "10\n");
  EXPECT_EQ(error(a_, {"counter", "v"}), kEINVAL);
  EXPECT_EQ(say(a_, {"value", "w", "map=8", "write=0,1"}), "8\n");
  EXPECT_EQ(error(a_, {"counter", "w"}), kESTALE);
}

TEST_F(Objects, ArraysArePushedInPages) {
  EXPECT_EQ(error(b_, {"array", "a", "0", "print=0"}), kENOENT);
  EXPECT_EQ(say(a_, {"array", "a", "2000", "set=0,1.5", "set=511,2.5", "set=512,3.5", "set=1999,4.5", "push=0,2"}), "");
  EXPECT_EQ(say(b_, {"array", "a", "0", "print=0", "print=511", "print=512", "print=1999"}),
            "1.5 of 2000\n2.5 of 2000\n0 of 2000\n0 of 2000\n");
  EXPECT_EQ(error(b_, {"array", "a", "2001", "print=0"}), kEINVAL);
  // On pages of his own, each keeps what he wrote.
  EXPECT_EQ(say(b_, {"array", "a", "2000", "set=1024,9", "push"}), "");
  EXPECT_EQ(say(a_, {"array", "a", "2000", "push", "pull=1024,1", "print=1024", "print=1999"}),
            "9 of 2000\n4.5 of 2000\n");
  EXPECT_EQ(say(b_, {"array", "a", "2000", "pull", "print=512"}), "3.5 of 2000\n");
}

TEST_F(Objects, AnAsyncArrayPushesItselfEverySoManyUpdates) {
  const std::vector<std::string> read = {"async-double", "w", "100", "0", "-", "pull", "print=1"};
  EXPECT_EQ(say(a_, {"async-double", "w", "100", "3", "-", "add=1,5", "add=2,1"}), "");
  EXPECT_EQ(error(b_, {"value", "w", "pull"}), kENOENT);
  EXPECT_EQ(say(a_, {"async-double", "w", "100", "3", "-", "add=1,1", "add=2,1", "add=1,2"}), "");
  EXPECT_EQ(say(b_, read), "8\n");
  EXPECT_EQ(say(a_, {"async-double", "w", "100", "3", "-", "add=1,1", "flush"}), "");
  EXPECT_EQ(say(b_, read), "9\n");
  // Both have something to add to the same page.
  EXPECT_EQ(say(b_, {"async-double", "w", "100", "2", "pull-too", "add=1,10"}), "");
  EXPECT_EQ(say(a_, {"async-double", "w", "100", "1", "-", "add=1,100", "add=3,1"}), "");
  EXPECT_EQ(say(b_, {"async-double", "w", "100", "2", "pull-too", "add=1,0", "add=1,1000", "print=1", "print=3"}),
            "1119\n1\n");
}

TEST_F(Objects, AsyncArraysLoseNothingBetweenHosts) {
  constexpr int kAdds = 30'000;
  std::vector<std::thread> threads;
  std::vector<std::string> said(4);
  // Integers by two of each host; doubles by one of each, as sums of doubles on one host are not atomic.
  for (size_t i = 0; i < said.size(); ++i)
    threads.emplace_back([&, i] {
      said[i] =
          say(i % 2 == 0 ? a_ : b_, {"async-int", "n", "10", "500", "-", "loop=" + std::to_string(kAdds), "flush"});
      if (i < 2)
        said[i] += say(i == 0 ? a_ : b_,
                       {"async-double", "d", "10", "500", "pull-too", "loop=" + std::to_string(kAdds), "flush"});
    });
  for (auto& thread : threads) thread.join();
  for (const auto& line : said) EXPECT_EQ(line, "");
  EXPECT_EQ(say(a_, {"async-int", "n", "10", "0", "-", "pull", "print=0", "print=9"}), "12000\n12000\n");
  EXPECT_EQ(say(b_, {"async-double", "d", "10", "0", "-", "pull", "print=0", "print=9"}), "6000\n6000\n");
}

TEST_F(Objects, AMatrixIsReadByColumnsWithoutTheRest) {
  EXPECT_EQ(error(a_, {"matrix", "m", "shape"}), kENOENT);
  EXPECT_EQ(say(a_, {"matrix", "m", "make"}), "");
  EXPECT_EQ(say(b_, {"matrix", "m", "shape", "check=0", "check=1", "check=700"}), "512 x 1024\n");
  EXPECT_GE(b_.fetched_bytes("m"), kMiB / 2);
  EXPECT_LE(b_.fetched_bytes("m"), kMiB) << "of 4 MiB";
  EXPECT_EQ(say(b_, {"matrix", "m", "check=1023", "check=511"}), "");
  const GuestRun run = b_.run("objects", {"matrix", "m", "trap=3"});
  EXPECT_EQ(run.result.kind, Kind::kTrapped) << run.summary();
  for (const char* other : {"other-shape", "other-type"})
    EXPECT_EQ(error(b_, {"matrix", "m", other}), kEINVAL) << other;
}

TEST_F(Objects, ColumnsOfAMatrixArePushedAlone) {
  EXPECT_EQ(say(a_, {"matrix", "m", "make"}), "");
  EXPECT_EQ(say(b_, {"matrix", "m", "check=7", "check=900"}), "");
  EXPECT_EQ(say(a_, {"matrix", "m", "write"}), "");
  EXPECT_EQ(say(b_, {"matrix", "m", "check=7"}), "");
  EXPECT_EQ(say(b_, {"matrix", "m", "pull=900,1", "check=900"}), "");
  EXPECT_EQ(error(b_, {"matrix", "m", "check=7"}), kEDOM);
}

TEST_F(Objects, ASparseMatrixIsReadByColumnsWithoutTheRest) {
  EXPECT_EQ(error(a_, {"sparse", "s", "bad"}), kENOENT);
  EXPECT_EQ(say(a_, {"sparse", "s", "make"}), "");
  EXPECT_EQ(say(a_, {"sparse", "s", "shape", "check=0,200000"}), "5000 x 200000, 599994\n");
  EXPECT_EQ(say(b_, {"sparse", "s", "shape", "check=100000,500"}), "5000 x 200000, 599994\n");
  // The header, and of each of the three parts the columns' chunk, or two.
  EXPECT_GE(b_.fetched_bytes("s"), kMiB);
  EXPECT_LE(b_.fetched_bytes("s"), 7 * kMiB / 4) << "of 7.6 MiB";
  EXPECT_EQ(say(a_, {"value", "v", "map=100", "push"}), "100\n");
  EXPECT_EQ(error(b_, {"sparse", "v", "shape"}), kEINVAL);
}

TEST_F(Objects, ADictAgreesOnTheOrderOfChanges) {
  EXPECT_EQ(say(a_, {"dict", "d", "print=x", "set=x,1", "set=y,2", "print=x"}), "none of 0\n1 of 2\n");
  EXPECT_EQ(say(b_, {"dict", "d", "print=x", "set=x,3", "erase=y", "print=y"}), "1 of 2\nnone of 1\n");
  EXPECT_EQ(say(a_, {"dict", "d", "print=x", "erase=none", "set=,empty", "print="}), "3 of 1\nempty of 2\n");
  EXPECT_EQ(say(b_, {"dict", "d", "large=z,3000000", "set=small,1"}), "");
  EXPECT_EQ(say(a_, {"dict", "d", "length=z", "print=small", "erase=z"}), "3000000\n1 of 4\n");
}

TEST_F(Objects, ADictWritesOnlyOverWhatWasSeen) {
  EXPECT_EQ(say(a_, {"dict", "d", "see=x", "set-if=x,1", "print=x"}), "1 of 1\n");
  EXPECT_EQ(error(b_, {"dict", "d", "set-if=x,2"}), kEAGAIN);
  EXPECT_EQ(error(b_, {"dict", "d", "see=x", "set=x,3", "set-if=x,4"}), kEAGAIN);
  EXPECT_EQ(error(b_, {"dict", "d", "see=x", "erase=x", "set-if=x,4"}), kEAGAIN);
  EXPECT_EQ(say(a_, {"dict", "d", "print=x", "see=x", "set-if=x,5", "print=x"}), "none of 0\n5 of 1\n");
}

TEST_F(Objects, ADictLosesNoIncreaseOfWhatManyCompareAndSet) {
  std::vector<std::thread> threads;
  std::vector<std::string> said(3);
  for (size_t i = 0; i < said.size(); ++i)
    threads.emplace_back([&, i] { said[i] = say(i < 2 ? a_ : b_, {"dict", "d", "increase=n,40"}); });
  for (auto& thread : threads) thread.join();
  for (const auto& line : said) EXPECT_EQ(line, "");
  EXPECT_EQ(say(b_, {"dict", "d", "print=n"}), "120 of 1\n");
}

TEST_F(Objects, ADictIsCompacted) {
  EXPECT_EQ(say(a_, {"dict", "d", "set=x,1", "increase=n,100", "erase=x", "set=y,2"}), "");
  EXPECT_EQ(say(b_, {"dict", "d", "print=n"}), "100 of 2\n");
  EXPECT_EQ(say(a_, {"dict", "d", "compact", "log", "print=n", "set=z,3"}), "64\n100 of 2\n");
  EXPECT_EQ(say(b_, {"dict", "d", "print=n", "print=y", "print=z"}), "100 of 3\n2 of 3\n3 of 3\n");
  EXPECT_EQ(say(b_, {"dict", "d", "erase=n", "erase=y", "erase=z", "compact", "print=n"}), "none of 0\n");
  EXPECT_EQ(say(a_, {"dict", "d", "print=n", "set=n,1", "print=n"}), "none of 0\n1 of 1\n");
}

TEST_F(Objects, ADictRefusesAValueThatIsNone) {
  EXPECT_EQ(say(a_, {"value", "v", "map=100", "write=0,no dictionary", "push"}), "100\n");
  EXPECT_EQ(error(a_, {"dict", "v", "print=x"}), kEBADMSG);
  EXPECT_EQ(say(a_, {"value", "w", "map=7", "push"}), "7\n");
  EXPECT_EQ(error(a_, {"dict", "w", "print=x"}), kEBADMSG);
}

TEST_F(Objects, AListIsInOneOrder) {
  EXPECT_EQ(say(a_, {"list", "l", "size", "append=10", "size", "get=0"}), "0\nat 0\n1\n10 11 12\n");
  EXPECT_EQ(say(b_, {"list", "l", "append=20", "append-two=30", "get=2"}), "at 1\nat 2\n30 0 0\n");
  EXPECT_EQ(say(a_, {"list", "l", "size", "pull", "size", "sum"}), "1\n4\n91 in 4\n");
  EXPECT_EQ(error(a_, {"list", "l", "get=4"}), kEFBIG);
  EXPECT_EQ(say(a_, {"list", "l", "clear"}), "");
  EXPECT_EQ(say(b_, {"list", "l", "pull", "append=1"}), "at 0\n");
  EXPECT_EQ(say(a_, {"value", "v", "map=7", "push"}), "7\n");
  EXPECT_EQ(error(a_, {"list", "v", "append=1"}), kEBADMSG);
}

TEST_F(Objects, AListHasAllThatManyAppend) {
  std::vector<std::thread> threads;
  std::vector<std::string> said(3);
  for (size_t i = 0; i < said.size(); ++i)
    threads.emplace_back([&, i] { said[i] = say(i < 2 ? a_ : b_, {"list", "l", "loop=100"}); });
  for (auto& thread : threads) thread.join();
  for (const auto& line : said) EXPECT_EQ(line, "");
  EXPECT_EQ(say(b_, {"list", "l", "pull", "sum"}), "15150 in 300\n");
}

}  // namespace spore::host
