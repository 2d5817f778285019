// What the host keeps between tenants beyond their memory, by the names that functions can require (docs/isolation.md).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace spore::isolation {

struct Boundary {
  std::string name;      // "cpu", ...
  std::string why_not;   // empty: it is enforced
  std::string how = {};  // where there is something to say of that
};

class Boundaries {
 public:
  void add(std::string name, const Result<void>& made) {
    all_.push_back({std::move(name), made ? std::string() : made.error().message});
  }
  void add_enforced(std::string name, std::string how) { all_.push_back({std::move(name), {}, std::move(how)}); }
  const std::vector<Boundary>& all() const { return all_; }

  // kUnavailable where one of these is not enforced on this host, naming it and why.
  Result<void> check(const std::vector<std::string>& required) const {
    for (const std::string& name : required) {
      std::string why_not = "this host does not know it";
      for (const Boundary& boundary : all_)
        if (boundary.name == name) why_not = boundary.why_not;
      if (!why_not.empty())
        return fail(ErrorCode::kUnavailable, "requires " + name + ", which is not enforced here: " + why_not);
    }
    return {};
  }

  // A line each.
  std::string text() const {
    std::string out;
    for (const Boundary& boundary : all_) {
      out += boundary.name + (boundary.why_not.empty() ? ": enforced" : ": not enforced: " + boundary.why_not);
      out += (boundary.how.empty() ? "" : ": " + boundary.how) + "\n";
    }
    return out;
  }

 private:
  std::vector<Boundary> all_;
};

}  // namespace spore::isolation
