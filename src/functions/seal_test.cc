#include "functions/seal.h"

#include <gtest/gtest.h>

namespace spore::functions {
namespace {

const Bytes kKey(32, 7);

std::optional<std::string> unsealed(ByteSpan sealed, ByteSpan key = kKey, std::string_view kind = "kind",
                                    std::string_view name = "name") {
  const auto content = unseal(key, kind, name, sealed);
  if (!content) return std::nullopt;
  return std::string(as_text(*content));
}

TEST(Seal, GivesBackWhatWasSealed) {
  EXPECT_EQ(unsealed(seal(kKey, "kind", "name", as_bytes("content"))), "content");
  EXPECT_EQ(unsealed(seal(kKey, "kind", "name", {})), "");
  EXPECT_EQ(seal(kKey, "kind", "name", as_bytes("content")).size(), kSealBytes + 7);
}

TEST(Seal, NoBitMayChange) {
  const Bytes sealed = seal(kKey, "kind", "name", as_bytes("content"));
  for (size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
    Bytes changed = sealed;
    changed[bit / 8] ^= 1 << bit % 8;
    EXPECT_EQ(unsealed(changed), std::nullopt) << bit;
  }
}

TEST(Seal, NothingMayBeMissingOrMore) {
  Bytes sealed = seal(kKey, "kind", "name", as_bytes("content"));
  for (size_t size = 0; size < sealed.size(); ++size)
    EXPECT_EQ(unsealed(ByteSpan(sealed).first(size)), std::nullopt) << size;
  sealed.push_back(0);
  EXPECT_EQ(unsealed(sealed), std::nullopt);
}

TEST(Seal, IsGoodForOneKeyKindAndNameOnly) {
  const Bytes sealed = seal(kKey, "kind", "name", as_bytes("content"));
  EXPECT_EQ(unsealed(sealed, Bytes(32, 8)), std::nullopt);
  EXPECT_EQ(unsealed(sealed, kKey, "kinds"), std::nullopt);
  EXPECT_EQ(unsealed(sealed, kKey, "kind", "nam"), std::nullopt);
  // Where one ends and the next begins is part of it.
  EXPECT_EQ(unsealed(sealed, kKey, "kin", "dname"), std::nullopt);
  EXPECT_EQ(unsealed(sealed, kKey, "kindn", "ame"), std::nullopt);
}

}  // namespace
}  // namespace spore::functions
