// Spore's own functions, import module "spore": the input and the output of the call. A pointer outside memory traps.
#pragma once

#include "host/binding.h"
#include "host/host_state.h"

namespace spore::host::calls {

Reply<uint32_t> input_size(HostCall&);
Reply<uint32_t> input_read(HostCall&, uint32_t offset, GuestPtr<uint8_t> to, uint32_t size);
Reply<uint32_t> output_write(HostCall&, GuestPtr<uint8_t> from, uint32_t size);

// Writes all of `bytes` (the guest's memory or ours) to the standard output or to the log, parking as often as it
// takes; kDone when all is written. The host function that uses it must come here with the same bytes when it is
// dispatched again.
HostResult write_whole(HostCall& call, Descriptor::Kind to, iovec bytes);

}  // namespace spore::host::calls
