// The answer of a web handler: any bytes, to any method. What is accepted must be one well-formed response, whose
// header holds nothing but whole lines that a second reading takes for the same.
#include <cstdlib>

#include "gateway/cgi.h"

using namespace spore;
using namespace spore::gateway;

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Verb method = data[0] & 1 ? Verb::head : Verb::get;
  const auto response = parse_cgi_answer(Bytes(data + 1, data + size), method);
  if (!response) {
    require(!response.error().message.empty());
    return 0;
  }
  require(response->status >= 200 && response->status <= 599);
  std::string_view fields = response->fields;
  require(fields.size() <= 2 * kCgiHeaderBytesMax);
  while (!fields.empty()) {
    const size_t end = fields.find("\r\n");
    require(end != std::string_view::npos && end > 0);
    const std::string_view line = fields.substr(0, end);
    const size_t colon = line.find(": ");
    require(colon != std::string_view::npos && colon > 0);
    for (const char c : line) require(c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
    fields.remove_prefix(end + 2);
  }
  std::string head;
  write_head(*response, 11, KeepAlive::kYes, head);
  require(head.find("\r\n\r\n") == head.size() - 4);
  return 0;
}
