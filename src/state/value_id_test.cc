#include "state/value_id.h"

#include <gtest/gtest.h>

namespace spore::state {

TEST(Key, IsOneToFiveHundredAndTwelveBytesOfUtf8) {
  EXPECT_TRUE(check_key("a"));
  EXPECT_TRUE(check_key(std::string(512, 'k')));
  EXPECT_TRUE(check_key("a/b/../{x}%41 \xc3\xa9 \xf0\x9f\x98\x80"));
  EXPECT_FALSE(check_key(""));
  EXPECT_FALSE(check_key(std::string(513, 'k')));
  EXPECT_FALSE(check_key(std::string_view("a\0b", 3)));
  for (const char* wrong :
       {"\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xf0\x80\x80\x80", "a\xe2\x82"})
    EXPECT_FALSE(check_key(wrong)) << wrong;
}

TEST(Key, TenantsHaveDifferentIds) {
  EXPECT_NE(tenant_id("a"), tenant_id("b"));
  EXPECT_EQ(tenant_id("a"), tenant_id("a"));
}

}  // namespace spore::state
