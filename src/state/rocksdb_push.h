// One push to a value in RocksDbTier, from its plan to a batch that holds all of it. Used by one thread, which holds
// the value's stripe.
#pragma once

#include "state/merge.h"
#include "state/rocksdb_store.h"

namespace spore::state {

class RocksDbPush {
 public:
  // `before` is the value's record, nothing where the push makes it. All are borrowed.
  RocksDbPush(RocksDbStore& store, const ValueId& id, const Push& push, const PushPlan& plan,
              const std::optional<rocksdb_records::ManifestRecord>& before, uint64_t push_batch_bytes);

  // Writes it. On an error nothing of it can be seen; where it was written in parts, what lies there is cleared with
  // RocksDbTier::clear_staging(body()).
  Result<Pushed> apply(Deadline deadline);

  bool in_parts() const { return in_parts_; }
  uint64_t body() const { return after_.body; }

 private:
  struct Piece {
    uint64_t begin = 0;  // in the page
    ByteSpan bytes;
  };

  Result<void> write_pages(Deadline deadline);
  Result<void> write_page(uint64_t page, std::span<const Piece> pieces);
  Result<void> load_page(uint64_t page, std::span<uint8_t> to);
  Result<void> enter_chunk(uint64_t chunk);
  void leave_chunk();
  Result<void> drop_what_is_cut();
  void note_usage();
  Result<void> note_name();
  Result<void> write_part();

  RocksDbStore& store_;
  const ValueId& id_;
  const Push& push_;
  const PushPlan& plan_;
  const std::optional<rocksdb_records::ManifestRecord>& before_;

  rocksdb_records::ManifestRecord after_;
  bool new_body_ = false;  // there is nothing in the body before the push
  bool in_parts_ = false;
  rocksdb::WriteBatch last_;  // what makes the push happen
  rocksdb::WriteBatch part_;  // of a push in parts: pages, not yet to be seen

  std::optional<uint64_t> chunk_;
  rocksdb_records::ChunkRecord chunk_record_;
  uint64_t chunk_slots_before_ = 0;
};

}  // namespace spore::state
