#include "state/rocksdb_records.h"

#include <algorithm>

#include "base/check.h"

namespace spore::state::rocksdb_records {
namespace {

constexpr size_t kPageKeyBytes = 1 + 8 + 4 + 1;

void put_big_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

std::string with_id(char kind, uint64_t id) {
  std::string out(1, kind);
  put_big_endian(out, id, 8);
  return out;
}

std::string with_tenant(char kind, const std::string& tenant) {
  const TenantId id = tenant_id(tenant);
  std::string out(1, kind);
  out.append(reinterpret_cast<const char*>(id.data()), id.size());
  return out;
}

KeyRange all_of(const std::string& prefix) { return {.begin = prefix, .end = after_prefix(prefix)}; }

void write_version(ByteWriter& out, const Version& version) {
  out.write(version.epoch);
  out.write(version.number);
}

Version read_version(ByteReader& in) {
  Version version;
  version.epoch = in.read<uint64_t>();
  version.number = in.read<uint64_t>();
  return version;
}

void write_time(ByteWriter& out, const LeaseTime& time) {
  out.write(time.boot);
  out.write(time.boot_ms);
  out.write(time.wall_ms);
}

LeaseTime read_time(ByteReader& in) {
  LeaseTime time;
  time.boot = in.read<uint64_t>();
  time.boot_ms = in.read<int64_t>();
  time.wall_ms = in.read<int64_t>();
  return time;
}

}  // namespace

std::string manifest_prefix(const std::string& tenant) { return with_tenant('m', tenant); }
std::string manifest_key(const ValueId& id) { return manifest_prefix(id.tenant) + id.key; }
std::string lock_key(const ValueId& id) { return with_tenant('l', id.tenant) + id.key; }
std::string usage_key(const std::string& tenant) { return with_tenant('u', tenant); }
std::string tenant_key(const std::string& tenant) { return with_tenant('t', tenant); }
std::string staging_key(uint64_t body) { return with_id('s', body); }
std::string token_floor_key() { return "f"; }
std::string format_key() { return "v"; }

std::string page_key(uint64_t body, uint64_t page, uint8_t slot) {
  std::string out;
  out.reserve(kPageKeyBytes);
  out += 'p';
  put_big_endian(out, body, 8);
  put_big_endian(out, page, 4);
  out += static_cast<char>(slot);
  return out;
}

std::string chunk_key(uint64_t body, uint64_t chunk) {
  std::string out = with_id('c', body);
  put_big_endian(out, chunk, 4);
  return out;
}

std::string once_key(uint64_t epoch, std::string_view name) { return with_id('o', epoch).append(name); }

std::string once_order_key(uint64_t epoch, uint64_t sequence) {
  std::string out = with_id('n', epoch);
  put_big_endian(out, sequence, 8);
  return out;
}

std::string after_prefix(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  CHECK(!prefix.empty());
  ++prefix.back();
  return prefix;
}

KeyRange pages_from(uint64_t body, uint64_t page) {
  return {.begin = page_key(body, page, 0), .end = after_prefix(with_id('p', body))};
}
KeyRange chunks_from(uint64_t body, uint64_t chunk) {
  return {.begin = chunk_key(body, chunk), .end = after_prefix(with_id('c', body))};
}
KeyRange once_of(uint64_t epoch) { return all_of(with_id('o', epoch)); }
KeyRange once_order_of(uint64_t epoch) { return all_of(with_id('n', epoch)); }
KeyRange all_stagings() { return all_of("s"); }

PageAndSlot page_of(std::string_view key) {
  CHECK(key.size() == kPageKeyBytes, key.size());
  PageAndSlot out;
  for (const char c : key.substr(9, 4)) out.page = out.page << 8 | static_cast<uint8_t>(c);
  out.slot = static_cast<uint8_t>(key.back());
  return out;
}

uint64_t body_of_staging(std::string_view key) {
  CHECK(key.size() == 9, key.size());
  uint64_t body = 0;
  for (const char c : key.substr(1)) body = body << 8 | static_cast<uint8_t>(c);
  return body;
}

void ManifestRecord::cut(uint64_t size_bytes) {
  while (!cuts.empty() && cuts.back().size_bytes >= size_bytes) cuts.pop_back();
  cuts.push_back({.size_bytes = size_bytes, .number = manifest.version.number});
  if (cuts.size() <= kCutsMax) return;
  cuts[1].size_bytes = cuts[0].size_bytes;
  cuts.erase(cuts.begin());
}

uint64_t ManifestRecord::cut_number(uint64_t page) const {
  const uint64_t end = (page + 1) * kPageBytes;
  uint64_t number = 0;
  for (const Cut& cut : cuts)
    if (cut.size_bytes < end) number = cut.number;
  return number;
}

Bytes ManifestRecord::write() const {
  ByteWriter out;
  write_version(out, manifest.version);
  out.write(manifest.size_bytes);
  out.write(body);
  out.write(once_count);
  out.write<uint8_t>(two_slots);
  for (const Cut& cut : cuts) {
    out.write(cut.size_bytes);
    out.write(cut.number);
  }
  return out.take();
}

std::optional<ManifestRecord> ManifestRecord::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  ManifestRecord out;
  out.manifest.version = read_version(in);
  out.manifest.size_bytes = in.read<uint64_t>();
  out.body = in.read<uint64_t>();
  out.once_count = in.read<uint64_t>();
  out.two_slots = in.read<uint8_t>() != 0;
  while (in.ok() && !in.at_end() && out.cuts.size() < kCutsMax) {
    Cut cut;
    cut.size_bytes = in.read<uint64_t>();
    cut.number = in.read<uint64_t>();
    out.cuts.push_back(cut);
  }
  if (!in.ok() || !in.at_end() || !out.manifest.version.exists() || out.manifest.size_bytes > kValueBytesMax)
    return std::nullopt;
  return out;
}

// The slots, and runs of pages of one number.
Bytes ChunkRecord::write() const {
  ByteWriter out;
  out.write(slots);
  for (size_t begin = 0; begin < kPagesPerChunk;) {
    size_t end = begin + 1;
    while (end < kPagesPerChunk && numbers[end] == numbers[begin]) ++end;
    out.write(static_cast<uint8_t>(end - begin));
    out.write(numbers[begin]);
    begin = end;
  }
  return out.take();
}

std::optional<ChunkRecord> ChunkRecord::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  ChunkRecord out;
  out.slots = in.read<uint64_t>();
  size_t at = 0;
  while (in.ok() && !in.at_end()) {
    const auto count = in.read<uint8_t>();
    const auto number = in.read<uint64_t>();
    if (count > kPagesPerChunk - at) return std::nullopt;
    std::fill_n(out.numbers.begin() + static_cast<ptrdiff_t>(at), count, number);
    at += count;
  }
  if (!in.ok() || at != kPagesPerChunk) return std::nullopt;
  return out;
}

Bytes OnceRecord::write() const {
  ByteWriter out;
  write_version(out, pushed.before);
  write_version(out, pushed.after.version);
  out.write(pushed.after.size_bytes);
  return out.take();
}

std::optional<OnceRecord> OnceRecord::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  OnceRecord out;
  out.pushed.before = read_version(in);
  out.pushed.after.version = read_version(in);
  out.pushed.after.size_bytes = in.read<uint64_t>();
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return out;
}

Bytes LockRecord::write() const {
  ByteWriter out;
  out.write(token);
  out.write_text(writer);
  write_time(out, writer_until);
  out.write<uint8_t>(poisoned);
  out.write<uint64_t>(readers.size());
  for (const auto& [owner, until] : readers) {
    out.write_text(owner);
    write_time(out, until);
  }
  return out.take();
}

std::optional<LockRecord> LockRecord::parse(ByteSpan bytes) {
  ByteReader in(bytes);
  LockRecord out;
  out.token = in.read<uint64_t>();
  out.writer = in.read_text();
  out.writer_until = read_time(in);
  out.poisoned = in.read<uint8_t>() != 0;
  const uint64_t readers = in.read_count(8 + 24);
  for (uint64_t i = 0; i < readers; ++i) {
    std::string owner = in.read_text();
    out.readers[std::move(owner)] = read_time(in);
  }
  if (!in.ok() || !in.at_end()) return std::nullopt;
  return out;
}

}  // namespace spore::state::rocksdb_records
