// Spore's own books of the memory that tenants take: who holds how much, and who may have more.
//
//   MemoryBooks (the host: a limit) --account_of(tenant)--> MemoryAccount (a limit) <-- MemoryCharge: one for each
//   thing
//                                                                                       that takes memory
//
// A charge is what its owner could make the kernel give, or what it holds where it can take no more meanwhile; the
// owner decides. Every byte that is charged counts at its account and at the host, or nowhere: where either has no
// room, nothing is charged. What is charged is given back by the charge's destruction.
//
// Where there is no room, somebody may be able to make some: books ask on_shortage(), and try once more.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/guarded.h"

namespace spore {

enum class MemoryKind : uint8_t {
  kFaaslets,    // memories, stacks and tables of guests
  kPageTables,  // of those: an estimate
  kFiles,       // that calls write for themselves
  kBuffers,     // inputs, outputs and logs of calls
  kState,       // replicas of state values
  kImages,      // that loaded functions begin from
};
constexpr size_t kMemoryKinds = 6;
std::string_view to_string(MemoryKind kind);

using MemoryByKind = std::array<uint64_t, kMemoryKinds>;

class MemoryBooks;

// A sum with a limit. Lock-free; any thread.
class MemoryTotal {
 public:
  explicit MemoryTotal(uint64_t bytes_max) : bytes_max_(bytes_max) {}

  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  uint64_t bytes_max() const { return bytes_max_; }
  // What is left; 0 also where there is more than may be.
  uint64_t room() const {
    const uint64_t used = bytes();
    return used < bytes_max_ ? bytes_max_ - used : 0;
  }
  MemoryByKind by_kind() const;

 private:
  friend class MemoryAccount;
  // Never counts what it then refuses: others would be refused meanwhile.
  bool try_add(MemoryKind kind, uint64_t bytes);
  void remove(MemoryKind kind, uint64_t bytes);

  const uint64_t bytes_max_;
  std::atomic<uint64_t> bytes_{0};
  std::array<std::atomic<uint64_t>, kMemoryKinds> kinds_{};
};

// A tenant's. Any thread; it must not outlive its books.
class MemoryAccount {
 public:
  enum class Refusal : uint8_t { kNone, kTenant, kHost };

  MemoryAccount(MemoryBooks& books, std::string tenant, uint64_t bytes_max)
      : books_(books), tenant_(std::move(tenant)), total_(bytes_max) {}

  const std::string& tenant() const { return tenant_; }
  const MemoryTotal& total() const { return total_; }
  MemoryBooks& books() const { return books_; }
  // What could be charged now.
  uint64_t room() const;

  Refusal try_charge(MemoryKind kind, uint64_t bytes);
  void give_back(MemoryKind kind, uint64_t bytes);
  // The same, where others are asked to make room. Holds no locks meanwhile, nor may the caller.
  Refusal charge(MemoryKind kind, uint64_t bytes);

 private:
  MemoryBooks& books_;
  const std::string tenant_;
  MemoryTotal total_;
  std::atomic<int64_t> asked_in_vain_ns_{0};  // when others were last asked for room and had none
};

using MemoryAccountPtr = std::shared_ptr<MemoryAccount>;

// What one thing takes. Used by one thread at a time. One without an account counts nowhere and has all the room.
class MemoryCharge {
 public:
  MemoryCharge() = default;
  MemoryCharge(MemoryAccountPtr account, MemoryKind kind) : account_(std::move(account)), kind_(kind) {}
  MemoryCharge(MemoryCharge&& other) noexcept
      : account_(std::move(other.account_)), kind_(other.kind_), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryCharge& operator=(MemoryCharge&& other) noexcept {
    std::swap(account_, other.account_);
    std::swap(kind_, other.kind_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryCharge() { lower(0); }

  // Sees to it that at least so many bytes are charged. Where that is refused nothing changes.
  MemoryAccount::Refusal cover(uint64_t bytes) {
    if (bytes <= bytes_ || !account_) return MemoryAccount::Refusal::kNone;
    return raise(bytes, true);
  }
  // The same, but nobody is asked to make room: for callers that hold locks.
  MemoryAccount::Refusal cover_at_once(uint64_t bytes) {
    if (bytes <= bytes_ || !account_) return MemoryAccount::Refusal::kNone;
    return raise(bytes, false);
  }
  // Gives back what is charged beyond that.
  void lower(uint64_t bytes) {
    if (bytes >= bytes_) return;
    account_->give_back(kind_, bytes_ - bytes);
    bytes_ = bytes;
  }
  uint64_t bytes() const { return bytes_; }
  const MemoryAccountPtr& account() const { return account_; }

 private:
  MemoryAccount::Refusal raise(uint64_t bytes, bool ask) {
    const uint64_t more = bytes - bytes_;
    const auto refusal = ask ? account_->charge(kind_, more) : account_->try_charge(kind_, more);
    if (refusal == MemoryAccount::Refusal::kNone) bytes_ = bytes;
    return refusal;
  }

  MemoryAccountPtr account_;
  MemoryKind kind_ = MemoryKind::kFaaslets;
  uint64_t bytes_ = 0;
};

struct MemoryBooksOptions {
  uint64_t bytes_max = UINT64_MAX;             // of the host
  uint64_t bytes_per_tenant_max = UINT64_MAX;  // of a tenant that has no limit of its own
  std::unordered_map<std::string, uint64_t> tenant_bytes_max;
};

class MemoryBooks {
 public:
  explicit MemoryBooks(MemoryBooksOptions options) : options_(std::move(options)), total_(options_.bytes_max) {}

  // The tenant's, the same as long as anybody has it. Takes a lock: not for what every call does.
  MemoryAccountPtr account_of(const std::string& tenant);
  const MemoryTotal& total() const { return total_; }
  // Makes room, if it can: whoever keeps what can be had again lets go of it. `of`: of this tenant's; null: anybody's.
  // Called without locks, on any thread, also on one that runs a guest. Set before the first charge.
  void on_shortage(std::function<void(const MemoryAccount* of, uint64_t bytes)> make_room) {
    make_room_ = std::move(make_room);
  }

  // For who has tried to charge with locks held: now without any.
  void ask_for_room(const MemoryAccount* of, uint64_t bytes) {
    if (make_room_) make_room_(of, bytes);
  }

  struct OfTenant {
    std::string tenant;
    uint64_t bytes = 0;
    uint64_t bytes_max = 0;
  };
  // Of those that hold something, most first.
  std::vector<OfTenant> tenants() const;
  // Charges that were refused: by the tenant's limit, by the host's.
  uint64_t refused(MemoryAccount::Refusal why) const {
    return refused_[static_cast<size_t>(why)].load(std::memory_order_relaxed);
  }

 private:
  friend class MemoryAccount;
  const MemoryBooksOptions options_;
  MemoryTotal total_;
  std::function<void(const MemoryAccount*, uint64_t)> make_room_;
  std::array<std::atomic<uint64_t>, 3> refused_{};
  std::atomic<int64_t> asked_in_vain_ns_{0};
  Guarded<std::unordered_map<std::string, std::weak_ptr<MemoryAccount>>> accounts_;
};

}  // namespace spore
