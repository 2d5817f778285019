// A line on standard error that shows how far a long step is, where standard error is a terminal; nothing elsewhere.
#pragma once

#include <string>

namespace spore::bin {

class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  // Removes the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(double share);  // 0 to 1

 private:
  const std::string what_;
  const bool terminal_;
  int shown_percent_ = -1;
};

}  // namespace spore::bin
