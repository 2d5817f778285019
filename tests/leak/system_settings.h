// What a mode of the leak test changes about the whole machine: transparent huge pages, a swap file, memory compaction
// without end. A process of its own holds the old values and restores them when this object goes or the test's process
// ends, however it ends.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace spore::leak {

class SystemSettings {
 public:
  struct Wanted {
    // Files and the value to write into each, for instance of /sys/kernel/mm/transparent_hugepage.
    std::vector<std::pair<std::string, std::string>> values;
    uint64_t swap_bytes = 0;  // of a swap file, 0: none
    bool compact = false;
  };

  // Before the process has a second thread. kFailedPrecondition: this machine does not allow it, and what.
  static Result<SystemSettings> apply(const Wanted& wanted);
  SystemSettings(SystemSettings&&) noexcept = default;
  SystemSettings& operator=(SystemSettings&&) = delete;
  ~SystemSettings();

 private:
  SystemSettings() = default;
  UniqueFd alive_;     // while this is open, here and nowhere else, the settings hold
  UniqueFd restored_;  // ends when they are restored
};

}  // namespace spore::leak
