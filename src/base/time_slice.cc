#include "base/time_slice.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace spore {

namespace {

// As the kernel has it; its header does not go together with the C library's.
struct Attributes {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime_ns;
  uint64_t deadline_ns;
  uint64_t period_ns;
};
constexpr uint32_t kPolicyNormal = 0;
constexpr uint64_t kShortestSliceNs = 100'000;

}  // namespace

void ask_for_short_time_slices() {
  Attributes attributes{};
  if (::syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) != 0) return;
  if (attributes.policy != kPolicyNormal) return;
  attributes.size = sizeof(attributes);
  attributes.runtime_ns = kShortestSliceNs;
  ::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace spore
