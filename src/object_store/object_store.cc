#include "object_store/object_store.h"

#include <algorithm>

namespace spore::object_store {

Result<void> check_name(std::string_view name) {
  const auto refuse = [&](const char* why) {
    return fail(ErrorCode::kInvalidArgument, std::string("object name ") + why);
  };
  if (name.empty()) return refuse("is empty");
  if (name.size() > kNameBytesMax) return refuse("is too long");
  for (const char c : name)
    if (static_cast<unsigned char>(c) < 32 || c == 127) return refuse("has a control character");
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const auto segment = name.substr(begin, end - begin);
    if (segment.empty()) return refuse("has an empty segment");
    if (segment == "." || segment == "..") return refuse("has the segment . or ..");
    if (segment.size() > kSegmentBytesMax) return refuse("has a segment that is too long");
    begin = end + 1;
  }
  return {};
}

}  // namespace spore::object_store
