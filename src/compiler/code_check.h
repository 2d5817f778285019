// The last look at machine code before it is stored: every instruction is decoded again and checked against the rules
// that isolation and snapshots rest on (wasm/abi.h). It trusts nothing that the code generator believed.
//
// In every object:
//  1. only instructions that a function needs: no system call, interrupt, port, segment base write, string operation;
//  2. direct calls and jumps stay in the code or go to an entry of the stub page;
//  3. no FS-relative access, no access to an absolute address without GS.
// In the optimised tier, whose frames may be captured:
//  4. memory is reached through GS, through the stack pointer, or is a load from the object's read-only data;
//  5. no address of the stack becomes a value: nothing copies, stores or does arithmetic on rsp but rsp's own
//     adjustments (and the probe of a large frame, in r11); the stack is never realigned;
//  6. GS.base is never read.
// Where an object is hardened, read-only data is also reached through what moves and ors make of its address.
// In the fast tier memory may also be reached through a register: 4 to 6 do not hold there.
#pragma once

#include "compiler/options.h"

namespace spore::compiler {

// kInternal names the rule, the function and the instruction.
Result<void> check_code(const wasm::Object& object);

}  // namespace spore::compiler
