// A file system for tests of RocksDbTier: the machine's own, with what a machine may do to it. It loses its power (what
// was not synced is gone: bytes of files, new files, renames), and it runs out of room. For one directory; any thread.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/system_clock.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>

#include "base/guarded.h"

namespace spore::state {

class FaultFs final : public rocksdb::FileSystemWrapper {
 public:
  FaultFs() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultFs"; }

  // The power goes in the middle of the append after `appends` more: from then on nothing changes any more.
  void lose_power_after(int64_t appends) { appends_left_ = appends; }
  bool has_power() const { return appends_left_ > 0; }
  // After everything that had files open is gone: the directory as it is when the machine starts again.
  void restart();

  // So many bytes more can be appended; the append that goes beyond writes what there is room for.
  void set_room(int64_t bytes) { room_ = bytes; }
  // With no room left, appends seem to go well and the sync fails, as with delayed allocation.
  void set_room_is_missed_at_sync(bool late) { late_ = late; }
  uint64_t refused() const { return refused_; }

 private:
  using IOStatus = rocksdb::IOStatus;
  using IOOptions = rocksdb::IOOptions;
  using FileOptions = rocksdb::FileOptions;
  using Debug = rocksdb::IODebugContext*;
  class File;
  class Directory;

  struct FileState {
    uint64_t size = 0;
    uint64_t synced_size = 0;
    bool linked = false;  // its directory was synced since it was made
  };
  struct State {
    std::map<std::string, FileState> files;
    // Renamed since the last sync of the directory: the content that the target had, nothing where there was none.
    std::map<std::string, std::pair<bool, std::string>> replaced;
  };

  static IOStatus no_power() { return IOStatus::IOError("no power"); }
  IOStatus open(const std::string& name, IOStatus status, std::unique_ptr<rocksdb::FSWritableFile>* file, bool anew);

  IOStatus NewWritableFile(const std::string& name, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file, Debug debug) override {
    if (!has_power()) return no_power();
    return open(name, target()->NewWritableFile(name, options, file, debug), file, true);
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file, Debug debug) override {
    if (!has_power()) return no_power();
    return open(name, target()->ReopenWritableFile(name, options, file, debug), file, false);
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions& options, std::unique_ptr<rocksdb::FSDirectory>* out,
                        Debug debug) override;
  IOStatus DeleteFile(const std::string& name, const IOOptions& options, Debug debug) override {
    if (!has_power()) return no_power();
    state_.lock()->files.erase(name);
    return target()->DeleteFile(name, options, debug);
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options, Debug debug) override;

  std::atomic<int64_t> appends_left_ = INT64_MAX;
  std::atomic<int64_t> room_ = INT64_MAX;
  std::atomic<bool> late_ = false;
  std::atomic<uint64_t> refused_ = 0;
  Guarded<State> state_;
};

class FaultFs::File final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(FaultFs& fs, std::string name, std::unique_ptr<rocksdb::FSWritableFile>&& file)
      : FSWritableFileOwnerWrapper(std::move(file)), fs_(fs), name_(std::move(name)) {}

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options, Debug debug) override {
    if (fs_.appends_left_.fetch_sub(1) <= 1) {
      fs_.appends_left_ = 0;
      return no_power();
    }
    const auto size = static_cast<int64_t>(data.size());
    const int64_t room = fs_.room_.fetch_sub(size);
    if (room >= size || fs_.late_) return append(data, options, debug);
    fs_.room_ = 0;
    ++fs_.refused_;
    const auto fits = static_cast<size_t>(std::max<int64_t>(room, 0));
    if (const IOStatus status = append(rocksdb::Slice(data.data(), fits), options, debug); !status.ok()) return status;
    return IOStatus::NoSpace("no room", name_);
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  Debug debug) override {
    return Append(data, options, debug);
  }
  IOStatus PositionedAppend(const rocksdb::Slice&, uint64_t, const IOOptions&, Debug) override {
    return IOStatus::NotSupported("PositionedAppend");
  }
  // The machine's own sync is not asked: what counts is what restart() leaves.
  IOStatus Sync(const IOOptions&, Debug) override { return sync(); }
  IOStatus Fsync(const IOOptions&, Debug) override { return sync(); }
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, Debug) override { return IOStatus::OK(); }
  IOStatus Allocate(uint64_t, uint64_t, const IOOptions&, Debug) override { return IOStatus::OK(); }

 private:
  IOStatus append(const rocksdb::Slice& data, const IOOptions& options, Debug debug) {
    const IOStatus status = target()->Append(data, options, debug);
    if (status.ok()) fs_.state_.lock()->files[name_].size += data.size();
    return status;
  }

  IOStatus sync() {
    if (!fs_.has_power()) return no_power();
    if (fs_.late_ && fs_.room_ < 0) {
      ++fs_.refused_;
      return IOStatus::NoSpace("no room", name_);
    }
    auto state = fs_.state_.lock();
    FileState& file = state->files[name_];
    file.synced_size = file.size;
    return IOStatus::OK();
  }

  FaultFs& fs_;
  const std::string name_;
};

class FaultFs::Directory final : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(FaultFs& fs, std::unique_ptr<rocksdb::FSDirectory>&& directory)
      : FSDirectoryWrapper(std::move(directory)), fs_(fs) {}

  IOStatus Fsync(const IOOptions&, Debug) override {
    if (!fs_.has_power()) return no_power();
    auto state = fs_.state_.lock();
    for (auto& [name, file] : state->files) file.linked = true;
    state->replaced.clear();
    return IOStatus::OK();
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, Debug debug, const rocksdb::DirFsyncOptions&) override {
    return Fsync(options, debug);
  }

 private:
  FaultFs& fs_;
};

// RocksDB on that file system. Where it would wait, as for a second after an error, it waits a thousandth of that.
class FaultEnv final : public rocksdb::EnvWrapper {
 public:
  explicit FaultEnv(const std::shared_ptr<FaultFs>& fs) : EnvWrapper(rocksdb::Env::Default()) {
    file_system_ = fs;
    system_clock_ = std::make_shared<ShortWaits>();
  }
  const char* Name() const override { return "FaultEnv"; }

 private:
  class ShortWaits final : public rocksdb::SystemClockWrapper {
   public:
    ShortWaits() : SystemClockWrapper(rocksdb::SystemClock::Default()) {}
    const char* Name() const override { return "ShortWaits"; }
    void SleepForMicroseconds(int us) override { SystemClockWrapper::SleepForMicroseconds(us / 1000); }
  };
};

inline rocksdb::IOStatus FaultFs::open(const std::string& name, IOStatus status,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file, bool anew) {
  if (!status.ok()) return status;
  if (anew) state_.lock()->files[name] = {};
  *file = std::make_unique<File>(*this, name, std::move(*file));
  return status;
}

inline rocksdb::IOStatus FaultFs::NewDirectory(const std::string& name, const IOOptions& options,
                                               std::unique_ptr<rocksdb::FSDirectory>* out, Debug debug) {
  const IOStatus status = target()->NewDirectory(name, options, out, debug);
  if (status.ok()) *out = std::make_unique<Directory>(*this, std::move(*out));
  return status;
}

inline rocksdb::IOStatus FaultFs::RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                                             Debug debug) {
  if (!has_power()) return no_power();
  auto state = state_.lock();
  std::ifstream old(to, std::ios::binary);
  const std::pair<bool, std::string> content(bool(old),
                                             old ? std::string(std::istreambuf_iterator<char>(old), {}) : "");
  const IOStatus status = target()->RenameFile(from, to, options, debug);
  if (!status.ok()) return status;
  state->replaced.try_emplace(to, content);
  state->files[to] = state->files[from];
  state->files.erase(from);
  return status;
}

inline void FaultFs::restart() {
  auto state = state_.lock();
  for (const auto& [name, file] : state->files) {
    if (!file.linked) {
      std::filesystem::remove(name);
    } else if (std::error_code error; std::filesystem::exists(name, error)) {
      std::filesystem::resize_file(name, file.synced_size);
    }
  }
  for (const auto& [name, content] : state->replaced) {
    if (content.first)
      std::ofstream(name, std::ios::binary | std::ios::trunc) << content.second;
    else
      std::filesystem::remove(name);
  }
  *state = {};
  appends_left_ = INT64_MAX;
  room_ = INT64_MAX;
  late_ = false;
}

}  // namespace spore::state
