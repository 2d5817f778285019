// The durable record of one function: a small JSON object in the store, under functions/TENANT/NAME.json. It is what
// makes a function exist.
#pragma once

#include "functions/function.h"

namespace spore::functions {

constexpr uint64_t kRecordBytesMax = 64ull << 20;

struct Record {
  FunctionInfo info;         // without what is known from compiled objects (object_bytes, tier)
  uint64_t next_number = 1;  // of the next version
};

std::string record_name(const FunctionId& id);
std::string record_to_json(const Record& record);
// Checks everything, also that the record is that of `name`. kInternal: damaged, and how.
Result<Record> record_from_json(std::string_view name, std::string_view json);

}  // namespace spore::functions
