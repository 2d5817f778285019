// Constant expressions, at instantiation.
#pragma once

#include <functional>

#include "wasm/abi.h"

namespace spore::faaslet {

// `global`: the value of a global by index; `function`: the funcref of a function by index.
wasm::Cell evaluate(const wasm::ConstExpr& expression, const std::function<wasm::Cell(uint32_t)>& global,
                    const std::function<uint64_t(uint32_t)>& function);

}  // namespace spore::faaslet
