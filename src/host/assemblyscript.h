// What AssemblyScript's standard library imports from "env" when nothing else provides it: abort, trace, console, the
// seed of Math.random and Date.now. Strings are UTF-16 in the guest's memory, their size in bytes in the word before
// them.
#pragma once

#include "host/binding.h"

namespace spore::host::assemblyscript {

using String = GuestPtr<uint16_t>;

Reply<void> abort(HostCall&, String message, String file, uint32_t line, uint32_t column);
Reply<void> trace(HostCall&, String message, uint32_t count, double a0, double a1, double a2, double a3, double a4);
Reply<void> console_out(HostCall&, String text);
Reply<void> console_error(HostCall&, String text);
Reply<double> seed(HostCall&);
Reply<double> date_now(HostCall&);
Reply<double> still_date_now(HostCall&);  // for initialisers, as wasi::still_clock_time_get

}  // namespace spore::host::assemblyscript
