#include "host/paths.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace spore::host {
namespace {

namespace fs = std::filesystem;
using wasi::Errno;

//   root/  inside/  file  dir/deep/  links: up -> .., out -> ../secret, absolute -> /etc, ok -> dir/deep, loop -> loop
//          secret
class PathsTest : public testing::Test {
 protected:
  PathsTest() {
    std::string name = (fs::temp_directory_path() / "spore-paths-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    fs::create_directories(root_ / "inside/dir/deep");
    std::ofstream(root_ / "inside/file") << "inside";
    std::ofstream(root_ / "secret") << "secret";
    fs::create_symlink("..", root_ / "inside/up");
    fs::create_symlink("../secret", root_ / "inside/out");
    fs::create_symlink("/etc", root_ / "inside/absolute");
    fs::create_symlink("dir/deep", root_ / "inside/ok");
    fs::create_symlink("loop", root_ / "inside/loop");
    directory_ = UniqueFd(::open((root_ / "inside").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~PathsTest() override { fs::remove_all(root_); }

  Errno open(const std::string& path, int flags = O_RDONLY) {
    const auto opened = open_beneath(directory_.get(), path, flags);
    return opened ? Errno::kSuccess : opened.error();
  }
  Errno parent(const std::string& path) {
    const auto found = open_parent(directory_.get(), path, Errno::kBusy);
    return found ? Errno::kSuccess : found.error();
  }

  fs::path root_;
  UniqueFd directory_;
};

TEST_F(PathsTest, OpensWhatIsBeneath) {
  EXPECT_EQ(open("file"), Errno::kSuccess);
  EXPECT_EQ(open("dir/../file"), Errno::kSuccess);
  EXPECT_EQ(open("./dir//deep/"), Errno::kSuccess);
  EXPECT_EQ(open("ok"), Errno::kSuccess);
  EXPECT_EQ(open("."), Errno::kSuccess);
}

TEST_F(PathsTest, NothingEscapes) {
  for (const char* path : {"..", "../secret", "dir/../../secret", "up", "up/secret", "out", "absolute",
                           "absolute/passwd", "/etc/passwd", "/", "dir/deep/../../../secret", "ok/../../../secret"}) {
    EXPECT_EQ(open(path), Errno::kPerm) << path;
    EXPECT_EQ(open(path, O_PATH), Errno::kPerm) << path;
  }
}

TEST_F(PathsTest, OtherErrorsStayWhatTheyAre) {
  EXPECT_EQ(open("nonesuch"), Errno::kNoEnt);
  EXPECT_EQ(open(""), Errno::kNoEnt);
  EXPECT_EQ(open("file/x"), Errno::kNotDir);
  EXPECT_EQ(open("loop"), Errno::kLoop);
  EXPECT_EQ(open("out", O_RDONLY | O_NOFOLLOW), Errno::kLoop);
  EXPECT_EQ(open(std::string(300, 'x')), Errno::kNameTooLong);
  EXPECT_EQ(open(std::string(5000, 'x')), Errno::kNameTooLong);
}

TEST_F(PathsTest, ParentSplitsOffTheLastComponent) {
  const auto found = open_parent(directory_.get(), "dir/new", Errno::kBusy);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->last, "new");
  const auto slashes = open_parent(directory_.get(), "dir/new//", Errno::kBusy);
  ASSERT_TRUE(slashes);
  EXPECT_EQ(slashes->last, "new//");
  EXPECT_EQ(parent("new"), Errno::kSuccess);
}

TEST_F(PathsTest, ParentIsNeverOutsideAndTheNameIsNeverDots) {
  EXPECT_EQ(parent("."), Errno::kBusy);
  EXPECT_EQ(parent("dir/.."), Errno::kBusy);
  EXPECT_EQ(parent("dir/deep/."), Errno::kBusy);
  EXPECT_EQ(parent(".."), Errno::kPerm);
  EXPECT_EQ(parent("dir/../.."), Errno::kPerm);
  EXPECT_EQ(parent("../new"), Errno::kPerm);
  EXPECT_EQ(parent("up/new"), Errno::kPerm);
  EXPECT_EQ(parent("absolute/new"), Errno::kPerm);
  EXPECT_EQ(parent("/new"), Errno::kPerm);
  EXPECT_EQ(parent("///"), Errno::kPerm);
  EXPECT_EQ(parent(""), Errno::kNoEnt);
  EXPECT_EQ(parent("nonesuch/new"), Errno::kNoEnt);
  EXPECT_EQ(parent("file/new"), Errno::kNotDir);
}

TEST_F(PathsTest, JoinedPathsAreBounded) {
  EXPECT_EQ(join_paths("a", "./b//c/.").value(), "a/b/c");
  EXPECT_EQ(join_paths("", "x").value(), "x");
  EXPECT_EQ(join_paths("a", ".").value(), "a");
  EXPECT_EQ(join_paths("a", "../b").value(), "a/../b");
  EXPECT_EQ(join_paths(std::string(4000, 'a'), std::string(200, 'b')).error(), Errno::kNameTooLong);
}

}  // namespace
}  // namespace spore::host
