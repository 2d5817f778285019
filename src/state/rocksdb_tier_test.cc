#include "state/rocksdb_tier.h"

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/mount.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/fd.h"
#include "state/global_tier_conformance.h"
#include "state/merge.h"
#include "state/rocksdb_fault_fs.h"
#include "state/rocksdb_test_world.h"

namespace spore::state {
namespace {

using std::chrono::milliseconds;

Deadline soon() { return Clock::now() + std::chrono::seconds(60); }

std::unique_ptr<RocksDbTier> open(const std::filesystem::path& directory, const RocksDbOptions& options = {}) {
  auto tier = RocksDbTier::open(directory, options);
  EXPECT_TRUE(tier) << tier.error().message;
  return tier ? std::move(*tier) : nullptr;
}

TierKind kind(const std::string& name, const RocksDbOptions& options) {
  return {name, [options]() -> std::shared_ptr<GlobalTier> {
            auto directory = std::make_shared<TemporaryDirectory>();
            std::unique_ptr<RocksDbTier> tier = open(directory->path(), options);
            return {tier.release(), [directory](GlobalTier* old) { delete old; }};
          }};
}

// The second writes every push of more than a page in parts, and its memory goes to files all the time.
INSTANTIATE_TEST_SUITE_P(RocksDb, GlobalTierConformance,
                         testing::Values(kind("RocksDb", {}), kind("RocksDbInParts", {.write_buffer_bytes = 256 << 10,
                                                                                      .push_batch_bytes = 4096})),
                         kind_name);

const ValueId kValue{.tenant = "tenant", .key = "value"};

Result<Pushed> put(GlobalTier& tier, const ValueId& id, ByteSpan bytes) {
  return tier.push(id, {.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size(), .replace = true},
                   soon());
}

Bytes read(GlobalTier& tier, const ValueId& id) {
  auto pin = tier.pin(id, soon());
  if (!pin) return {};
  Bytes out((*pin)->manifest().size_bytes);
  const auto result = (*pin)->read(0, out, soon());
  EXPECT_TRUE(result) << result.error().message;
  return out;
}

// ---- opening

TEST(RocksDbTier, KeepsEverythingAcrossRestarts) {
  const TemporaryDirectory directory;
  const Bytes bytes = noise(300'000, 1);
  Version version;
  uint64_t token = 0;
  {
    const auto tier = open(directory.path() / "made" / "on the way");
    EXPECT_EQ(tier->name(), "rocksdb at " + (directory.path() / "made" / "on the way").string());
    ASSERT_TRUE(put(*tier, kValue, bytes));
    version = tier->push(kValue, {.append = as_bytes("x"), .once = "name"}, soon())->after.version;
    token = (*tier->try_lock(kValue, LockMode::kWrite, "owner", std::chrono::hours(1), soon()))->token;
  }
  const auto tier = open(directory.path() / "made" / "on the way");
  EXPECT_EQ(tier->describe(kValue, soon())->version, version);
  Bytes all = bytes;
  all.push_back('x');
  EXPECT_EQ(read(*tier, kValue), all);
  EXPECT_EQ(tier->push(kValue, {.append = as_bytes("x"), .once = "name"}, soon())->after.version, version);
  EXPECT_EQ(tier->usage("tenant", soon())->bytes, all.size());
  EXPECT_FALSE(*tier->try_lock(kValue, LockMode::kWrite, "other", milliseconds(1000), soon()));
  EXPECT_TRUE(tier->push(kValue, {.lock_token = token}, soon()));
  ASSERT_TRUE(tier->unlock(kValue, "owner", soon()));
  EXPECT_GT((*tier->try_lock(kValue, LockMode::kWrite, "other", milliseconds(1000), soon()))->token, token);
}

TEST(RocksDbTier, ADirectoryIsOpenOnce) {
  const TemporaryDirectory directory;
  const auto tier = open(directory.path());
  EXPECT_FAILS(RocksDbTier::open(directory.path(), {}), ErrorCode::kUnavailable);
}

TEST(RocksDbTier, RefusesADatabaseOfSomebodyElseAndAPathThatIsNoDirectory) {
  const TemporaryDirectory directory;
  const auto write = [&](const std::string& name, const std::string& key, const std::string& value) {
    rocksdb::Options options;
    options.create_if_missing = true;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open(options, directory.path() / name, &db).ok());
    EXPECT_TRUE(db->Put({}, key, value).ok());
    delete db;
  };
  write("other", "key", "value");
  write("later", "v", "spore state 2");
  EXPECT_FAILS(RocksDbTier::open(directory.path() / "other", {}), ErrorCode::kFailedPrecondition);
  const auto later = RocksDbTier::open(directory.path() / "later", {});
  ASSERT_FALSE(later);
  EXPECT_NE(later.error().message.find("\"spore state 2\""), std::string::npos) << later.error().message;
  ASSERT_TRUE(write_file_atomically(directory.path() / "file", {}));
  const auto file = RocksDbTier::open(directory.path() / "file", {});
  ASSERT_FALSE(file);
  EXPECT_NE(file.error().message.find((directory.path() / "file").string()), std::string::npos);
}

// ---- leases

TEST(RocksDbTier, LeasesCountOnTheBootClockAndOnTheWallClockAfterAnotherBoot) {
  const TemporaryDirectory directory;
  rocksdb_records::LeaseTime now{.boot = 1, .boot_ms = 1000, .wall_ms = 1'000'000};
  const RocksDbOptions options{.lease_clock = [&] { return now; }};
  auto tier = open(directory.path(), options);
  const auto lock = [&](const std::string& owner) {
    return *tier->try_lock(kValue, LockMode::kWrite, owner, milliseconds(5000), soon());
  };
  ASSERT_TRUE(lock("a"));
  now.wall_ms += 1'000'000'000;  // somebody set the clock
  EXPECT_FALSE(lock("b"));
  now.boot_ms += 4999;
  EXPECT_FALSE(lock("b"));
  now.boot_ms += 1;
  EXPECT_TRUE(lock("b")->poisoned);
  tier.reset();
  now.boot = 2;
  now.boot_ms = 10;
  now.wall_ms += 4999;
  tier = open(directory.path(), options);
  EXPECT_FALSE(lock("c"));
  now.wall_ms += 1;
  EXPECT_TRUE(lock("c")->poisoned);
}

// ---- room

struct FullDisk {
  explicit FullDisk(uint64_t write_buffer_bytes = 32 << 20) {
    options.env = &env;
    options.resume_interval = milliseconds(0);
    options.write_buffer_bytes = write_buffer_bytes;
  }
  TemporaryDirectory directory;
  std::shared_ptr<FaultFs> fs = std::make_shared<FaultFs>();
  FaultEnv env{fs};
  RocksDbOptions options;
};

// Fills the disk at another place each time, and looks whether all is there, now and after a loss of power.
void check_full_disk(bool at_sync, int64_t room, uint64_t write_buffer_bytes) {
  SCOPED_TRACE("room for " + std::to_string(room) + (at_sync ? ", missed at the sync" : ""));
  FullDisk disk(write_buffer_bytes);
  std::unique_ptr<RocksDbTier> tier = open(disk.directory.path(), disk.options);
  tier.reset();  // opened again, RocksDB has nothing in memory
  tier = open(disk.directory.path(), disk.options);
  disk.fs->set_room(room);
  disk.fs->set_room_is_missed_at_sync(at_sync);
  std::string model;
  const auto append = [&] {
    const std::string text(5000, static_cast<char>('a' + model.size() / 5000 % 26));
    auto pushed = tier->push(kValue, {.append = as_bytes(text)}, soon());
    if (pushed) model += text;
    return pushed;
  };
  auto refused = append();
  while (refused) refused = append();
  EXPECT_EQ(code_of(refused), to_string(ErrorCode::kResourceExhausted)) << refused.error().message;
  EXPECT_NE(refused.error().message.find(disk.directory.path().string()), std::string::npos) << refused.error().message;
  EXPECT_EQ(code_of(append()), to_string(ErrorCode::kResourceExhausted));
  EXPECT_EQ(as_text(read(*tier, kValue)), model);  // reading goes on
  disk.fs->set_room(INT64_MAX / 2);
  disk.fs->set_room_is_missed_at_sync(false);
  for (int i = 0; i < 3; ++i) {
    auto pushed = append();
    ASSERT_TRUE(pushed) << pushed.error().message;
  }
  EXPECT_EQ(as_text(read(*tier, kValue)), model);
  disk.fs->lose_power_after(0);
  tier.reset();
  disk.fs->restart();
  tier = open(disk.directory.path(), disk.options);
  ASSERT_TRUE(tier);
  EXPECT_EQ(as_text(read(*tier, kValue)), model);
  EXPECT_EQ(tier->usage("tenant", soon())->bytes, model.size());
}

TEST(RocksDbTier, AFullDiskIsAnErrorUntilThereIsRoom) {
  for (const int64_t room : {0, 10, 3000, 30'000, 200'000}) check_full_disk(false, room, 32 << 20);
}

TEST(RocksDbTier, AFullDiskThatShowsAtTheSync) {
  for (const int64_t room : {0, 3000, 200'000}) check_full_disk(true, room, 32 << 20);
}

TEST(RocksDbTier, ADiskThatFillsUpWhileMemoryGoesToFiles) {
  for (const int64_t room : {300'000, 500'000, 700'000}) check_full_disk(false, room, 128 << 10);
}

TEST(RocksDbTier, AFullFileSystemOfTheMachine) {
  const TemporaryDirectory directory;
  if (::mount("tmpfs", directory.path().c_str(), "tmpfs", 0, "size=32m") != 0)
    GTEST_SKIP() << "this process may not mount";
  struct Unmount {
    const std::filesystem::path path;
    ~Unmount() { EXPECT_EQ(::umount(path.c_str()), 0) << std::strerror(errno); }
  } const unmount{directory.path()};
  const auto tier = open(directory.path() / "db", {.write_buffer_bytes = 1 << 20, .resume_interval = milliseconds(0)});
  ASSERT_TRUE(tier);
  const Bytes bytes = noise(100'000, 3);
  const auto id = [](uint64_t i) { return ValueId{.tenant = "tenant", .key = std::to_string(i)}; };
  uint64_t count = 0;
  auto pushed = put(*tier, id(0), bytes);
  while (pushed && count < 1000) pushed = put(*tier, id(++count), bytes);
  ASSERT_FALSE(pushed) << "32 MiB held 100 MB";
  EXPECT_EQ(code_of(pushed), to_string(ErrorCode::kResourceExhausted)) << pushed.error().message;
  EXPECT_GT(count, 50u);
  for (uint64_t i = 0; i < count; ++i) EXPECT_EQ(read(*tier, id(i)), bytes);
  EXPECT_EQ(::mount("tmpfs", directory.path().c_str(), "tmpfs", MS_REMOUNT, "size=128m"), 0);
  pushed = put(*tier, id(count), bytes);
  EXPECT_TRUE(pushed) << pushed.error().message;
  EXPECT_EQ(tier->usage("tenant", soon())->keys, count + 1);
}

// ---- pushes in parts

TEST(RocksDbTier, APushInPartsThatFailsLeavesNothing) {
  FullDisk disk;
  disk.options.push_batch_bytes = 64 << 10;
  std::unique_ptr<RocksDbTier> tier = open(disk.directory.path(), disk.options);
  const Bytes old = noise(20 << 20, 4);
  const Bytes later = noise(20 << 20, 5);
  const ValueId fresh{.tenant = "tenant", .key = "fresh"};
  const auto whole = [](ByteSpan bytes) {
    return Push{.patches = {{.offset = 0, .bytes = bytes}}, .size_bytes = bytes.size()};
  };
  ASSERT_TRUE(tier->push(kValue, whole(old), soon()));
  disk.fs->set_room(9 << 20);
  EXPECT_FAILS(tier->push(kValue, whole(later), soon()), ErrorCode::kResourceExhausted);
  EXPECT_FAILS(tier->push(fresh, whole(later), soon()), ErrorCode::kResourceExhausted);
  EXPECT_EQ(read(*tier, kValue), old);
  EXPECT_FAILS(tier->describe(fresh, soon()), ErrorCode::kNotFound);
  // Also where the machine ends before they could be cleared away.
  disk.fs->lose_power_after(0);
  tier.reset();
  disk.fs->restart();
  tier = open(disk.directory.path(), disk.options);
  ASSERT_TRUE(tier);
  EXPECT_EQ(read(*tier, kValue), old);
  EXPECT_FAILS(tier->describe(fresh, soon()), ErrorCode::kNotFound);
  EXPECT_EQ(tier->usage("tenant", soon())->bytes, old.size());
  ASSERT_TRUE(tier->push(kValue, whole(later), soon()));
  ASSERT_TRUE(tier->push(fresh, whole(old), soon()));
  EXPECT_EQ(read(*tier, kValue), later);
  EXPECT_EQ(read(*tier, fresh), old);
  // No more records than those of the two values.
  tier.reset();
  rocksdb::DB* db = nullptr;
  rocksdb::Options options;
  options.env = &disk.env;
  ASSERT_TRUE(rocksdb::DB::OpenForReadOnly(options, disk.directory.path().string(), &db).ok());
  uint64_t pages = 0, stagings = 0;
  {
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      pages += it->key()[0] == 'p';
      stagings += it->key()[0] == 's';
    }
  }
  delete db;
  EXPECT_EQ(pages, 2 * (20 << 20) / kPageBytes);
  EXPECT_EQ(stagings, 0u);
}

TEST(RocksDbTier, ADeadlineEndsAPushInParts) {
  const TemporaryDirectory directory;
  const auto tier = open(directory.path(), {.push_batch_bytes = 64 << 10});
  ASSERT_TRUE(tier->push(kValue, {.size_bytes = 0}, soon()));
  const Bytes bytes(200 << 20, 6);
  // Time enough to begin, and not to write 200 MiB.
  EXPECT_FAILS(tier->push(kValue, {.append = ByteSpan(bytes)}, Clock::now() + milliseconds(30)),
               ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(tier->describe(kValue, soon())->size_bytes, 0u);
}

TEST(RocksDbTier, AFreeLockOfAKeyWithoutValueIsForgotten) {
  const TemporaryDirectory directory;
  uint64_t token = 0;
  {
    const auto tier = open(directory.path());
    for (int i = 0; i < 10; ++i) {
      const ValueId id{.tenant = "tenant", .key = std::to_string(i)};
      const auto grant = *tier->try_lock(id, LockMode::kWrite, "a", milliseconds(60'000), soon());
      token = grant->token;
      ASSERT_TRUE(tier->unlock(id, "a", soon()));
      EXPECT_GT((*tier->try_lock(id, LockMode::kRead, "a", milliseconds(60'000), soon()))->token, token);
      ASSERT_TRUE(tier->unlock(id, "a", soon()));
    }
  }
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::OpenForReadOnly({}, directory.path().string(), &db).ok());
  uint64_t locks = 0;
  {
    const std::unique_ptr<rocksdb::Iterator> it(db->NewIterator({}));
    for (it->SeekToFirst(); it->Valid(); it->Next()) locks += it->key()[0] == 'l';
  }
  delete db;
  EXPECT_EQ(locks, 0u);
}

}  // namespace
}  // namespace spore::state
