// How long the kernel lets a thread run before another one that wants the same core.
#pragma once

namespace spore {

// Asks for the shortest slice there is (0.1 ms) for the calling thread. It costs throughput only where threads compete
// for a core, and a thread that wakes up there gets it after a tenth of a millisecond, not after several. Kernels
// before 6.12 have one slice for all, and ignore it. (Linux, Documentation/scheduler/sched-eevdf.rst)
void ask_for_short_time_slices();

}  // namespace spore
