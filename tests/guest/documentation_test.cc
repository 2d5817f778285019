// docs/host-interface.md is written from the table of imports.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "base/fd.h"
#include "host/imports.h"

namespace spore::host {
namespace {

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
