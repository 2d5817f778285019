#include "base/memory_account.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace spore {

namespace {

// A guest at its limit can ask for more memory again and again; to look each time whether others could do with less
// would cost those.
constexpr int64_t kAskAgainNs = 10'000'000;

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

std::string_view to_string(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kFaaslets: return "faaslets";
    case MemoryKind::kPageTables: return "page_tables";
    case MemoryKind::kFiles: return "files";
    case MemoryKind::kBuffers: return "buffers";
    case MemoryKind::kState: return "state";
    case MemoryKind::kImages: return "images";
  }
  return "";
}

// ---- totals ---------------------------------------------------------------------------------------------------------

MemoryByKind MemoryTotal::by_kind() const {
  MemoryByKind out;
  for (size_t i = 0; i < kMemoryKinds; ++i) out[i] = kinds_[i].load(std::memory_order_relaxed);
  return out;
}

bool MemoryTotal::try_add(MemoryKind kind, uint64_t bytes) {
  uint64_t used = bytes_.load(std::memory_order_relaxed);
  do {
    if (used > bytes_max_ || bytes > bytes_max_ - used) return false;
  } while (!bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  kinds_[static_cast<size_t>(kind)].fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

void MemoryTotal::remove(MemoryKind kind, uint64_t bytes) {
  const uint64_t of_kind = kinds_[static_cast<size_t>(kind)].fetch_sub(bytes, std::memory_order_relaxed);
  CHECK(of_kind >= bytes, of_kind, bytes);
  bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

// ---- accounts -------------------------------------------------------------------------------------------------------

uint64_t MemoryAccount::room() const { return std::min(total_.room(), books_.total_.room()); }

MemoryAccount::Refusal MemoryAccount::try_charge(MemoryKind kind, uint64_t bytes) {
  Refusal refusal = Refusal::kNone;
  if (!total_.try_add(kind, bytes)) {
    refusal = Refusal::kTenant;
  } else if (!books_.total_.try_add(kind, bytes)) {
    total_.remove(kind, bytes);
    refusal = Refusal::kHost;
  }
  return refusal;
}

void MemoryAccount::give_back(MemoryKind kind, uint64_t bytes) {
  books_.total_.remove(kind, bytes);
  total_.remove(kind, bytes);
}

MemoryAccount::Refusal MemoryAccount::charge(MemoryKind kind, uint64_t bytes) {
  Refusal refusal = try_charge(kind, bytes);
  // What makes room in the tenant's account may yet find none at the host.
  for (int asked = 0; refusal != Refusal::kNone && asked < 2; ++asked) {
    const bool of_tenant = refusal == Refusal::kTenant;
    const MemoryTotal& total = of_tenant ? total_ : books_.total_;
    auto& in_vain = of_tenant ? asked_in_vain_ns_ : books_.asked_in_vain_ns_;
    const bool hopeless = bytes > total.bytes_max() || now_ns() - in_vain.load() < kAskAgainNs;
    if (hopeless || !books_.make_room_) break;
    books_.make_room_(of_tenant ? this : nullptr, bytes);
    if (total.room() < bytes) in_vain.store(now_ns());
    refusal = try_charge(kind, bytes);
  }
  if (refusal != Refusal::kNone) books_.refused_[static_cast<size_t>(refusal)].fetch_add(1, std::memory_order_relaxed);
  return refusal;
}

// ---- books ----------------------------------------------------------------------------------------------------------

MemoryAccountPtr MemoryBooks::account_of(const std::string& tenant) {
  auto accounts = accounts_.lock();
  auto& known = (*accounts)[tenant];
  if (auto account = known.lock()) return account;
  const auto own = options_.tenant_bytes_max.find(tenant);
  auto account = std::make_shared<MemoryAccount>(
      *this, tenant, own == options_.tenant_bytes_max.end() ? options_.bytes_per_tenant_max : own->second);
  known = account;
  if (accounts->size() % 256 == 0) std::erase_if(*accounts, [](const auto& entry) { return entry.second.expired(); });
  return account;
}

std::vector<MemoryBooks::OfTenant> MemoryBooks::tenants() const {
  std::vector<OfTenant> out;
  {
    auto accounts = accounts_.lock();
    for (const auto& [tenant, known] : *accounts) {
      const auto account = known.lock();
      if (account && account->total().bytes() > 0)
        out.push_back({tenant, account->total().bytes(), account->total().bytes_max()});
    }
  }
  std::ranges::sort(out, std::greater(), &OfTenant::bytes);
  return out;
}

}  // namespace spore
