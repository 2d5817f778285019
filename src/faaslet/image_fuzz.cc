// Any bytes offered as an image file are refused, or are a state that makes a Proto-Faaslet and can be written down
// again, to the same image. Input: its first bit says whether the rest is a whole file, or what is compressed in one.
// Mutations begin from the image of a small module, so that they reach what lies behind the first checks.
#include <zstd.h>

#include <algorithm>
#include <cstdlib>

#include "support/runtime.h"

namespace {

using namespace spore;

constexpr uint64_t kPagesMax = 16;
constexpr uint64_t kBodyBytesMax = 8 << 20;  // larger ones are refused by a bound, after as much has been allocated

constexpr size_t kBodySizeAt = 8 + 4 + 4 + 8 + sizeof(Digest);  // in a file, behind magic, versions and module
constexpr size_t kHeaderBytes = kBodySizeAt + sizeof(uint64_t);

const testing::Ready& module() {
  static const testing::Ready ready = [] {
    auto made = testing::prepare(R"((module
      (memory 1 10) (memory 1 2) (data (i32.const 9000) "page") (data $d "abc") (table 2 9 funcref) (table 1 externref)
      (elem $e func $f) (global (mut i64) (i64.const 1)) (global (mut funcref) (ref.func $f)) (global (mut externref)
      (ref.null extern)) (global v128 (v128.const i64x2 1 2)) (func $f) (func (memory.init $d (i32.const 0) (i32.const 0)
      (i32.const 0))) (func (table.init $e (i32.const 0) (i32.const 0) (i32.const 0)))))");
    if (!made) std::abort();
    return *made;
  }();
  return ready;
}

// The file of the module as instantiated, with another body.
Bytes file_around(ByteSpan body) {
  const Digest& digest = module().object->object().module_digest;
  Bytes file = faaslet::serialize(module().proto->state(), digest);
  file.resize(kHeaderBytes + ZSTD_compressBound(body.size()));
  const uint64_t size = body.size();
  std::copy_n(reinterpret_cast<const uint8_t*>(&size), sizeof(size), file.begin() + kHeaderBytes - sizeof(size));
  file.resize(kHeaderBytes +
              ZSTD_compress(file.data() + kHeaderBytes, file.size() - kHeaderBytes, body.data(), body.size(), 1));
  return file;
}

// An input that is accepted: the module as instantiated.
Bytes good_input(bool whole) {
  const Bytes file = faaslet::serialize(module().proto->state(), module().object->object().module_digest);
  Bytes input{static_cast<uint8_t>(whole)};
  if (whole) {
    input.insert(input.end(), file.begin(), file.end());
    return input;
  }
  uint64_t body_bytes = 0;
  std::copy_n(file.begin() + kBodySizeAt, sizeof(body_bytes), reinterpret_cast<uint8_t*>(&body_bytes));
  input.resize(1 + body_bytes);
  if (ZSTD_decompress(input.data() + 1, body_bytes, file.data() + kHeaderBytes, file.size() - kHeaderBytes) !=
      body_bytes)
    std::abort();
  return input;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  if (size < 2 || seed % 16 == 0) {
    const Bytes good = good_input(seed % 64 == 0);
    if (good.size() <= max_size) size = std::copy(good.begin(), good.end(), data) - data;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool whole = data[0] & 1;
  const ByteSpan input{data + 1, size - 1};
  Bytes file = whole ? Bytes(input.begin(), input.end()) : file_around(input);
  const Digest& digest = module().object->object().module_digest;
  if (file.size() >= kBodySizeAt + 8) {
    uint64_t body_bytes = 0;
    std::copy_n(file.begin() + kBodySizeAt, sizeof(body_bytes), reinterpret_cast<uint8_t*>(&body_bytes));
    if (body_bytes > kBodyBytesMax) return 0;
  }
  const auto state = faaslet::parse_instance_state(file, module().object->module(), digest, kPagesMax);
  if (!state) return 0;
  const auto proto = faaslet::ProtoFaaslet::make(module().object, *state, kPagesMax);
  if (!proto) std::abort();
  const Bytes again = faaslet::serialize((*proto)->state(), digest);
  const auto state_again = faaslet::parse_instance_state(again, module().object->module(), digest, kPagesMax);
  if (!state_again) std::abort();
  const auto proto_again = faaslet::ProtoFaaslet::make(module().object, *state_again, kPagesMax);
  if (!proto_again || faaslet::serialize((*proto_again)->state(), digest) != again) std::abort();
  return 0;
}
