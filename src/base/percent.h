// Percent-encoding: text as one component of paths, of URLs and of names in stores.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spore {

// Letters, digits and "-_.~" as they are, every other byte as %XX in upper case; "." and ".." have their dots written
// as %2E too. Two texts never give the same.
std::string percent_encode(std::string_view text);
// Nothing where a % is not followed by two hexadecimal digits of either case.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace spore
