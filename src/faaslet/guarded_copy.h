// Copies between host and guest memory that end with false, not with a dead process, where a page is not there (a hole,
// a read-only window, a file cut short). The bytes before the fault may have been copied.
#pragma once

#include <cstddef>

namespace spore::faaslet {

[[nodiscard]] bool guarded_copy(void* to, const void* from, size_t size_bytes);
[[nodiscard]] bool guarded_fill(void* to, unsigned char value, size_t size_bytes);

}  // namespace spore::faaslet
