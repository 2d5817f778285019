// The API described to programs (OpenAPI 3.1), and the small page at / for people. Fixed texts.
#pragma once

#include <string>
#include <string_view>

namespace spore::gateway {

std::string_view openapi();
std::string_view page();

}  // namespace spore::gateway
