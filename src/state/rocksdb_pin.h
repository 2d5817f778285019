// One version of a value in RocksDbTier: a snapshot of the database's, and the value's record in it. Any thread.
#pragma once

#include "state/rocksdb_store.h"

namespace spore::state {

class RocksDbPin final : public Snapshot {
 public:
  // kNotFound: no such value.
  static Result<std::shared_ptr<Snapshot>> take(std::shared_ptr<RocksDbStore> store, const ValueId& id);
  ~RocksDbPin() override;

  Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) override;
  Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                              Deadline deadline) override;

 private:
  RocksDbPin(std::shared_ptr<RocksDbStore> store, const rocksdb::Snapshot* snapshot, std::string key,
             rocksdb_records::ManifestRecord record);
  Result<void> read_in_chunk(uint64_t offset, std::span<uint8_t> to);

  const std::shared_ptr<RocksDbStore> store_;
  const rocksdb::Snapshot* const snapshot_;
  const std::string key_;
  const rocksdb_records::ManifestRecord record_;
};

}  // namespace spore::state
