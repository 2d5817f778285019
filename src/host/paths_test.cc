#include "host/paths.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace spore::host {
namespace {

namespace fs = std::filesystem;
using wasi::Errno;

//   root/  inside/  file  dir/deep/  links: up -> .., out -> ../secret, absolute -> /etc, ok -> dir/deep, loop -> loop
//          secret
class PathsTest : public testing::TestWithParam<decltype(&open_beneath)> {
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
    const auto opened = GetParam()(directory_.get(), path, flags, 0600);
    return opened ? Errno::kSuccess : opened.error();
  }
  Errno parent(const std::string& path) {
    const auto found = open_parent(directory_.get(), path, Errno::kBusy);
    return found ? Errno::kSuccess : found.error();
  }

  fs::path root_;
  UniqueFd directory_;
};

TEST_P(PathsTest, OpensWhatIsBeneath) {
  EXPECT_EQ(open("file"), Errno::kSuccess);
  EXPECT_EQ(open("dir/../file"), Errno::kSuccess);
  EXPECT_EQ(open("./dir//deep/"), Errno::kSuccess);
  EXPECT_EQ(open("ok"), Errno::kSuccess);
  EXPECT_EQ(open("."), Errno::kSuccess);
}

TEST_P(PathsTest, NothingEscapes) {
  for (const char* path : {"..", "../secret", "dir/../../secret", "up", "up/secret", "out", "absolute",
                           "absolute/passwd", "/etc/passwd", "/", "dir/deep/../../../secret", "ok/../../../secret"}) {
    EXPECT_EQ(open(path), Errno::kPerm) << path;
    EXPECT_EQ(open(path, O_PATH), Errno::kPerm) << path;
  }
}

TEST_P(PathsTest, OtherErrorsStayWhatTheyAre) {
  EXPECT_EQ(open("nonesuch"), Errno::kNoEnt);
  EXPECT_EQ(open(""), Errno::kNoEnt);
  EXPECT_EQ(open("file/x"), Errno::kNotDir);
  EXPECT_EQ(open("loop"), Errno::kLoop);
  EXPECT_EQ(open("out", O_RDONLY | O_NOFOLLOW), Errno::kLoop);
  EXPECT_EQ(open(std::string(300, 'x')), Errno::kNameTooLong);
  EXPECT_EQ(open(std::string(5000, 'x')), Errno::kNameTooLong);
}

TEST_P(PathsTest, ParentSplitsOffTheLastComponent) {
  const auto found = open_parent(directory_.get(), "dir/new", Errno::kBusy);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->last, "new");
  const auto slashes = open_parent(directory_.get(), "dir/new//", Errno::kBusy);
  ASSERT_TRUE(slashes);
  EXPECT_EQ(slashes->last, "new//");
  EXPECT_EQ(parent("new"), Errno::kSuccess);
}

TEST_P(PathsTest, ParentIsNeverOutsideAndTheNameIsNeverDots) {
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

// Both ways give the same for every path, flags and state that can be put together here.
TEST_P(PathsTest, AgreesWithTheKernel) {
  fs::create_symlink("dir/", root_ / "inside/slash");
  fs::create_symlink("nonesuch", root_ / "inside/dangling");
  fs::create_symlink("dir/../file", root_ / "inside/around");
  fs::create_symlink("../ok/../../out", root_ / "inside/dir/chain");
  const char* parts[] = {".",        "..",   "dir",   "deep",     "file",   "ok",    "up",       "out",
                         "absolute", "loop", "slash", "dangling", "around", "chain", "nonesuch", ""};
  std::vector<std::string> paths;
  for (const char* a : parts) {
    paths.push_back(a);
    for (const char* b : parts) {
      paths.push_back(std::string(a) + "/" + b);
      for (const char* c : parts) paths.push_back(std::string(a) + "/" + b + "/" + c);
    }
  }
  const int all_flags[] = {O_RDONLY,
                           O_PATH,
                           O_PATH | O_NOFOLLOW,
                           O_RDONLY | O_NOFOLLOW,
                           O_RDONLY | O_DIRECTORY,
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
                           O_PATH | O_DIRECTORY,
                           O_RDWR,
                           O_RDWR | O_NOFOLLOW,
                           O_RDWR | O_TRUNC};
  const auto identity = [](const std::expected<UniqueFd, Errno>& opened) -> std::pair<Errno, ino_t> {
    struct stat info{};
    if (!opened) return {opened.error(), 0};
    EXPECT_EQ(::fstat(opened->get(), &info), 0);
    return {Errno::kSuccess, info.st_ino};
  };
  for (const auto& path : paths)
    for (const int flags : all_flags)
      EXPECT_EQ(identity(GetParam()(directory_.get(), path, flags, 0)),
                identity(open_beneath(directory_.get(), path, flags)))
          << path << " " << flags;
}

TEST_P(PathsTest, MakesFilesWhereTheKernelWould) {
  fs::create_symlink("dir/made-through-a-link", root_ / "inside/to-be-made");
  EXPECT_EQ(open("made", O_RDWR | O_CREAT), Errno::kSuccess);
  EXPECT_EQ(open("dir/made", O_RDWR | O_CREAT | O_EXCL), Errno::kSuccess);
  EXPECT_EQ(open("dir/made", O_RDWR | O_CREAT | O_EXCL), Errno::kExist);
  EXPECT_EQ(open("to-be-made", O_RDWR | O_CREAT | O_EXCL), Errno::kExist);
  EXPECT_EQ(open("to-be-made", O_RDWR | O_CREAT | O_NOFOLLOW), Errno::kLoop);
  EXPECT_FALSE(fs::exists(root_ / "inside/dir/made-through-a-link"));
  EXPECT_EQ(open("to-be-made", O_RDWR | O_CREAT), Errno::kSuccess);
  EXPECT_TRUE(fs::exists(root_ / "inside/dir/made-through-a-link"));
  EXPECT_EQ(open("slash/", O_RDWR | O_CREAT), Errno::kIsDir);
  EXPECT_EQ(open("dir", O_RDWR | O_CREAT), Errno::kIsDir);
  EXPECT_EQ(open("../made", O_RDWR | O_CREAT), Errno::kPerm);
  EXPECT_EQ(open("up/made", O_RDWR | O_CREAT), Errno::kPerm);
  EXPECT_FALSE(fs::exists(root_ / "made"));
}

TEST_P(PathsTest, ChainsOfLinksAndDepthAreBounded) {
  for (int i = 0; i < 60; ++i)
    fs::create_symlink(i == 0 ? "file" : "chain" + std::to_string(i - 1), root_ / ("inside/chain" + std::to_string(i)));
  EXPECT_EQ(open("chain39"), Errno::kSuccess);
  EXPECT_EQ(open("chain40"), Errno::kLoop);
  std::string deep = "dir";
  for (int i = 0; i < 500; ++i) deep += "/../dir";
  EXPECT_EQ(open(deep), Errno::kSuccess);
}

INSTANTIATE_TEST_SUITE_P(Ways, PathsTest, testing::Values(&open_beneath, &walk_beneath),
                         [](const auto& way) { return way.param == &open_beneath ? "Kernel" : "Walk"; });

TEST(Paths, JoinedPathsAreBounded) {
  EXPECT_EQ(join_paths("a", "./b//c/.").value(), "a/b/c");
  EXPECT_EQ(join_paths("", "x").value(), "x");
  EXPECT_EQ(join_paths("a", ".").value(), "a");
  EXPECT_EQ(join_paths("a", "../b").value(), "a/../b");
  EXPECT_EQ(join_paths(std::string(4000, 'a'), std::string(200, 'b')).error(), Errno::kNameTooLong);
}

}  // namespace
}  // namespace spore::host
