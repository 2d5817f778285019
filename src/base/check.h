// What must be true of our own code. CHECK is on in every build: an invariant that does not hold ends the process
// before it can hurt a neighbour, and prints the condition with the values named after it.
#pragma once

#include <sstream>
#include <string>

namespace spore {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& values);

namespace internal {
template <class... Values>
std::string describe(const Values&... values) {
  std::ostringstream out;
  ((out << ' ' << values), ...);
  return out.str();
}
}  // namespace internal
}  // namespace spore

#define CHECK(condition, ...)                                                                          \
  do {                                                                                                 \
    if (!(condition)) [[unlikely]]                                                                     \
      ::spore::check_failed(__FILE__, __LINE__, #condition, ::spore::internal::describe(__VA_ARGS__)); \
  } while (0)
