#include "functions/record.h"

#include <gtest/gtest.h>

namespace spore::functions {
namespace {

Record sample() {
  Record record{.info = {.id = {"acme", "f"}, .current = 3}, .next_number = 7};
  for (const uint64_t number : {1, 3, 6}) {
    VersionInfo version{.number = number, .module_digest = sha256(as_bytes(std::to_string(number))), .wasm_bytes = 10};
    version.published_at = std::chrono::system_clock::time_point(std::chrono::milliseconds(1'700'000'000'000 + number));
    version.config.timeout_ms = number;
    record.info.versions.push_back(version);
  }
  return record;
}

TEST(Record, SurvivesJson) {
  const Record before = sample();
  const std::string json = record_to_json(before);
  const auto after = record_from_json("functions/acme/f.json", json);
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_EQ(record_to_json(*after), json);
  EXPECT_EQ(after->info.id, before.info.id);
  EXPECT_EQ(after->info.current_version().number, 3u);
  EXPECT_EQ(after->info.current_version().config.timeout_ms, 3u);
  EXPECT_EQ(after->info.versions[2].module_digest, before.info.versions[2].module_digest);
  EXPECT_EQ(after->info.versions[2].published_at, before.info.versions[2].published_at);
  EXPECT_EQ(after->next_number, 7u);
}

TEST(Record, IsRefusedUnderAnotherName) {
  EXPECT_FALSE(record_from_json("functions/acme/g.json", record_to_json(sample())));
  EXPECT_FALSE(record_from_json("functions/evil/f.json", record_to_json(sample())));
}

TEST(Record, EveryTruncationIsRefused) {
  const std::string json = record_to_json(sample());
  for (size_t size = 0; size < json.size(); ++size)
    EXPECT_FALSE(record_from_json("functions/acme/f.json", json.substr(0, size))) << size;
}

TEST(Record, InconsistentOnesAreRefused) {
  const auto refused = [](Record record) {
    const auto parsed = record_from_json("functions/acme/f.json", record_to_json(record));
    return !parsed && parsed.error().code == ErrorCode::kInternal;
  };
  Record record = sample();
  record.info.current = 2;
  EXPECT_TRUE(refused(record));
  record = sample();
  record.next_number = 6;
  EXPECT_TRUE(refused(record));
  record = sample();
  std::swap(record.info.versions[0], record.info.versions[1]);
  EXPECT_TRUE(refused(record));
  record = sample();
  record.info.versions.clear();
  EXPECT_TRUE(refused(record));
  record = sample();
  record.info.versions[0].config.timeout_ms = 0;
  EXPECT_TRUE(refused(record));
  record = sample();
  record.info.id.name = "../f";
  EXPECT_TRUE(refused(record));
}

TEST(Record, MissingOrOddFieldsAreRefused) {
  const std::string json = record_to_json(sample());
  for (const char* field : {"\"format\"", "\"tenant\"", "\"name\"", "\"current\"", "\"next\"", "\"versions\"",
                            "\"number\"", "\"module\"", "\"wasm_bytes\"", "\"published_unix_ms\"", "\"config\""}) {
    std::string changed = json;
    changed.replace(changed.find(field), 2, "\"x");
    EXPECT_FALSE(record_from_json("functions/acme/f.json", changed)) << field;
  }
  EXPECT_FALSE(record_from_json("functions/acme/f.json", std::string(100'000, '[')));
}

}  // namespace
}  // namespace spore::functions
