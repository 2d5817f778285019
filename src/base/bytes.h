// Bytes, and the two small classes that write and read the project's own binary formats (little endian).
//
// ByteReader is for bytes from outside: every read is checked, a read past the end returns zeros and makes ok() false
// for good, so a parser reads a whole structure and asks once. Counts that drive allocations go through read_count(),
// which never returns more than the bytes that are left could hold.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace spore {

using Bytes = std::vector<uint8_t>;
using ByteSpan = std::span<const uint8_t>;

inline ByteSpan as_bytes(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }
inline std::string_view as_text(ByteSpan bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

class ByteWriter {
 public:
  template <class T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void write(T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    bytes_.insert(bytes_.end(), p, p + sizeof(T));
  }
  void write_bytes(ByteSpan bytes) {
    write<uint64_t>(bytes.size());
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void write_text(std::string_view text) { write_bytes(as_bytes(text)); }

  const Bytes& bytes() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(ByteSpan bytes) : rest_(bytes) {}

  template <class T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  T read() {
    T value{};
    if (rest_.size() < sizeof(T)) {
      ok_ = false;
      rest_ = {};
      return value;
    }
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  ByteSpan read_bytes() {
    const auto size = read<uint64_t>();
    if (size > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    ByteSpan out = rest_.first(size);
    rest_ = rest_.subspan(size);
    return out;
  }
  std::string read_text() { return std::string(as_text(read_bytes())); }
  // A count of items that take at least `item_bytes_min` (>= 1) bytes each.
  uint64_t read_count(size_t item_bytes_min) {
    const auto count = read<uint64_t>();
    if (count > rest_.size() / item_bytes_min) {
      ok_ = false;
      rest_ = {};
      return 0;
    }
    return count;
  }

  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }
  // What has not been read yet.
  ByteSpan rest() const { return rest_; }

 private:
  ByteSpan rest_;
  bool ok_ = true;
};

}  // namespace spore
