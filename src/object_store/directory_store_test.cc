#include "object_store/directory_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <thread>

namespace spore::object_store {
namespace {

namespace fs = std::filesystem;

class DirectoryStoreTest : public ::testing::Test {
 protected:
  DirectoryStoreTest() {
    std::string name = (fs::temp_directory_path() / "spore-store-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    store_ = std::move(*DirectoryStore::open(root_));
  }
  ~DirectoryStoreTest() override { fs::remove_all(root_); }

  std::vector<std::string> names(std::string_view prefix) {
    std::vector<std::string> out;
    for (auto& entry : *store_->list(prefix)) out.push_back(entry.name);
    return out;
  }
  size_t temporaries() {
    return static_cast<size_t>(std::distance(fs::directory_iterator(root_ / ".tmp"), fs::directory_iterator()));
  }

  fs::path root_;
  std::unique_ptr<DirectoryStore> store_;
};

TEST_F(DirectoryStoreTest, GivesBackWhatWasPut) {
  const Bytes bytes{1, 0, 255, '\n'};
  ASSERT_TRUE(store_->put("a/b", bytes));
  EXPECT_EQ(*store_->get("a/b"), bytes);
  EXPECT_TRUE(*store_->exists("a/b"));
  ASSERT_TRUE(store_->put("a/b", {}));
  EXPECT_EQ(*store_->get("a/b"), Bytes{});
}

TEST_F(DirectoryStoreTest, SaysThatAnObjectIsMissing) {
  EXPECT_EQ(store_->get("a").error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(store_->put("a/b", {}));
  EXPECT_EQ(store_->get("a").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store_->get("a/b/c").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(*store_->exists("a"));
  EXPECT_FALSE(*store_->exists("a/b/c"));
}

TEST_F(DirectoryStoreTest, SurvivesReopening) {
  ASSERT_TRUE(store_->put("x/y/z", as_bytes("hello")));
  store_ = std::move(*DirectoryStore::open(root_));
  EXPECT_EQ(as_text(*store_->get("x/y/z")), "hello");
}

TEST_F(DirectoryStoreTest, RefusesNamesThatCouldEscapeOrBreak) {
  const std::string too_long(kSegmentBytesMax + 1, 'a');
  for (const std::string& name :
       {std::string(""), std::string("/a"), std::string("a/"), std::string("a//b"), std::string(".."),
        std::string("a/../b"), std::string("."), std::string("a\0b", 3), std::string("a\nb"), std::string("a\x7f"),
        too_long, std::string(kNameBytesMax + 1, '/')}) {
    EXPECT_EQ(store_->put(name, {}).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->get(name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->exists(name).error().code, ErrorCode::kInvalidArgument) << name;
    EXPECT_EQ(store_->remove(name).error().code, ErrorCode::kInvalidArgument) << name;
  }
  EXPECT_TRUE(names("").empty());
}

TEST_F(DirectoryStoreTest, KeepsUnusualNamesApart) {
  const std::vector<std::string> unusual{" ", "%2E", ".lock", ".tmp", "A", "a", "a%", "a:b", "ä/ö"};
  for (const auto& name : unusual) ASSERT_TRUE(store_->put(name, as_bytes(name))) << name;
  for (const auto& name : unusual) EXPECT_EQ(as_text(*store_->get(name)), name);
  EXPECT_EQ(names(""), unusual);
}

TEST_F(DirectoryStoreTest, ListsByPrefixInOrder) {
  for (const char* name : {"functions/b/x", "functions/a/y", "functions/a/x", "functions/ab/z", "modules/1"})
    ASSERT_TRUE(store_->put(name, as_bytes(name)));
  using Names = std::vector<std::string>;
  EXPECT_EQ(names("functions/a/"), (Names{"functions/a/x", "functions/a/y"}));
  EXPECT_EQ(names("functions/a"), (Names{"functions/a/x", "functions/a/y", "functions/ab/z"}));
  EXPECT_EQ(names("fun").size(), 4u);
  EXPECT_EQ(names("modules/1"), (Names{"modules/1"}));
  EXPECT_TRUE(names("modules/1/").empty());
  EXPECT_TRUE(names("none/").empty());
  EXPECT_EQ((*store_->list("modules/"))[0].size_bytes, 9u);
}

TEST_F(DirectoryStoreTest, RemovesObjectsAndTheirEmptyFolders) {
  ASSERT_TRUE(store_->put("a/b/c", {}));
  ASSERT_TRUE(store_->put("a/d", {}));
  ASSERT_TRUE(store_->remove("a/b/c"));
  EXPECT_FALSE(*store_->exists("a/b/c"));
  EXPECT_FALSE(fs::exists(root_ / "a/b"));
  EXPECT_TRUE(*store_->exists("a/d"));
  ASSERT_TRUE(store_->remove("a/d"));
  EXPECT_FALSE(fs::exists(root_ / "a"));
  EXPECT_TRUE(store_->remove("a/d"));
  EXPECT_TRUE(store_->remove("a"));
}

TEST_F(DirectoryStoreTest, RefusesAnObjectWhereAFolderIs) {
  ASSERT_TRUE(store_->put("a/b", {}));
  EXPECT_EQ(store_->put("a", {}).error().code, ErrorCode::kInvalidArgument);
  EXPECT_FALSE(store_->put("a/b/c", {}));
  EXPECT_EQ(temporaries(), 0u);
}

TEST_F(DirectoryStoreTest, BoundsWhatIsPutAndRead) {
  store_ = std::move(*DirectoryStore::open(root_, {.object_bytes_max = 10}));
  EXPECT_EQ(store_->put("a", Bytes(11)).error().code, ErrorCode::kResourceExhausted);
  EXPECT_FALSE(*store_->exists("a"));
  ASSERT_TRUE(store_->put("a", Bytes(10)));
  EXPECT_EQ(store_->get("a", 9).error().code, ErrorCode::kResourceExhausted);
  EXPECT_TRUE(store_->get("a", 10));
}

TEST_F(DirectoryStoreTest, AFullDiskLeavesTheOldObject) {
  ASSERT_TRUE(store_->put("a", as_bytes("old")));
  const pid_t child = ::fork();
  if (child == 0) {
    // The file system refuses to write more than this many bytes to a file.
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1000, 1000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto put = store_->put("a", Bytes(5000));
    ::_exit(!put && temporaries() == 0 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(as_text(*store_->get("a")), "old");
}

TEST_F(DirectoryStoreTest, RemovesLeftoversOfDeadWritersOnly) {
  std::ofstream(root_ / ".tmp/123.4") << "half an obj";
  const auto live = root_ / ".tmp/567.8";
  const UniqueFd writer(::open(live.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  store_ = std::move(*DirectoryStore::open(root_));
  EXPECT_EQ(temporaries(), 1u);
  EXPECT_TRUE(fs::exists(live));
}

TEST_F(DirectoryStoreTest, ADirectoryIsExclusiveOnRequest) {
  auto first = DirectoryStore::open(root_, {.exclusive = true});
  ASSERT_TRUE(first);
  const auto second = DirectoryStore::open(root_, {.exclusive = true});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  first->reset();
  EXPECT_TRUE(DirectoryStore::open(root_, {.exclusive = true}));
}

TEST_F(DirectoryStoreTest, DoesNotFollowLinks) {
  std::ofstream(root_ / "target") << "secret";
  fs::create_symlink(root_ / "target", root_ / "link");
  EXPECT_FALSE(store_->get("link"));
  EXPECT_FALSE(*store_->exists("link"));
}

TEST_F(DirectoryStoreTest, ReadersSeeWholeObjectsWhileWritersReplaceAndRemoveThem) {
  std::atomic<bool> done = false;
  std::atomic<int> torn = 0;
  std::thread reader([&] {
    while (!done) {
      const auto bytes = store_->get("f/one");
      if (bytes ? std::ranges::count(*bytes, bytes->front()) != 20'000 : bytes.error().code != ErrorCode::kNotFound)
        ++torn;
    }
  });
  std::atomic<int> failed = 0;
  std::vector<std::thread> writers;
  for (uint8_t id = 1; id <= 3; ++id)
    writers.emplace_back([&, id] {
      for (int i = 0; i < 60; ++i) {
        if (!store_->put("f/one", Bytes(20'000, id))) ++failed;
        if (id == 3 && !store_->remove("f/one")) ++failed;
        if (id == 2 && !DirectoryStore::open(root_)) ++failed;
      }
    });
  for (auto& writer : writers) writer.join();
  done = true;
  reader.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(temporaries(), 0u);
}

}  // namespace
}  // namespace spore::object_store
