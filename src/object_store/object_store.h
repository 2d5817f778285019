// Named bytes that stay: modules, compiled objects, the catalogue of functions. The interface that every store speaks.
//
// A name is a path: segments joined by '/', none empty, "." or "..", no control characters, at most kNameBytesMax in
// all and kSegmentBytesMax each. Nothing is a folder and an object at once. A put is whole or not at all, also across a
// crash, and replaces what was there; a reader sees the old bytes or the new ones. All methods may be called from any
// thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace spore::object_store {

constexpr size_t kNameBytesMax = 1024;
constexpr size_t kSegmentBytesMax = 200;

struct ObjectEntry {
  std::string name;
  uint64_t size_bytes = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;

  // Durable when it returns. Larger than the store takes: kResourceExhausted.
  virtual Result<void> put(std::string_view name, ByteSpan bytes) = 0;
  // kNotFound; kResourceExhausted where the object is larger than `size_max_bytes`.
  virtual Result<Bytes> get(std::string_view name, uint64_t size_max_bytes = UINT64_MAX) = 0;
  virtual Result<bool> exists(std::string_view name) = 0;
  // Removing what is not there is no error.
  virtual Result<void> remove(std::string_view name) = 0;
  // Every object whose name begins with `prefix`, sorted by name; a prefix may end within a segment.
  virtual Result<std::vector<ObjectEntry>> list(std::string_view prefix) = 0;
};

// kInvalidArgument, saying what is wrong with the name.
Result<void> check_name(std::string_view name);

}  // namespace spore::object_store
