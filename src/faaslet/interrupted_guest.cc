#include "faaslet/interrupted_guest.h"

#include <signal.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/check.h"

namespace spore::faaslet {

namespace {

constexpr size_t kAlignment = 64;       // of XSAVE areas
constexpr size_t kLegacyBytes = 512;    // FXSAVE
constexpr size_t kSoftwareBytes = 464;  // where the kernel's own words begin in it
constexpr uint32_t kMagic1 = 0x46505853;

size_t frame_bytes() {
  // The smallest signal stack that the kernel accepts holds its largest frame.
  const size_t told = ::getauxval(AT_MINSIGSTKSZ);
  return (std::max<size_t>(told, 2048) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

void InterruptedGuest::FreeAligned::operator()(uint8_t* bytes) const { std::free(bytes); }

InterruptedGuest::InterruptedGuest()
    : capacity_(frame_bytes()), vectors_(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, capacity_))) {
  CHECK(vectors_ != nullptr, capacity_);
}

__attribute__((no_sanitize("thread", "address", "undefined"))) bool InterruptedGuest::take(const ucontext_t& frame) {
  const auto* vectors = reinterpret_cast<const uint8_t*>(frame.uc_mcontext.fpregs);
  if (!vectors) return false;
  uint32_t magic;
  uint32_t extended_bytes;
  std::memcpy(&magic, vectors + kSoftwareBytes, sizeof(magic));
  std::memcpy(&extended_bytes, vectors + kSoftwareBytes + sizeof(magic), sizeof(extended_bytes));
  const size_t bytes = magic == kMagic1 ? extended_bytes : kLegacyBytes;
  if (bytes > capacity_) return false;
  std::memcpy(&frame_, &frame, sizeof(frame_));
  std::memcpy(vectors_.get(), vectors, bytes);
  return true;
}

const void* InterruptedGuest::frame_for_this_thread() {
  CHECK(::sigaltstack(nullptr, &frame_.signal_stack) == 0, errno);
  CHECK(::syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &frame_.mask, sizeof(frame_.mask)) == 0, errno);
  frame_.registers.fpregs = reinterpret_cast<fpregset_t>(vectors_.get());
  return &frame_;
}

}  // namespace spore::faaslet
