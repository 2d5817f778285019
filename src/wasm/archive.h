// One description of a structure that both writes and reads it: a function `archive(A& a, T& value)` names the fields
// in order, `a(value.x, value.y)`. Reading is bounded by the bytes that are there (base/bytes.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace spore::wasm {

class WriteArchive {
 public:
  explicit WriteArchive(ByteWriter& out) : out_(out) {}

  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      out_.write(value);
    } else {
      archive(*this, value);
    }
  }
  void one(std::string& text) { out_.write_text(text); }
  void one(Bytes& bytes) { out_.write_bytes(bytes); }
  template <class T>
  void one(std::optional<T>& value) {
    out_.write<uint8_t>(value.has_value());
    if (value) one(*value);
  }
  template <class T>
  void one(std::vector<T>& values) {
    out_.write<uint64_t>(values.size());
    for (T& value : values) one(value);
  }

  ByteWriter& out_;
};

class ReadArchive {
 public:
  explicit ReadArchive(ByteReader& in) : in_(in) {}

  template <class... T>
  void operator()(T&... values) {
    (one(values), ...);
  }

 private:
  template <class T>
  void one(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      value = in_.read<uint8_t>() != 0;
    } else if constexpr (std::is_arithmetic_v<T> || std::is_enum_v<T>) {
      value = in_.read<T>();
    } else {
      archive(*this, value);
    }
  }
  void one(std::string& text) { text = in_.read_text(); }
  void one(Bytes& bytes) {
    const ByteSpan span = in_.read_bytes();
    bytes.assign(span.begin(), span.end());
  }
  template <class T>
  void one(std::optional<T>& value) {
    value.reset();
    if (in_.read<uint8_t>()) one(value.emplace());
  }
  template <class T>
  void one(std::vector<T>& values) {
    // Each item takes at least one byte in the file; grown as items are read, so a lying count costs nothing.
    const uint64_t count = in_.read_count(1);
    values.clear();
    for (uint64_t i = 0; i < count && in_.ok(); ++i) one(values.emplace_back());
  }

  ByteReader& in_;
};

}  // namespace spore::wasm
