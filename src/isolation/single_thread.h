// Forking and dropping privileges are for a process of one thread: another would keep its locks, or its rights.
#pragma once

#include <filesystem>
#include <iterator>
#include <string>
#include <string_view>

#include "base/result.h"

namespace spore::isolation {

// kFailedPrecondition, saying what it is that cannot be done. The thread sanitizer has a thread of its own in every
// process, which takes no part in anything.
inline Result<void> check_single_threaded(std::string_view what) {
#if __has_feature(thread_sanitizer)
  constexpr auto kThreadsMax = 2;
#else
  constexpr auto kThreadsMax = 1;
#endif
  std::error_code error;
  const std::filesystem::directory_iterator tasks("/proc/self/task", error);
  const auto threads = error ? 1 : std::distance(begin(tasks), end(tasks));
  if (threads <= kThreadsMax) return {};
  return fail(ErrorCode::kFailedPrecondition,
              std::string(what) + " before there is a second thread; there are " + std::to_string(threads));
}

}  // namespace spore::isolation
