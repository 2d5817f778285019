#include "faaslet/const_expr.h"

#include <vector>

#include "base/check.h"

namespace spore::faaslet {

wasm::Cell evaluate(const wasm::ConstExpr& expression, const std::function<wasm::Cell(uint32_t)>& global,
                    const std::function<uint64_t(uint32_t)>& function) {
  using Kind = wasm::ConstOp::Kind;
  std::vector<wasm::Cell> stack;
  for (const wasm::ConstOp& op : expression) {
    switch (op.kind) {
      case Kind::kConst: stack.push_back({op.low, op.high}); break;
      case Kind::kGlobalGet: stack.push_back(global(static_cast<uint32_t>(op.low))); break;
      case Kind::kRefFunc: stack.push_back({function(static_cast<uint32_t>(op.low)), 0}); break;
      case Kind::kRefNull: stack.push_back({0, 0}); break;
      case Kind::kAdd:
      case Kind::kSub:
      case Kind::kMul: {
        CHECK(stack.size() >= 2);
        const uint64_t b = stack.back().low;
        stack.pop_back();
        uint64_t& a = stack.back().low;
        a = op.kind == Kind::kAdd ? a + b : op.kind == Kind::kSub ? a - b : a * b;
        if (op.type == wasm::ValueType::kI32) a = static_cast<uint32_t>(a);
        break;
      }
    }
  }
  CHECK(stack.size() == 1, stack.size());
  return stack.back();
}

}  // namespace spore::faaslet
