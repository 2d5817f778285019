// The module "spectest" that scripts of the suite import from, in the text format: functions that print (and here do
// nothing), and one of each other kind of thing.
#pragma once

#include <string_view>
#include <utility>

namespace spore::spec {

constexpr std::pair<std::string_view, std::string_view> kSpectestModules[] = {
    {"spectest", R"wat(
(module
  (func (export "print"))
  (func (export "print_i32") (param i32))
  (func (export "print_i64") (param i64))
  (func (export "print_f32") (param f32))
  (func (export "print_f64") (param f64))
  (func (export "print_i32_f32") (param i32 f32))
  (func (export "print_f64_f64") (param f64 f64))
  (global (export "global_i32") i32 (i32.const 666))
  (global (export "global_i64") i64 (i64.const 666))
  (global (export "global_f32") f32 (f32.const 666.6))
  (global (export "global_f64") f64 (f64.const 666.6))
  (table (export "table") 10 20 funcref)
  (memory (export "memory") 1 2))
)wat"},
    {"spectest_shared", R"wat((module (memory (export "shared_memory") 1 2 shared)))wat"},
};

}  // namespace spore::spec
