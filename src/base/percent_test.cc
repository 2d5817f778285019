#include "base/percent.h"

#include <gtest/gtest.h>

namespace spore {

TEST(Percent, EncodingIsReversibleAndSafeInPaths) {
  for (const std::string text : {"plain-1_2~.txt", "..", ".", "a/b", "%2F", "{tag}", "\xc3\xa9", "a b", "..."}) {
    const std::string encoded = percent_encode(text);
    EXPECT_EQ(encoded.find_first_of("/{} "), std::string::npos) << encoded;
    EXPECT_NE(encoded, "..");
    EXPECT_NE(encoded, ".");
    EXPECT_EQ(percent_decode(encoded), text);
  }
  EXPECT_EQ(percent_encode(".."), "%2E%2E");
}

TEST(Percent, EncodingLeavesWhatNeedsNoEscape) {
  EXPECT_EQ(percent_encode("aZ0._-~/ ?%\xc3"), "aZ0._-~%2F%20%3F%25%C3");
}

TEST(Percent, DecodingRefusesWhatIsCutOffOrNotHexadecimal) {
  EXPECT_EQ(percent_decode("%2f%2F"), "//");
  EXPECT_EQ(percent_decode(""), "");
  for (const char* wrong : {"%", "%4", "a%", "%zz", "%4g", "%-1", "%%41"})
    EXPECT_EQ(percent_decode(wrong), std::nullopt) << wrong;
}

}  // namespace spore
