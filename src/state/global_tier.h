// The global tier: the authoritative copy of every state value, behind one interface.
//
//   GlobalTier --pin--> Snapshot --read--> bytes of one version
//        ^---- push: pages that changed, and the next version, at once or not at all
//
// A value is a byte array of a stated size in chunks of 256 KiB, each of 64 pages of 4 KiB. Bytes that nobody pushed
// are zero and take no room. Beside its bytes a value has a manifest: size and version. Each page knows the number of
// the push that changed it last, so that a replica can ask what has changed since the version it holds and fetches
// nothing else.
//
// All methods block for as long as the store takes, `deadline` at most, and may be called from any thread; they are for
// the state module's own threads, never for one that runs guests. Errors, for all of them:
//
//   kNotFound            no such value
//   kAlreadyExists       it is not at the version that was expected
//   kFailedPrecondition  a lock token, a pin or a lease that is no longer good
//   kInvalidArgument     beyond the value's size, or a size over kValueBytesMax
//   kResourceExhausted   the store is full or refuses so much
//   kDeadlineExceeded    the store did not answer in time; a push may have happened or not (retry it with `once`)
//   kUnavailable         the store cannot be reached, or answers that it cannot serve
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "state/value_id.h"

namespace spore::state {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kChunkBytes = 256 << 10;
constexpr uint64_t kPagesPerChunk = kChunkBytes / kPageBytes;
static_assert(kPagesPerChunk == 64, "a set of pages of a chunk is one word");
constexpr uint64_t kValueBytesMax = (4ull << 30) - (64 << 10);

inline uint64_t chunks_of(uint64_t size_bytes) { return (size_bytes + kChunkBytes - 1) / kChunkBytes; }

using Clock = std::chrono::steady_clock;
using Deadline = Clock::time_point;

// Of a value. The epoch is drawn at random when the value is made, so that one that was removed and made again is never
// taken for the old one; the number counts its pushes from 1. All zero: there is no value.
struct Version {
  uint64_t epoch = 0;
  uint64_t number = 0;
  bool exists() const { return number != 0; }
  bool operator==(const Version&) const = default;
};

struct Manifest {
  Version version;
  uint64_t size_bytes = 0;
};

// How pushed elements meet those that are there. Integers wrap; NaN loses against numbers in min and max.
enum class MergeOp : uint8_t { kOverwrite, kSum, kMin, kMax };
enum class Element : uint8_t { kI32, kI64, kF32, kF64 };  // little endian
inline uint64_t element_bytes(Element element) { return element == Element::kI32 || element == Element::kF32 ? 4 : 8; }

struct Patch {
  uint64_t offset = 0;
  ByteSpan bytes;  // borrowed for the time of the push
};

struct Push {
  // Sorted by offset, not overlapping, inside the value's size after the push.
  std::vector<Patch> patches;
  // Other than kOverwrite: the patches are whole aligned elements, and are merged into what is there (zeros where
  // nothing is).
  MergeOp merge = MergeOp::kOverwrite;
  Element element = Element::kF64;
  // The size that the value has from now on; makes the value where there is none. Nothing: there must be one, and it
  // keeps its size. What is cut off is gone: were the value to grow again, it would be zero there.
  std::optional<uint64_t> size_bytes;
  // Bytes outside the patches become zero.
  bool replace = false;
  // Bytes to put behind the value's end, in place of patches; makes the value where there is none.
  std::optional<ByteSpan> append;
  // Only at this version, else kAlreadyExists; all zero: only where there is no value.
  std::optional<Version> expected;
  // Names this push among those of the value (at most 64 bytes): if one of that name was applied before, among the last
  // kOnceNamesMax named ones, this does nothing and gives what that one gave. Empty: no name. Whether names survive the
  // removal of the value is up to the store, so a name is not used for another push.
  std::string once;
  // Of the lock under which the bytes were written; 0: none. kFailedPrecondition where the lock has been granted for
  // writing to somebody else since, or its lease ran out and somebody has asked for it since.
  uint64_t lock_token = 0;
};
constexpr size_t kOnceNamesMax = 4096;

struct Pushed {
  Version before;  // all zero: the push made the value
  Manifest after;
};

// A value as it was at one version, for as long as this lives (or, where a store keeps old versions for a time only,
// until kFailedPrecondition). Any thread.
class Snapshot {
 public:
  virtual ~Snapshot() = default;
  const Manifest& manifest() const { return manifest_; }

  // The bytes [offset, offset + to.size()) of the value.
  virtual Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) = 0;
  // Of each of these chunks the pages, lowest bit first, that pushes after version number `since` have changed.
  virtual Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                                      Deadline deadline) = 0;

 protected:
  explicit Snapshot(Manifest manifest) : manifest_(manifest) {}
  const Manifest manifest_;
};

enum class LockMode : uint8_t { kRead, kWrite };

struct LockGrant {
  uint64_t token = 0;     // grows with each grant for writing of this key; never 0
  bool poisoned = false;  // the last who held it for writing did not give it back: its lease ran out
};

struct KeyPage {
  struct Entry {
    std::string key;
    Manifest manifest;
  };
  std::vector<Entry> entries;  // sorted by key
  std::string next;            // where the next page begins; empty: this is the last
};

struct Usage {
  uint64_t keys = 0;
  uint64_t bytes = 0;  // sum of the values' sizes
};

class GlobalTier {
 public:
  virtual ~GlobalTier() = default;

  virtual Result<std::shared_ptr<Snapshot>> pin(const ValueId& id, Deadline deadline) = 0;
  virtual Result<Manifest> describe(const ValueId& id, Deadline deadline) = 0;
  virtual Result<Pushed> push(const ValueId& id, const Push& push, Deadline deadline) = 0;
  virtual Result<void> remove(const ValueId& id, std::optional<Version> expected, Deadline deadline) = 0;

  // Keys of a tenant that begin with `prefix`, from `from` on; at most `limit` (1 to 1000).
  virtual Result<KeyPage> list(const std::string& tenant, const std::string& prefix, const std::string& from,
                               size_t limit, Deadline deadline) = 0;
  // May lag behind what others do at the same time.
  virtual Result<Usage> usage(const std::string& tenant, Deadline deadline) = 0;

  // Locks are by key; there need be no value. `owner` (at most 64 bytes) names who holds it; asking again with the same
  // owner and mode renews. Nothing: somebody else holds it in a mode that excludes this one.
  virtual Result<std::optional<LockGrant>> try_lock(const ValueId& id, LockMode mode, const std::string& owner,
                                                    std::chrono::milliseconds lease, Deadline deadline) = 0;
  // kFailedPrecondition: it is no longer held by that owner.
  virtual Result<void> renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                                  Deadline deadline) = 0;
  virtual Result<void> unlock(const ValueId& id, const std::string& owner, Deadline deadline) = 0;

  // One line for people: "rocksdb at /var/lib/spore/state", "redis://127.0.0.1:6379".
  virtual std::string name() const = 0;
};

}  // namespace spore::state
