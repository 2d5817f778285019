// An object store in a directory: one file an object, at the path that its name says (bytes other than letters, digits
// and "._-=@+," are percent-encoded, and so is a leading dot).
//
// A put writes a temporary file under ROOT/.tmp, syncs it, renames it and syncs the folder. Its writer holds a lock on
// the temporary file; one without a lock is left over from a crash and is removed when the store is opened. Several
// processes may use one directory, unless one of them opened it exclusively.
#pragma once

#include <filesystem>
#include <memory>

#include "base/fd.h"
#include "object_store/object_store.h"

namespace spore::object_store {

class DirectoryStore final : public ObjectStore {
 public:
  struct Options {
    bool exclusive = false;  // refuse (kUnavailable) where another process has the directory open exclusively
    uint64_t object_bytes_max = 4ull << 30;
  };
  // Makes the directory (mode 0700) if it is not there.
  static Result<std::unique_ptr<DirectoryStore>> open(std::filesystem::path root, Options options);
  static Result<std::unique_ptr<DirectoryStore>> open(std::filesystem::path root) { return open(std::move(root), {}); }

  Result<void> put(std::string_view name, ByteSpan bytes) override;
  Result<Bytes> get(std::string_view name, uint64_t size_max_bytes = UINT64_MAX) override;
  Result<bool> exists(std::string_view name) override;
  Result<void> remove(std::string_view name) override;
  Result<std::vector<ObjectEntry>> list(std::string_view prefix) override;

  const std::filesystem::path& root() const { return root_; }

 private:
  DirectoryStore(std::filesystem::path root, Options options, UniqueFd lock);
  Result<std::filesystem::path> path_of(std::string_view name) const;
  Result<void> make_folders(const std::filesystem::path& folder) const;

  std::filesystem::path root_;
  Options options_;
  UniqueFd lock_;
};

}  // namespace spore::object_store
