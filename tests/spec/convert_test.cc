#include "convert.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace spore::spec {
namespace {

TEST(BlankOut, RemovesTheFunctionAndItsAssertionAndKeepsLines) {
  std::string script =
      "(module\n"
      "  (func (export \"a\") (nop))\n"
      "  (func (export \"b\") (odd))) ;; (odd) in a comment\n"
      "(assert_return (invoke \"a\"))\n"
      "(assert_return (invoke \"b\")\n (odd))\n"
      "(; (assert_return (odd)) ;)(assert_trap (invoke \"\\\")odd\"))";
  EXPECT_EQ(blank_out(script, "odd"), 2u);
  EXPECT_TRUE(script.contains("(func (export \"a\") (nop))"));
  EXPECT_FALSE(script.contains("(export \"b\")"));
  EXPECT_TRUE(script.contains("(assert_return (invoke \"a\"))"));
  EXPECT_TRUE(script.contains("(; (assert_return (odd)) ;)"));
  EXPECT_EQ(std::count(script.begin(), script.end(), '\n'), 6);
  EXPECT_EQ(std::count(script.begin(), script.end(), '('), 10);
}

TEST(BlankOut, LeavesAScriptWithoutTheWordAlone) {
  std::string script = "(module (func (nop)))(assert_return (invoke \"odd\"))";
  const std::string before = script;
  EXPECT_EQ(blank_out(script, "even"), 0u);
  EXPECT_EQ(script, before);
}

}  // namespace
}  // namespace spore::spec
