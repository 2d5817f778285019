// What the tests of this folder share: a directory of their own, small modules, a store that fails on demand.
#pragma once

#include <filesystem>
#include <string>

#include "object_store/directory_store.h"

namespace spore::functions {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "spore-functions-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// (module (func (export "f") (result i32) i32.const NUMBER)), 0 <= number < 64
inline Bytes module_that_returns(uint8_t number) {
  return {0, 'a', 's', 'm', 1, 0, 0,   0, 1, 5,  1, 0x60, 0, 1, 0x7f, 3,      2,
          1, 0,   7,   5,   1, 1, 'f', 0, 0, 10, 6, 1,    4, 0, 0x41, number, 0x0b};
}

// (module (import "env" "missing" (func)))
inline Bytes module_that_imports() {
  Bytes out{0, 'a', 's', 'm', 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 2, 15, 1, 3};
  for (const char c : std::string("env\7missing")) out.push_back(static_cast<uint8_t>(c));
  out.insert(out.end(), {0, 0});
  return out;
}

// (module (memory PAGES)), 0 <= pages <= 65536
inline Bytes module_with_memory(uint32_t pages) {
  const auto group = [&](int index, uint8_t more) { return static_cast<uint8_t>((pages >> 7 * index & 127) | more); };
  return {0, 'a', 's', 'm', 1, 0, 0, 0, 5, 5, 1, 0, group(0, 128), group(1, 128), group(2, 0)};
}

// Passes on to another store until a given number of writes (puts and removes) is done; every later operation fails, as
// if the host had died there. A put that dies leaves nothing.
class DyingStore final : public object_store::ObjectStore {
 public:
  explicit DyingStore(object_store::ObjectStore& store) : store_(store) {}
  void die_after(int writes) { writes_left_ = writes; }
  int writes() const { return writes_; }

  Result<void> put(std::string_view name, ByteSpan bytes) override {
    if (!may_write()) return dead();
    return store_.put(name, bytes);
  }
  Result<Bytes> get(std::string_view name, uint64_t size_max_bytes) override {
    if (dead_) return dead();
    return store_.get(name, size_max_bytes);
  }
  Result<bool> exists(std::string_view name) override {
    if (dead_) return dead();
    return store_.exists(name);
  }
  Result<void> remove(std::string_view name) override {
    if (!may_write()) return dead();
    return store_.remove(name);
  }
  Result<std::vector<object_store::ObjectEntry>> list(std::string_view prefix) override {
    if (dead_) return dead();
    return store_.list(prefix);
  }

 private:
  bool may_write() {
    if (writes_left_ == 0) dead_ = true;
    if (dead_) return false;
    if (writes_left_ > 0) --writes_left_;
    ++writes_;
    return true;
  }
  static std::unexpected<Error> dead() { return fail(ErrorCode::kInternal, "the store has died"); }

  object_store::ObjectStore& store_;
  int writes_left_ = -1;  // no end
  int writes_ = 0;
  bool dead_ = false;
};

}  // namespace spore::functions
