#include "bin/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace spore::bin {

constexpr int kBarCells = 30;

ProgressLine::ProgressLine(std::string what) : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_percent_ >= 0) std::fputs("\r\033[K", stderr);
}

void ProgressLine::show(double share) {
  const int percent = static_cast<int>(std::clamp(share, 0.0, 1.0) * 100);
  if (!terminal_ || percent == shown_percent_) return;
  shown_percent_ = percent;
  const std::string bar(static_cast<size_t>(percent * kBarCells / 100), '#');
  std::fprintf(stderr, "\r\033[K%s [%-*s] %3d %%", what_.c_str(), kBarCells, bar.c_str(), percent);
  std::fflush(stderr);
}

}  // namespace spore::bin
