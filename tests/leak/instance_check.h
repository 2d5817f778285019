// Whether an instance is, byte for byte, what its ProtoFaaslet says: stack, tables, globals, header and memories, and
// nothing accessible besides. It relies on nothing that a reset relies on: the kernel's page map is read here, and
// whatever page this process has of its own is compared with the image.
//
// Looking takes no page fault for pages that the guest has written (unless they are swapped out), so that what a reset
// concludes from the thread's fault count stays as it was.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "faaslet/faaslet.h"

namespace spore::leak {

// One a thread.
class InstanceCheck {
 public:
  static Result<InstanceCheck> make();

  // The first difference, in words. `whole`: reads every byte, also of pages that this process has no copy of.
  std::optional<std::string> compare(const faaslet::Faaslet& faaslet, const faaslet::ProtoFaaslet& proto, bool whole);
  // The first byte of [begin, end) (page-aligned addresses) that is not zero.
  std::optional<std::string> expect_zeros(uint64_t begin, uint64_t end);
  // Whether this process can read at the address.
  static bool is_accessible(uint64_t address);
  // Whether the page map has a page of this process's own in [begin, end).
  bool has_own_page(uint64_t begin, uint64_t end);

  // Pages of this process's own that have been compared.
  uint64_t pages_compared() const { return pages_compared_; }

 private:
  InstanceCheck() = default;
  // Calls visit(address) for each such page until it returns false.
  template <class Visit>
  void each_own_page(uint64_t begin, uint64_t end, Visit visit);

  UniqueFd page_map_;
  std::vector<uint64_t> entries_;
  uint64_t pages_compared_ = 0;
};

}  // namespace spore::leak
