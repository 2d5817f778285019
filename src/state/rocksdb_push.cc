#include "state/rocksdb_push.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>

#include "base/check.h"

namespace spore::state {

using namespace rocksdb_records;

namespace {

uint64_t draw_id() {
  uint64_t id = 0;
  while (id == 0) CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&id), sizeof id) == 1);
  return id;
}

Result<void> check_deadline(Deadline deadline) {
  if (Clock::now() < deadline) return {};
  return fail(ErrorCode::kDeadlineExceeded, "the deadline passed before the push was whole");
}

constexpr uint64_t kPartBytes = 4 << 20;

}  // namespace

RocksDbPush::RocksDbPush(RocksDbStore& store, const ValueId& id, const Push& push, const PushPlan& plan,
                         const std::optional<ManifestRecord>& before, uint64_t push_batch_bytes)
    : store_(store), id_(id), push_(push), plan_(plan), before_(before) {
  if (before) {
    after_ = *before;
  } else {
    after_.manifest.version.epoch = draw_id();
  }
  ++after_.manifest.version.number;
  after_.manifest.size_bytes = plan.size_after;
  new_body_ = !before || push.replace;
  if (new_body_) {
    after_.body = draw_id();
    after_.two_slots = false;
  }
  if (before && push.replace) {
    after_.cut(0);
  } else if (plan.size_after < plan.size_before) {
    after_.cut(plan.size_after);
  }
  uint64_t bytes = 0;
  for (const Patch& patch : plan.patches) bytes += patch.bytes.size();
  in_parts_ = bytes > push_batch_bytes;
  if (in_parts_ && !new_body_) after_.two_slots = true;
}

Result<Pushed> RocksDbPush::apply(Deadline deadline) {
  if (in_parts_) part_.Put(staging_key(after_.body), manifest_key(id_));
  TRY(write_pages(deadline));
  if (in_parts_) {
    TRY(write_part());
    last_.Delete(staging_key(after_.body));
  }
  TRY(drop_what_is_cut());
  note_usage();
  TRY(note_name());
  last_.Put(manifest_key(id_), as_slice(after_.write()));
  TRY(check_deadline(deadline));
  TRY(store_.write(last_, Durable::kYes));
  return Pushed{.before = before_ ? before_->manifest.version : Version{}, .after = after_.manifest};
}

Result<void> RocksDbPush::write_pages(Deadline deadline) {
  std::vector<Piece> pieces;
  // The page in which a smaller size cuts bytes off; where a patch touches it, they go on that way.
  std::optional<uint64_t> cut_page;
  if (!new_body_ && plan_.size_after < plan_.size_before && plan_.size_after % kPageBytes != 0)
    cut_page = plan_.size_after / kPageBytes;
  size_t index = 0;
  uint64_t at = plan_.patches.empty() ? 0 : plan_.patches.front().offset;
  while (index < plan_.patches.size()) {
    const uint64_t page = at / kPageBytes;
    const uint64_t page_end = (page + 1) * kPageBytes;
    pieces.clear();
    while (index < plan_.patches.size() && at < page_end) {
      const Patch& patch = plan_.patches[index];
      const uint64_t patch_end = patch.offset + patch.bytes.size();
      const uint64_t end = std::min(patch_end, page_end);
      pieces.push_back({.begin = at - page * kPageBytes, .bytes = patch.bytes.subspan(at - patch.offset, end - at)});
      at = end;
      if (end == patch_end && ++index < plan_.patches.size()) at = plan_.patches[index].offset;
    }
    TRY(write_page(page, pieces));
    if (cut_page == page) cut_page.reset();
    if (in_parts_ && part_.GetDataSize() >= kPartBytes) {
      TRY(check_deadline(deadline));
      TRY(write_part());
    }
  }
  if (cut_page) TRY(write_page(*cut_page, {}));
  leave_chunk();
  return {};
}

// What the page holds of what both sizes have.
Result<void> RocksDbPush::load_page(uint64_t page, std::span<uint8_t> to) {
  std::ranges::fill(to, 0);
  const uint64_t begin = page * kPageBytes;
  const uint64_t end = std::min(plan_.size_before, plan_.size_after);
  if (!before_ || begin >= end) return {};
  uint8_t slot = 0;
  if (before_->two_slots) {
    if (new_body_) {
      ASSIGN_OR_RETURN(const auto chunk,
                       store_.get_record<ChunkRecord>(chunk_key(before_->body, page / kPagesPerChunk)));
      slot = chunk ? chunk->slot(page % kPagesPerChunk) : 0;
    } else {
      slot = static_cast<uint8_t>(chunk_slots_before_ >> (page % kPagesPerChunk) & 1);
    }
  }
  ASSIGN_OR_RETURN(const auto there, store_.get(page_key(before_->body, page, slot)));
  if (there) std::copy_n(there->begin(), std::min({there->size(), to.size(), size_t(end - begin)}), to.begin());
  return {};
}

Result<void> RocksDbPush::write_page(uint64_t page, std::span<const Piece> pieces) {
  TRY(enter_chunk(page / kPagesPerChunk));
  std::array<uint8_t, kPageBytes> buffer;
  ByteSpan content;
  const bool merges = push_.merge != MergeOp::kOverwrite;
  if (!merges && pieces.size() == 1 && pieces[0].bytes.size() == kPageBytes) {
    content = pieces[0].bytes;
  } else {
    if (push_.replace && !merges) {
      buffer.fill(0);
    } else {
      TRY(load_page(page, buffer));
    }
    // Of a page that is replaced, what the patches leave out becomes zero.
    uint64_t done = 0;
    for (const Piece& piece : pieces) {
      if (push_.replace) std::fill(buffer.begin() + done, buffer.begin() + piece.begin, 0);
      merge_into(std::span(buffer).subspan(piece.begin, piece.bytes.size()), piece.bytes, push_.merge, push_.element);
      done = piece.begin + piece.bytes.size();
    }
    if (push_.replace) std::fill(buffer.begin() + done, buffer.end(), 0);
    content = buffer;
  }
  content = trim_zeros(content);

  const uint64_t in_chunk = page % kPagesPerChunk;
  uint8_t slot = chunk_record_.slot(in_chunk);
  if (in_parts_ && !new_body_) {
    last_.Delete(page_key(after_.body, page, slot));
    slot ^= 1;
    chunk_record_.slots ^= 1ull << in_chunk;
  }
  rocksdb::WriteBatch& batch = in_parts_ ? part_ : last_;
  const std::string key = page_key(after_.body, page, slot);
  if (!content.empty()) {
    batch.Put(key, as_slice(content));
  } else if (!new_body_) {
    batch.Delete(key);
  }
  if (!pieces.empty()) chunk_record_.numbers[in_chunk] = after_.manifest.version.number;
  return {};
}

Result<void> RocksDbPush::enter_chunk(uint64_t chunk) {
  if (chunk_ == chunk) return {};
  leave_chunk();
  chunk_record_ = {};
  if (!new_body_) {
    ASSIGN_OR_RETURN(const auto there, store_.get_record<ChunkRecord>(chunk_key(after_.body, chunk)));
    if (there) chunk_record_ = *there;
  }
  chunk_slots_before_ = chunk_record_.slots;
  chunk_ = chunk;
  return {};
}

void RocksDbPush::leave_chunk() {
  if (!chunk_) return;
  // Bodies begun by a replacing push need none: all their pages have its number.
  if (!(new_body_ && before_)) last_.Put(chunk_key(after_.body, *chunk_), as_slice(chunk_record_.write()));
  chunk_.reset();
}

Result<void> RocksDbPush::drop_what_is_cut() {
  if (!before_) return {};
  if (new_body_) {
    TRY(store_.drop(last_, pages_from(before_->body, 0)));
    return store_.drop(last_, chunks_from(before_->body, 0));
  }
  const uint64_t pages = (plan_.size_after + kPageBytes - 1) / kPageBytes;
  if (pages * kPageBytes >= plan_.size_before) return {};
  TRY(store_.drop(last_, pages_from(after_.body, pages)));
  return store_.drop(last_, chunks_from(after_.body, chunks_of(plan_.size_after)));
}

void RocksDbPush::note_usage() {
  const std::array<uint64_t, 2> change{before_ ? 0u : 1u, plan_.size_after - plan_.size_before};
  if (change[0] == 0 && change[1] == 0) return;
  last_.Merge(usage_key(id_.tenant), rocksdb::Slice(reinterpret_cast<const char*>(change.data()), sizeof change));
  if (!before_) last_.Put(tenant_key(id_.tenant), id_.tenant);
}

Result<void> RocksDbPush::note_name() {
  if (push_.once.empty()) return {};
  const uint64_t epoch = after_.manifest.version.epoch;
  const uint64_t sequence = after_.once_count++;
  const OnceRecord record{
      .pushed = {.before = before_ ? before_->manifest.version : Version{}, .after = after_.manifest}};
  last_.Put(once_key(epoch, push_.once), as_slice(record.write()));
  last_.Put(once_order_key(epoch, sequence), push_.once);
  if (sequence < kOnceNamesMax) return {};
  const std::string oldest = once_order_key(epoch, sequence - kOnceNamesMax);
  ASSIGN_OR_RETURN(const auto name, store_.get(oldest));
  if (name) last_.Delete(once_key(epoch, *name));
  last_.Delete(oldest);
  return {};
}

Result<void> RocksDbPush::write_part() {
  if (part_.Count() == 0) return {};
  TRY(store_.write(part_, Durable::kNo));
  part_.Clear();
  return {};
}

}  // namespace spore::state
