#include "calls/schedule.h"

#include <gtest/gtest.h>

#include <string>

namespace spore::calls {
namespace {

using std::chrono::milliseconds;

constexpr Schedule::Room kRoom{.in_turn = true, .first = true};

CallId id_of(uint8_t number) {
  CallId id;
  id.bytes[0] = number;
  return id;
}

class ScheduleTest : public testing::Test {
 protected:
  void add(uint8_t number, const std::string& tenant, int at_ms = 0, Schedule::Order order = Schedule::Order::kInTurn) {
    schedule_.add(id_of(number), tenant, order, at(at_ms));
  }
  // The numbers of the calls that are taken, as they come.
  std::string take_all(int now_ms, Schedule::Room room = kRoom) {
    std::string out;
    while (const auto taken = schedule_.take(at(now_ms), room)) out += std::to_string(taken->id.bytes[0]) + " ";
    return out;
  }
  static Clock::time_point at(int ms) { return Clock::time_point(std::chrono::hours(1)) + milliseconds(ms); }

  Schedule schedule_;
};

TEST_F(ScheduleTest, TenantsTakeTurns) {
  for (const uint8_t number : {1, 2, 3, 4}) add(number, "many");
  add(5, "few");
  add(6, "other");
  add(7, "few");
  EXPECT_EQ(take_all(0), "1 5 6 2 7 3 4 ");
  EXPECT_EQ(schedule_.size(), 0u);
}

TEST_F(ScheduleTest, NothingIsTakenBeforeItIsDue) {
  add(1, "a", 100);
  add(2, "a", 50);
  EXPECT_EQ(schedule_.next_due(), at(50));
  EXPECT_EQ(take_all(49), "");
  EXPECT_EQ(take_all(50), "2 ");
  EXPECT_EQ(schedule_.next_due(), at(100));
  EXPECT_EQ(take_all(1000), "1 ");
  EXPECT_EQ(schedule_.next_due(), Clock::time_point::max());
}

TEST_F(ScheduleTest, CallsWhoseClientsWaitGoFirstWhereThereIsRoom) {
  add(1, "a");
  add(2, "a", 0, Schedule::Order::kFirst);
  EXPECT_EQ(take_all(0, {.in_turn = false, .first = false}), "");
  EXPECT_EQ(take_all(0, {.in_turn = false, .first = true}), "2 ");
  add(3, "b", 0, Schedule::Order::kFirst);
  EXPECT_EQ(take_all(0, {.in_turn = true, .first = false}), "1 ");
  EXPECT_EQ(take_all(0), "3 ");
}

TEST_F(ScheduleTest, WhatIsRemovedIsNotTakenAndWhatIsAddedAgainOnce) {
  add(1, "a");
  add(2, "a");
  add(3, "a", 500);
  EXPECT_TRUE(schedule_.remove(id_of(1)));
  EXPECT_FALSE(schedule_.remove(id_of(1)));
  add(3, "a", 10);
  EXPECT_EQ(take_all(0), "2 ");
  EXPECT_EQ(take_all(10), "3 ");
  EXPECT_EQ(take_all(1000), "");
  add(1, "b");  // a turn that was left behind hurts nobody
  EXPECT_EQ(take_all(1000), "1 ");
}

TEST(Backoff, DoublesUpToItsCap) {
  const milliseconds base(200), cap(60'000);
  for (const auto& [failures, most] :
       {std::pair{1u, 200}, {2u, 400}, {5u, 3'200}, {9u, 51'200}, {10u, 60'000}, {4'000'000'000u, 60'000}}) {
    EXPECT_EQ(backoff(failures, base, cap, 0), milliseconds(0));
    EXPECT_EQ(backoff(failures, base, cap, static_cast<uint64_t>(most)), milliseconds(most));
    EXPECT_EQ(backoff(failures, base, cap, static_cast<uint64_t>(most) + 1), milliseconds(0));
    EXPECT_LE(backoff(failures, base, cap, UINT64_MAX), milliseconds(most));
  }
  EXPECT_EQ(backoff(3, milliseconds(0), cap, UINT64_MAX), milliseconds(0));
}

}  // namespace
}  // namespace spore::calls
