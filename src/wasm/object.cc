#include "wasm/object.h"

#include <cpuid.h>
#include <sys/auxv.h>

#include "wasm/archive.h"

namespace spore::wasm {

constexpr uint64_t kMagic = 0x6a626f65726f7073;  // "sporeobj"
constexpr uint64_t kCodeBytesMax = 1ull << 30;

template <class A>
void archive(A& a, UnwindRow& row) {
  a(row.begin, row.cfa_bytes);
}
template <class A>
void archive_tables(A& a, Object& o) {
  a(o.code, o.rodata, o.functions, o.references, o.trampolines, o.unwind);
}

static std::unexpected<Error> damaged(const char* what) {
  return fail(ErrorCode::kInvalidArgument, std::string("object: ") + what);
}

std::string_view to_string(CpuLevel level) { return level == CpuLevel::kV3 ? "x86-64-v3" : "x86-64-v2"; }
std::string_view to_string(Tier tier) { return tier == Tier::kFast ? "fast" : "optimised"; }

Result<CpuLevel> cpu_level_of_this_machine() {
  // AT_HWCAP2 bit 1: the kernel lets user space read and write GS.base.
  if (!(::getauxval(AT_HWCAP2) & 2))
    return fail(ErrorCode::kFailedPrecondition,
                "this machine's CPU or kernel does not offer fsgsbase (Linux 5.9 or newer, Ivy Bridge or newer)");
  __builtin_cpu_init();
  std::string missing;
  if (!__builtin_cpu_supports("sse4.2")) missing += " sse4.2";
  if (!__builtin_cpu_supports("ssse3")) missing += " ssse3";
  if (!__builtin_cpu_supports("popcnt")) missing += " popcnt";
  if (!missing.empty())
    return fail(ErrorCode::kFailedPrecondition, "this machine's CPU is below x86-64-v2; it lacks:" + missing);
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                  __builtin_cpu_supports("fma");
  // F16C, LZCNT and MOVBE are asked of CPUID itself; AVX2 above covers that the kernel saves the YMM state.
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c_movbe = __get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 29)) && (c & (1u << 22));
  const bool lzcnt = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 5));
  return v3 && f16c_movbe && lzcnt ? CpuLevel::kV3 : CpuLevel::kV2;
}

Bytes serialize(const Object& object) {
  ByteWriter out;
  out.write(kMagic);
  out.write(kAbiVersion);
  out.write(object.tier);
  out.write(object.cpu_level);
  out.write<uint8_t>(object.cross_instance);
  out.write<uint8_t>(object.hardened);
  out.write_bytes(object.module_digest);
  write_module_info(object.module, out);
  WriteArchive write(out);
  archive_tables(write, const_cast<Object&>(object));
  return out.take();
}

Result<Object> parse_object(ByteSpan bytes) {
  ByteReader in(bytes);
  if (in.read<uint64_t>() != kMagic) return damaged("not an object");
  if (in.read<uint32_t>() != kAbiVersion) return damaged("made for another ABI version");
  Object o;
  o.tier = in.read<Tier>();
  o.cpu_level = in.read<CpuLevel>();
  o.cross_instance = in.read<uint8_t>() != 0;
  o.hardened = in.read<uint8_t>() != 0;
  const ByteSpan digest = in.read_bytes();
  if (o.tier > Tier::kOptimised || (o.cpu_level != CpuLevel::kV2 && o.cpu_level != CpuLevel::kV3) ||
      digest.size() != o.module_digest.size())
    return damaged("the header is damaged");
  std::copy(digest.begin(), digest.end(), o.module_digest.begin());
  ASSIGN_OR_RETURN(o.module, read_module_info(in));
  ReadArchive read(in);
  archive_tables(read, o);
  if (!in.ok() || !in.at_end()) return damaged("truncated");
  if (o.code.size() % 4096 || o.rodata.size() % 4096 || o.code.size() > kCodeBytesMax ||
      o.rodata.size() > kCodeBytesMax)
    return damaged("sections are not whole pages");
  if (o.functions.size() != o.module.functions.size() || o.references.size() != o.functions.size() ||
      o.trampolines.size() != o.module.types.size())
    return damaged("the function table does not fit the module");
  const uint64_t code_end = kStubPageBytes + o.code.size();
  auto in_code = [&](uint32_t offset) { return offset >= kStubPageBytes && offset < code_end; };
  for (const auto* table : {&o.functions, &o.references, &o.trampolines})
    for (uint32_t offset : *table)
      if (!in_code(offset)) return damaged("a function lies outside the code");
  uint32_t last = 0;
  for (const UnwindRow& row : o.unwind) {
    if (row.begin < last || row.begin > code_end) return damaged("the unwind table is damaged");
    last = row.begin;
  }
  return o;
}

}  // namespace spore::wasm
