#include "state/quota_tier.h"

#include "state/merge.h"

namespace spore::state {

// What a push adds to its tenant, while it is under way.
class QuotaTier::Growth {
 public:
  Growth(QuotaTier& tier, const std::string& tenant, const Usage& usage) : tier_(tier), tenant_(tenant), usage_(usage) {
    auto growing = tier_.growing_.lock();
    Usage& all = (*growing)[tenant_];
    all.keys += usage_.keys;
    all.bytes += usage_.bytes;
  }
  ~Growth() {
    auto growing = tier_.growing_.lock();
    const auto all = growing->find(tenant_);
    all->second.keys -= usage_.keys;
    all->second.bytes -= usage_.bytes;
    if (all->second.keys == 0 && all->second.bytes == 0) growing->erase(all);
  }
  Growth(const Growth&) = delete;
  Growth& operator=(const Growth&) = delete;

 private:
  QuotaTier& tier_;
  const std::string& tenant_;
  const Usage usage_;
};

// With `growth` counted in growing_ already.
Result<void> QuotaTier::check(const std::string& tenant, const Usage& growth, Deadline deadline) {
  ASSIGN_OR_RETURN(Usage all, tier_.usage(tenant, deadline));
  const Usage growing = (*growing_.lock())[tenant];
  all.keys += growing.keys;
  all.bytes += growing.bytes;
  const auto refuse = [&](const std::string& what) {
    return fail(ErrorCode::kResourceExhausted, "tenant \"" + tenant + "\" may keep " + what + " in the store of state");
  };
  if (growth.keys > 0 && all.keys > quota_.keys_max) return refuse(std::to_string(quota_.keys_max) + " values");
  if (growth.bytes > 0 && all.bytes > quota_.bytes_max) return refuse(std::to_string(quota_.bytes_max) + " bytes");
  return {};
}

Result<Pushed> QuotaTier::push(const ValueId& id, const Push& push, Deadline deadline) {
  constexpr StoreQuota kNone;
  const bool is_bound = quota_.keys_max != kNone.keys_max || quota_.bytes_max != kNone.bytes_max;
  if (!is_bound || !(push.size_bytes || push.append)) return tier_.push(id, push, deadline);
  TRY(check_push(id, push));
  const auto now = tier_.describe(id, deadline);
  if (!now && now.error().code != ErrorCode::kNotFound) return std::unexpected(now.error());
  const uint64_t before = now ? now->size_bytes : 0;
  const uint64_t after = push.append ? before + push.append->size() : *push.size_bytes;
  const Usage growth{.keys = now ? 0u : 1u, .bytes = after > before ? after - before : 0};
  if (growth.keys == 0 && growth.bytes == 0) return tier_.push(id, push, deadline);
  const Growth under_way(*this, id.tenant, growth);
  TRY(check(id.tenant, growth, deadline));
  return tier_.push(id, push, deadline);
}

}  // namespace spore::state
