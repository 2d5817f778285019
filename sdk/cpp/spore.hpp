// Spore for C++: what sdk/c/spore.h offers, as strings and views.
//
//   #include <spore.hpp>
//
//   SPORE_FUNCTION {
//     spore::write("hello, " + spore::input());
//     return 0;
//   }
//
// Build (sdk/cpp/README.md has the details):
//
//   clang++-19 --target=wasm32-wasi -mexec-model=reactor -std=c++23 -fno-exceptions -O2 -s \
//     -I sdk/c -I sdk/cpp function.cc -o function.wasm
#pragma once

#include <spore.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace spore {

// The whole input of the call.
inline std::string input() {
  std::string bytes(spore_input_size(), '\0');
  bytes.resize(spore_input_read(0, bytes.data(), static_cast<uint32_t>(bytes.size())));
  return bytes;
}

// At most to.size() bytes of the input, from `offset` on: the part of `to` that was filled. For inputs that are better
// read piece by piece.
inline std::span<char> read(uint32_t offset, std::span<char> to) {
  return to.first(spore_input_read(offset, to.data(), static_cast<uint32_t>(to.size())));
}

// Appends to the output of the call.
inline void write(std::string_view bytes) { spore_output_write(bytes.data(), static_cast<uint32_t>(bytes.size())); }
inline void write(std::span<const std::byte> bytes) {
  spore_output_write(bytes.data(), static_cast<uint32_t>(bytes.size()));
}

}  // namespace spore
