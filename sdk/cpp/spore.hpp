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

#include <cerrno>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

// A call of another function of the same tenant, or of a function of this program (docs/chaining.md). It runs beside
// this one until it is destroyed, which cancels it where it has not ended.
//
//   spore::Call call("resize", picture);
//   ...                                       // does something else meanwhile
//   if (call.await() != 0) return fail(call.message());
//   spore::write(call.output());
//
// Errors are those of spore.h, negative: one that could not begin gives its own from every function.
class Call {
 public:
  Call() = default;
  Call(std::string_view function, std::string_view input)
      : handle_(spore_call(function.data(), static_cast<uint32_t>(function.size()), input.data(),
                           static_cast<uint32_t>(input.size()))) {}
  // Of this program, in its image as it was before this call; what `function` returns is the exit code.
  Call(int (*function)(), std::string_view input)
      : handle_(spore_call_self(function, input.data(), static_cast<uint32_t>(input.size()))) {}
  Call(Call&& other) noexcept : handle_(std::exchange(other.handle_, -EBADF)) {}
  Call& operator=(Call&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Call() { close(); }

  // Whether it was begun; else `error` (a positive number of <errno.h>) says why not.
  explicit operator bool() const { return handle_ >= 0; }
  int error() const { return handle_ < 0 ? static_cast<int>(-handle_) : 0; }
  int64_t handle() const { return handle_; }

  // 0, or its exit code, or minus an error number: -EAGAIN where it still runs.
  int64_t await(uint32_t timeout_ms = SPORE_AWAIT_FOREVER) const {
    return handle_ < 0 ? handle_ : spore_call_await(static_cast<uint32_t>(handle_), timeout_ms);
  }
  // Of one that has ended, else nothing.
  std::string output() const {
    std::string bytes;
    const int64_t size = handle_ < 0 ? 0 : spore_call_output_size(static_cast<uint32_t>(handle_));
    if (size <= 0) return bytes;
    bytes.resize(static_cast<size_t>(size));
    spore_call_output_read(static_cast<uint32_t>(handle_), 0, bytes.data(), static_cast<uint32_t>(size));
    return bytes;
  }
  // What went wrong, in words; at most 4 KiB of it.
  std::string message() const {
    std::string text(4096, '\0');
    const int64_t size = handle_ < 0 ? 0
                                     : spore_call_message(static_cast<uint32_t>(handle_), text.data(),
                                                          static_cast<uint32_t>(text.size()));
    text.resize(size < 0 ? 0 : static_cast<size_t>(size));
    return text;
  }
  void cancel() const {
    if (handle_ >= 0) spore_call_cancel(static_cast<uint32_t>(handle_));
  }
  void close() {
    if (handle_ >= 0) spore_call_close(static_cast<uint32_t>(handle_));
    handle_ = -EBADF;
  }

 private:
  int64_t handle_ = -EBADF;
};

// The first of them that has ended, by its position; minus an error number, -EAGAIN where none has in that time. All of
// them were begun.
inline int64_t await_any(std::span<const Call> calls, uint32_t timeout_ms = SPORE_AWAIT_FOREVER) {
  std::vector<uint32_t> handles;
  for (const Call& call : calls) handles.push_back(static_cast<uint32_t>(call.handle()));
  return spore_call_await_any(handles.data(), static_cast<uint32_t>(handles.size()), timeout_ms);
}

// Calls the function (a name, or a function of this program) once with each input, all at the same time; the calls in
// that order, all ended. Where a limit of the host is reached, waits for one that runs before it begins the next.
template <class Function>
std::vector<Call> map(Function function, std::span<const std::string> inputs) {
  std::vector<Call> calls;
  calls.reserve(inputs.size());
  size_t first_running = 0;
  for (const std::string& input : inputs) {
    Call call(function, input);
    while (call.error() == EAGAIN && first_running < calls.size()) {
      calls[first_running++].await();
      call = Call(function, input);
    }
    calls.push_back(std::move(call));
  }
  for (const Call& call : calls) call.await();
  return calls;
}

}  // namespace spore
