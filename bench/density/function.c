// Remembers a number in so many pages of its memory, and tells it again if every one of them still holds it.
#include <spore.h>

enum { kPageBytes = 4096, kPagesMax = 16 };

struct Request {
  uint32_t remember;  // else: tell
  uint32_t pages;     // 1 to kPagesMax
  uint64_t number;    // to remember; or to be added to the one that is told
};

// The request is read into the first page, so that a call writes to these pages only.
struct Page {
  uint64_t number;
  struct Request request;
  uint8_t rest[kPageBytes - sizeof(uint64_t) - sizeof(struct Request)];
};
static struct Page pages[kPagesMax] __attribute__((aligned(kPageBytes)));
_Static_assert(sizeof(struct Page) == kPageBytes, "a page");

SPORE_FUNCTION {
  struct Request* request = &pages[0].request;
  if (spore_input_read(0, request, sizeof(*request)) != sizeof(*request)) return 1;
  const uint32_t count = request->pages;
  if (count < 1 || count > kPagesMax) return 2;
  if (request->remember) {
    for (uint32_t i = 0; i < count; ++i) pages[i].number = request->number;
    return 0;
  }
  for (uint32_t i = 1; i < count; ++i)
    if (pages[i].number != pages[0].number) return 3;
  request->number += pages[0].number;
  spore_output_write(&request->number, sizeof(request->number));
  return 0;
}
