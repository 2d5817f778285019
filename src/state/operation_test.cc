#include "state/operation.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <future>

namespace spore::state {

namespace {

bool readable(int fd, int timeout_ms) {
  pollfd poll{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, timeout_ms) == 1;
}

}  // namespace

TEST(Operation, IsReadableOnceItHasEnded) {
  Operation operation;
  const int fd = operation.fd();
  EXPECT_FALSE(readable(fd, 0));
  operation.end(7);
  operation.end(8);
  EXPECT_TRUE(readable(fd, 0));
  EXPECT_EQ(operation.result(), 7);
  Operation ended_before;
  ended_before.end(fail(ErrorCode::kNotFound, "x"));
  EXPECT_TRUE(readable(ended_before.fd(), 0));
  EXPECT_EQ(ended_before.result().error().code, ErrorCode::kNotFound);
}

TEST(BlockingPool, ServesTenantsInTurns) {
  BlockingPool pool({.threads = 1});
  std::promise<void> begin;
  auto begun = begin.get_future().share();
  Guarded<std::string> order;
  const auto first = pool.start("x", [&]() -> Result<int64_t> {
    begun.wait();
    return 0;
  });
  std::vector<std::shared_ptr<Operation>> all;
  for (const char* tenant : {"a", "a", "a", "b", "c", "b"})
    all.push_back(pool.start(tenant, [&order, tenant]() -> Result<int64_t> {
      *order.lock() += tenant;
      return 0;
    }));
  begin.set_value();
  for (const auto& operation : all) ASSERT_TRUE(readable(operation->fd(), 10'000));
  EXPECT_EQ(*order.lock(), "abcaba");
}

TEST(BlockingPool, RefusesWhatIsBeyondItsBounds) {
  std::promise<void> begin;
  auto begun = begin.get_future().share();
  std::vector<std::shared_ptr<Operation>> all;
  {
    BlockingPool pool({.threads = 1, .queue_max = 3, .queue_per_tenant_max = 2});
    std::promise<void> running;
    all.push_back(pool.start("a", [&]() -> Result<int64_t> {
      running.set_value();
      begun.wait();
      return 1;
    }));
    running.get_future().wait();
    for (const char* tenant : {"a", "a", "a", "b", "b"}) all.push_back(pool.start(tenant, [] { return 2; }));
    ASSERT_TRUE(all[3]->ended());
    EXPECT_EQ(all[3]->result().error().code, ErrorCode::kResourceExhausted);
    EXPECT_FALSE(all[4]->ended());
    ASSERT_TRUE(all[5]->ended());
    begin.set_value();
  }
  EXPECT_EQ(all[0]->result(), 1);
  for (const auto& operation : all) EXPECT_TRUE(operation->ended());
}

}  // namespace spore::state
