// The records of RocksDbTier: their keys and how they are written. Nothing here knows RocksDB.
//
//   'm' tenant key          ManifestRecord   a value
//   'p' body page slot      bytes            a page that is not all zero, without the zeros at its end
//   'c' body chunk          ChunkRecord      which push changed each page of a chunk last, and in which slot it lies
//   'o' epoch name          OnceRecord       what a named push gave
//   'n' epoch sequence      name             the named pushes in order, so that the oldest can be forgotten
//   'l' tenant key          LockRecord
//   'u' tenant              two int64        keys and bytes of a tenant; changed by merges that add
//   't' tenant              name             of the tenant
//   's' body                tenant, key      a push of many pages to this body is under way, or was when all ended
//   'f'                     uint64           over every token of a lock record that was dropped; merges take the larger
//   'v'                     text             the version of this format
//
// Tenants are their 16 bytes (value_id.h), bodies and epochs 8 random bytes, page, chunk and sequence big endian: so
// keys of one tenant lie side by side in the order of their bytes, and no key is the beginning of another's records.
//
// The bytes of a value lie under its body. A push that replaces everything begins a new body; the old one goes in the
// same batch. A page has two slots: small pushes write where it is; a push too large for one batch writes beside it,
// many batches, and then turns all its pages at once. Slots that no chunk record points to are rubbish.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "state/global_tier.h"

namespace spore::state::rocksdb_records {

inline constexpr std::string_view kFormatVersion = "spore state 1";

std::string manifest_key(const ValueId& id);
// The keys of a tenant's manifests begin with it, the value's key follows.
std::string manifest_prefix(const std::string& tenant);
std::string page_key(uint64_t body, uint64_t page, uint8_t slot);
std::string chunk_key(uint64_t body, uint64_t chunk);
std::string once_key(uint64_t epoch, std::string_view name);
std::string once_order_key(uint64_t epoch, uint64_t sequence);
std::string lock_key(const ValueId& id);
std::string usage_key(const std::string& tenant);
std::string tenant_key(const std::string& tenant);
std::string staging_key(uint64_t body);
std::string token_floor_key();
std::string format_key();

// All keys of that kind and id: [begin, end).
struct KeyRange {
  std::string begin, end;
};
KeyRange pages_from(uint64_t body, uint64_t page);
KeyRange chunks_from(uint64_t body, uint64_t chunk);
KeyRange once_of(uint64_t epoch);
KeyRange once_order_of(uint64_t epoch);
KeyRange all_stagings();
// The least string that is larger than all that begin with this (not all 0xff).
std::string after_prefix(std::string prefix);

struct PageAndSlot {
  uint64_t page = 0;
  uint8_t slot = 0;
};
// Of a page's key.
PageAndSlot page_of(std::string_view key);
uint64_t body_of_staging(std::string_view key);

struct ManifestRecord {
  Manifest manifest;
  uint64_t body = 0;
  uint64_t once_count = 0;  // named pushes so far
  bool two_slots = false;   // some page may lie in slot 1
  // From some size on, everything was made zero by a push of that number. Both grow along the list.
  struct Cut {
    uint64_t size_bytes = 0;
    uint64_t number = 0;
  };
  static constexpr size_t kCutsMax = 16;
  std::vector<Cut> cuts;

  // Where the list is full, the two lowest become one: pages between them count as changed later than they were.
  void cut(uint64_t size_bytes);
  // Of the last cut that the page was behind.
  uint64_t cut_number(uint64_t page) const;

  Bytes write() const;
  static std::optional<ManifestRecord> parse(ByteSpan bytes);
};

struct ChunkRecord {
  std::array<uint64_t, kPagesPerChunk> numbers{};  // 0: no push patched it since it was cut
  uint64_t slots = 0;                              // bit n: page n lies in slot 1
  uint8_t slot(uint64_t page_of_chunk) const { return slots >> page_of_chunk & 1; }

  Bytes write() const;
  static std::optional<ChunkRecord> parse(ByteSpan bytes);
};

struct OnceRecord {
  Pushed pushed;
  Bytes write() const;
  static std::optional<OnceRecord> parse(ByteSpan bytes);
};

// When a lease ends, on two clocks: within one boot of the machine the boot clock counts, which nobody sets; after
// another boot the wall clock has to do.
struct LeaseTime {
  uint64_t boot = 0;  // stands for the boot; never 0
  int64_t boot_ms = 0;
  int64_t wall_ms = 0;

  LeaseTime after(std::chrono::milliseconds lease) const {
    return {.boot = boot, .boot_ms = boot_ms + lease.count(), .wall_ms = wall_ms + lease.count()};
  }
  bool is_past(const LeaseTime& now) const {
    return now.boot == boot ? now.boot_ms >= boot_ms : now.wall_ms >= wall_ms;
  }
};

struct LockRecord {
  static constexpr size_t kReadersMax = 1024;
  uint64_t token = 0;  // grows with each grant for writing, and when a writer is found to have lost it
  std::string writer;  // empty: nobody
  LeaseTime writer_until;
  bool poisoned = false;  // the last writer, before the one there is, lost it
  std::map<std::string, LeaseTime> readers;

  Bytes write() const;
  static std::optional<LockRecord> parse(ByteSpan bytes);
};

}  // namespace spore::state::rocksdb_records
