// From a C++ function to an import: Binding<&function> derives the WebAssembly signature from the function's type, and
// reads its arguments from the cells of the call.
//
//   Reply<R> function(HostCall& call, A... arguments)
//
// A: uint32_t, int32_t, GuestPtr<T> and enumerations of 32 bits (i32); uint64_t, int64_t (i64); float; double.
// R: one of these, or void. The function replies with a value, or with how the call ends (call.trap, park, exit);
// Errno::kWaits parks it too.
#pragma once

#include <type_traits>
#include <utility>

#include "faaslet/host_call.h"
#include "host/guest_ptr.h"
#include "host/wasi_abi.h"
#include "wasm/module.h"

namespace spore::host {

using faaslet::HostCall;
using faaslet::HostResult;

template <class T>
class Reply {
 public:
  Reply(T value) : value_(value) {}
  Reply(HostResult result) : result_(result) {}

  HostResult result() const { return result_; }
  T value() const { return value_; }

 private:
  HostResult result_ = HostResult::kDone;
  T value_{};
};

template <>
class Reply<void> {
 public:
  Reply() = default;
  Reply(HostResult result) : result_(result) {}
  HostResult result() const { return result_; }

 private:
  HostResult result_ = HostResult::kDone;
};

// Parks for PendingCall::operation (host/host_state.h).
HostResult wait_for_operation(HostCall& call);

template <class T>
struct GuestValue {
  static_assert((std::is_integral_v<T> || std::is_enum_v<T> || std::is_floating_point_v<T>) &&
                    (sizeof(T) == 4 || sizeof(T) == 8),
                "a type that WebAssembly has");
  static constexpr wasm::ValueType kType = std::is_floating_point_v<T>
                                               ? (sizeof(T) == 4 ? wasm::ValueType::kF32 : wasm::ValueType::kF64)
                                               : (sizeof(T) == 4 ? wasm::ValueType::kI32 : wasm::ValueType::kI64);
  static T read(const HostCall& call, uint32_t index) { return call.argument<T>(index); }
};

template <class T>
struct GuestValue<GuestPtr<T>> {
  static constexpr wasm::ValueType kType = wasm::ValueType::kI32;
  static GuestPtr<T> read(const HostCall& call, uint32_t index) { return GuestPtr<T>(call.argument<uint32_t>(index)); }
};

template <auto kFunction>
struct Binding;

template <class R, class... A, Reply<R> (*kFunction)(HostCall&, A...)>
struct Binding<kFunction> {
  static wasm::Signature signature() {
    wasm::Signature signature;
    signature.params = {GuestValue<A>::kType...};
    if constexpr (!std::is_void_v<R>) signature.results = {GuestValue<R>::kType};
    return signature;
  }

  static HostResult call(HostCall& call) { return dispatch(call, std::index_sequence_for<A...>()); }

 private:
  template <size_t... kIndex>
  static HostResult dispatch(HostCall& call, std::index_sequence<kIndex...>) {
    const Reply<R> reply = kFunction(call, GuestValue<A>::read(call, kIndex)...);
    if constexpr (std::is_same_v<R, wasi::Errno>) {
      if (reply.value() == wasi::Errno::kWaits) return wait_for_operation(call);
    }
    if constexpr (!std::is_void_v<R>) {
      if (reply.result() == HostResult::kDone) call.set_result(0, reply.value());
    }
    return reply.result();
  }
};

}  // namespace spore::host
