#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace spore {

void check_failed(const char* file, int line, const char* condition, const std::string& values) {
  std::fprintf(stderr, "spore: %s:%d: CHECK failed: %s%s%s\n", file, line, condition, values.empty() ? "" : ":",
               values.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace spore
