// Each rule of the machine code check is broken on purpose, by hand-written code, and must be named.
#include "compiler/code_check.h"

#include <gtest/gtest.h>

#include "compiler/compiler.h"
#include "support/runtime.h"

namespace spore::compiler {
namespace {

// An object whose only function is `code`.
wasm::Object object_of(std::initializer_list<int> code, wasm::Tier tier) {
  wasm::Object object;
  object.tier = tier;
  object.cpu_level = wasm::CpuLevel::kV2;
  for (int byte : code) object.code.push_back(static_cast<uint8_t>(byte));
  object.code.push_back(0xc3);  // ret
  object.code.resize(4096, 0xcc);
  object.functions = {static_cast<uint32_t>(wasm::kStubPageBytes)};
  object.references = object.functions;
  return object;
}

struct Violation {
  const char* what;
  std::initializer_list<int> code;
  const char* rule;  // null: allowed
  wasm::Tier tier = wasm::Tier::kOptimised;
  bool hardened = false;
};

const Violation kViolations[] = {
    {"an ordinary addition", {0x01, 0xf8}, nullptr},
    {"gs:[rax]", {0x65, 0x8b, 0x00}, nullptr},
    {"a spill: mov [rsp+8], rax", {0x48, 0x89, 0x44, 0x24, 0x08}, nullptr},
    {"sub rsp, 24", {0x48, 0x83, 0xec, 0x18}, nullptr},
    {"a load of read-only data: mov eax, [rip+16]", {0x8b, 0x05, 0x10, 0x00, 0x00, 0x00}, nullptr},
    {"syscall", {0x0f, 0x05}, "rule 1"},
    {"int 0x80", {0xcd, 0x80}, "rule 1"},
    {"rep movsb", {0xf3, 0xa4}, "rule 1"},
    {"stosq", {0x48, 0xab}, "rule 1"},
    {"wrgsbase rax", {0xf3, 0x48, 0x0f, 0xae, 0xd8}, "rule 1"},
    {"wrfsbase rax", {0xf3, 0x48, 0x0f, 0xae, 0xd0}, "rule 1"},
    {"rdtsc", {0x0f, 0x31}, "rule 1"},
    {"ldmxcsr [rsp]", {0x0f, 0xae, 0x14, 0x24}, "rule 1"},
    {"std", {0xfd}, "rule 1"},
    {"an undefined opcode", {0x06}, "rule 1"},
    {"call far below the object", {0xe8, 0x00, 0x00, 0x00, 0xf0}, "rule 2"},
    {"jmp past the code", {0xe9, 0x00, 0x20, 0x00, 0x00}, "rule 2"},
    {"call into the middle of a stub", {0xe8, 0xfd, 0xef, 0xff, 0xff}, "rule 2"},
    {"call of the host call stub", {0xe8, 0xfb, 0xef, 0xff, 0xff}, nullptr},
    {"fs:[0]", {0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, "rule 3"},
    {"absolute [0x1000]", {0x48, 0x8b, 0x04, 0x25, 0x00, 0x10, 0, 0}, "rule 3"},
    {"mov rax, [rax]", {0x48, 0x8b, 0x00}, "rule 4"},
    {"mov [rdi], rax", {0x48, 0x89, 0x07}, "rule 4"},
    {"a store to read-only data: mov [rip+16], eax", {0x89, 0x05, 0x10, 0x00, 0x00, 0x00}, "rule 4"},
    {"lea rax, [rsp+8]", {0x48, 0x8d, 0x44, 0x24, 0x08}, "rule 5"},
    {"mov rbx, rsp", {0x48, 0x89, 0xe3}, "rule 5"},
    {"mov rbp, rsp", {0x48, 0x89, 0xe5}, "rule 5"},
    {"push rsp", {0x54}, "rule 5"},
    {"and rsp, -32", {0x48, 0x83, 0xe4, 0xe0}, "rule 5"},
    {"mov [rsp], rsp", {0x48, 0x89, 0x24, 0x24}, "rule 5"},
    {"add rax, rsp", {0x48, 0x01, 0xe0}, "rule 5"},
    {"rdgsbase rax", {0xf3, 0x48, 0x0f, 0xae, 0xc8}, "rule 6"},
    {"mov rax, [rax] in the fast tier", {0x48, 0x8b, 0x00}, nullptr, wasm::Tier::kFast},
    {"rdgsbase rax in the fast tier", {0xf3, 0x48, 0x0f, 0xae, 0xc8}, nullptr, wasm::Tier::kFast},
    {"syscall in the fast tier", {0x0f, 0x05}, "rule 1", wasm::Tier::kFast},
    {"fs:[0] in the fast tier", {0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, "rule 3", wasm::Tier::kFast},
    {"lea rcx, [rip+16]; or rcx, rax; mov rax, [rcx]",
     {0x48, 0x8d, 0x0d, 0x10, 0, 0, 0, 0x48, 0x09, 0xc1, 0x48, 0x8b, 0x01},
     nullptr,
     wasm::Tier::kOptimised,
     true},
    {"lea rdx, [rip+16]; mov rcx, rdx; or rcx, rax; spilled; mov rax, [rsi]",
     {0x48, 0x8d, 0x15, 0x10, 0,    0,    0,    0x48, 0x89, 0xd1, 0x48, 0x09, 0xc1,
      0x48, 0x89, 0x4c, 0x24, 0x08, 0x48, 0x8b, 0x74, 0x24, 0x08, 0x48, 0x8b, 0x06},
     nullptr,
     wasm::Tier::kOptimised,
     true},
    {"the same, but from another place of the stack",
     {0x48, 0x8d, 0x15, 0x10, 0,    0,    0,    0x48, 0x89, 0xd1, 0x48, 0x09, 0xc1,
      0x48, 0x89, 0x4c, 0x24, 0x08, 0x48, 0x8b, 0x74, 0x24, 0x10, 0x48, 0x8b, 0x06},
     "rule 4",
     wasm::Tier::kOptimised,
     true},
    {"mov rcx, rdx; or rcx, rax; mov rax, [rcx], hardened",
     {0x48, 0x89, 0xd1, 0x48, 0x09, 0xc1, 0x48, 0x8b, 0x01},
     "rule 4",
     wasm::Tier::kOptimised,
     true},
    {"lea rcx, [rip+16]; or rcx, rax; mov [rcx], rax",
     {0x48, 0x8d, 0x0d, 0x10, 0, 0, 0, 0x48, 0x09, 0xc1, 0x48, 0x89, 0x01},
     "rule 4",
     wasm::Tier::kOptimised,
     true},
    {"mov rbx, rsp, hardened", {0x48, 0x89, 0xe3}, "rule 5", wasm::Tier::kOptimised, true},
};

TEST(CodeCheck, FindsEachPlantedViolation) {
  for (const Violation& violation : kViolations) {
    wasm::Object object = object_of(violation.code, violation.tier);
    object.hardened = violation.hardened;
    const auto result = check_code(object);
    if (!violation.rule) {
      EXPECT_TRUE(result.has_value()) << violation.what << ": " << (result ? "" : result.error().message);
      continue;
    }
    ASSERT_FALSE(result.has_value()) << violation.what;
    EXPECT_NE(result.error().message.find(violation.rule), std::string::npos)
        << violation.what << ": " << result.error().message;
  }
}

TEST(CodeCheck, FunctionsMustLieInTheCode) {
  wasm::Object object = object_of({0x90}, wasm::Tier::kOptimised);
  object.functions[0] = 0;
  EXPECT_FALSE(check_code(object).has_value());
  object.functions[0] = 3 * 4096;
  EXPECT_FALSE(check_code(object).has_value());
}

}  // namespace
}  // namespace spore::compiler
