#include "state/rocksdb_pin.h"

#include <algorithm>

namespace spore::state {

using namespace rocksdb_records;

namespace {

// Copies the part of the page's bytes that lies in [offset, offset + to.size()) of the value.
void copy_page(uint64_t page, ByteSpan bytes, uint64_t offset, std::span<uint8_t> to) {
  const uint64_t page_begin = page * kPageBytes;
  const uint64_t begin = std::max(page_begin, offset);
  const uint64_t end = std::min(page_begin + bytes.size(), offset + to.size());
  if (begin < end) std::ranges::copy(bytes.subspan(begin - page_begin, end - begin), to.begin() + (begin - offset));
}

// Fewer pages than that are looked up one by one, which the filters help where there is nothing.
constexpr uint64_t kLookUpsMax = 2;

Result<void> check_deadline(const std::string& key, Deadline deadline) {
  if (Clock::now() < deadline) return {};
  return fail(ErrorCode::kDeadlineExceeded, "the deadline passed while reading the state value " + key);
}

}  // namespace

Result<std::shared_ptr<Snapshot>> RocksDbPin::take(std::shared_ptr<RocksDbStore> store, const ValueId& id) {
  const rocksdb::Snapshot* snapshot = store->db().GetSnapshot();
  auto record = store->get_record<ManifestRecord>(manifest_key(id), snapshot);
  if (record && *record)
    return std::shared_ptr<Snapshot>(new RocksDbPin(std::move(store), snapshot, id.key, std::move(**record)));
  store->db().ReleaseSnapshot(snapshot);
  if (!record) return std::unexpected(std::move(record).error());
  return fail(ErrorCode::kNotFound, "there is no state value " + id.key);
}

RocksDbPin::RocksDbPin(std::shared_ptr<RocksDbStore> store, const rocksdb::Snapshot* snapshot, std::string key,
                       ManifestRecord record)
    : Snapshot(record.manifest),
      store_(std::move(store)),
      snapshot_(snapshot),
      key_(std::move(key)),
      record_(std::move(record)) {}

RocksDbPin::~RocksDbPin() { store_->db().ReleaseSnapshot(snapshot_); }

Result<void> RocksDbPin::read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) {
  TRY(check_deadline(key_, deadline));
  if (offset > manifest_.size_bytes || to.size() > manifest_.size_bytes - offset)
    return fail(ErrorCode::kInvalidArgument, "read " + std::to_string(to.size()) + " bytes at " +
                                                 std::to_string(offset) + " of the state value " + key_ +
                                                 ", which has " + std::to_string(manifest_.size_bytes));
  std::ranges::fill(to, 0);
  while (!to.empty()) {
    const uint64_t bytes = std::min<uint64_t>(to.size(), kChunkBytes - offset % kChunkBytes);
    TRY(read_in_chunk(offset, to.first(bytes)));
    offset += bytes;
    to = to.subspan(bytes);
    if (!to.empty()) TRY(check_deadline(key_, deadline));
  }
  return {};
}

Result<void> RocksDbPin::read_in_chunk(uint64_t offset, std::span<uint8_t> to) {
  const uint64_t first = offset / kPageBytes;
  const uint64_t last = (offset + to.size() - 1) / kPageBytes;
  ChunkRecord chunk;
  if (record_.two_slots) {
    ASSIGN_OR_RETURN(const auto there,
                     store_->get_record<ChunkRecord>(chunk_key(record_.body, first / kPagesPerChunk), snapshot_));
    if (there) chunk = *there;
  }
  if (last - first < kLookUpsMax) {
    for (uint64_t page = first; page <= last; ++page) {
      ASSIGN_OR_RETURN(const auto bytes,
                       store_->get(page_key(record_.body, page, chunk.slot(page % kPagesPerChunk)), snapshot_));
      if (bytes) copy_page(page, as_bytes(*bytes), offset, to);
    }
    return {};
  }
  return store_->scan(page_key(record_.body, first, 0), page_key(record_.body, last + 1, 0), snapshot_,
                      [&](const rocksdb::Slice& key, const rocksdb::Slice& value) {
                        const PageAndSlot at = page_of(key.ToStringView());
                        if (at.slot == chunk.slot(at.page % kPagesPerChunk))
                          copy_page(at.page, bytes_of(value), offset, to);
                        return true;
                      });
}

Result<std::vector<uint64_t>> RocksDbPin::changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                                        Deadline deadline) {
  std::vector<uint64_t> out;
  out.reserve(chunks.size());
  for (const uint32_t chunk : chunks) {
    TRY(check_deadline(key_, deadline));
    if (chunk >= chunks_of(manifest_.size_bytes))
      return fail(ErrorCode::kInvalidArgument, "the state value " + key_ + " has no chunk " + std::to_string(chunk));
    ASSIGN_OR_RETURN(const auto there, store_->get_record<ChunkRecord>(chunk_key(record_.body, chunk), snapshot_));
    uint64_t pages = 0;
    for (uint64_t i = 0; i < kPagesPerChunk; ++i) {
      const uint64_t page = chunk * kPagesPerChunk + i;
      if (page * kPageBytes >= manifest_.size_bytes) break;
      const uint64_t number = std::max(record_.cut_number(page), there ? there->numbers[i] : 0);
      if (number > since) pages |= 1ull << i;
    }
    out.push_back(pages);
  }
  return out;
}

}  // namespace spore::state
