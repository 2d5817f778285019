// docs/host-interface.md is written from the table of imports; docs/wasi.md tells each function of WASI with its tests.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "base/fd.h"
#include "host/imports.h"

namespace spore::host {
namespace {

std::set<std::string> names_of_tests() {
  std::set<std::string> names;
  const auto& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const auto& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      names.insert(std::string(suite.name()) + "." + suite.GetTestInfo(j)->name());
      names.insert(suite.GetTestInfo(j)->name());
    }
  }
  return names;
}

// What stands between backquotes.
std::vector<std::string> between_backquotes(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = text.find('`'); begin != std::string::npos; begin = text.find('`', begin + 1)) {
    const size_t end = text.find('`', begin + 1);
    if (end == std::string::npos) break;
    out.push_back(text.substr(begin + 1, end - begin - 1));
    begin = end;
  }
  return out;
}

// The table's rows: a function's name, and the names in its last column.
std::map<std::string, std::vector<std::string>> tests_by_function(std::istream& page) {
  std::map<std::string, std::vector<std::string>> out;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("| `") || !line.ends_with(" |")) continue;
    const size_t last = line.rfind('|', line.size() - 2);
    const std::string function = between_backquotes(line).front();
    EXPECT_TRUE(out.emplace(function, between_backquotes(line.substr(last))).second)
        << function << " stands there twice";
  }
  return out;
}

TEST(Documentation, WasiPageHasAllFunctionsAndTheirTests) {
  std::ifstream page(std::filesystem::path(SPORE_SOURCE) / "docs/wasi.md");
  ASSERT_TRUE(page);
  const auto rows = tests_by_function(page);
  const auto tests = names_of_tests();
  size_t functions = 0;
  for (const auto& import : imports()) {
    if (import.module != "wasi_snapshot_preview1") continue;
    ++functions;
    const std::string name(import.name);
    const auto row = rows.find(name);
    if (row == rows.end()) {
      ADD_FAILURE() << name << " is missing";
      continue;
    }
    EXPECT_EQ(std::count(row->second.begin(), row->second.end(), "MeetsItsSpecification/" + name), 1) << name;
    for (const auto& test : row->second) EXPECT_TRUE(tests.contains(test)) << name << " names no test: " << test;
  }
  EXPECT_EQ(functions, 46u);
  EXPECT_EQ(rows.size(), functions);
}

TEST(Documentation, HostInterfacePageIsTheTable) {
  const std::filesystem::path path = std::filesystem::path(SPORE_SOURCE) / "docs/host-interface.md";
  if (::getenv("SPORE_UPDATE_DOCS")) {
    std::filesystem::create_directories(path.parent_path());
    ASSERT_TRUE(write_file_atomically(path, as_bytes(render_documentation())));
  }
  const auto page = read_file(path);
  ASSERT_TRUE(page) << page.error().message;
  EXPECT_EQ(as_text(*page), render_documentation()) << "SPORE_UPDATE_DOCS=1 guest_test writes it anew";
}

}  // namespace
}  // namespace spore::host
