// From a module's image as instantiated to the one its calls begin from: runs the initialisers once and captures what
// they leave behind.
//
// An initialiser has the function's configured arguments and environment, no input and no files. What it says on stderr
// goes to the host's log. Time stands still for it. If it asks for what differs from call to call (its input,
// randomness), the image stays as instantiated and every call runs the initialisers itself; the image says why.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "faaslet/proto_faaslet.h"
#include "host/host_state.h"

namespace spore::host {

struct InitialiseOptions {
  std::string name;                    // of the function, for the log
  std::vector<std::string> arguments;  // CallSetup's
  std::vector<std::string> environment;
  std::vector<Preopen> preopens;  // what the libc learns of them at its start stays in the image
  std::chrono::milliseconds timeout{10'000};
  MemoryAccountPtr memory;  // whose memory they take; null: nobody's
};

// The same image where there is nothing to run. kInvalidModule: an initialiser traps, exits or opens files;
// kDeadlineExceeded: it does not end. Both name it. Blocks; any thread: the initialisers get one of their own.
Result<std::shared_ptr<const faaslet::ProtoFaaslet>> initialise(
    std::shared_ptr<const faaslet::ProtoFaaslet> instantiated, InitialiseOptions options);

}  // namespace spore::host
