#include "state/replica.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "state/pages.h"

namespace spore::state {

namespace {

constexpr uint64_t kFetchChunksMax = (4 << 20) / kChunkBytes;  // in one read of the global tier
constexpr uint64_t kPipeBytes = 1 << 20;                       // what a process may have for one without privileges

uint64_t bytes_of(std::span<const iovec> buffers) {
  uint64_t bytes = 0;
  for (const iovec& buffer : buffers) bytes += buffer.iov_len;
  return bytes;
}

}  // namespace

Replica::Replica(ValueId id, const Surroundings& surroundings)
    : id_(std::move(id)),
      tier_(surroundings.tier),
      tracker_(surroundings.tracker),
      fill_timeout_(surroundings.fill_timeout),
      traffic_(surroundings.traffic) {}

void Replica::count_fetched(uint64_t bytes) {
  fetched_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (traffic_) traffic_->fetched_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

Replica::~Replica() { CHECK(state_.lock()->windows.empty(), id_.key); }

Result<void> Replica::make_file(uint64_t size_bytes) {
  file_ = UniqueFd(::memfd_create("spore-state", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file_.valid()) return fail_errno("make a replica of state");
  if (::ftruncate(file_.get(), static_cast<off_t>(page_up(size_bytes))) != 0)
    return fail_errno("size a replica of state");
  if (::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) return fail_errno("seal a replica of state");
  size_bytes_ = size_bytes;
  auto state = state_.lock();
  state->chunks.assign(chunks_of(size_bytes), ChunkState::kPresent);
  state->dirty.assign(chunks_of(size_bytes), 0);
  return {};
}

Result<std::shared_ptr<Replica>> Replica::of_snapshot(ValueId id, std::shared_ptr<Snapshot> snapshot,
                                                      const Surroundings& surroundings) {
  std::shared_ptr<Replica> replica(new Replica(std::move(id), surroundings));
  const Manifest manifest = snapshot->manifest();
  TRY(replica->make_file(manifest.size_bytes));
  auto state = replica->state_.lock();
  state->version = manifest.version;
  state->published = true;
  state->published_size = state->fetch_end = manifest.size_bytes;
  state->absent = state->chunks.size();
  std::ranges::fill(state->chunks, ChunkState::kAbsent);
  if (state->absent > 0) state->snapshot = std::move(snapshot);
  return replica;
}

Result<std::shared_ptr<Replica>> Replica::of_zeros(ValueId id, uint64_t size_bytes, const Surroundings& surroundings) {
  std::shared_ptr<Replica> replica(new Replica(std::move(id), surroundings));
  TRY(replica->make_file(size_bytes));
  return replica;
}

// ---- windows --------------------------------------------------------------------------------------------------------

Result<void> Replica::add_window(uint8_t* at, uint64_t size_bytes, bool writable) {
  CHECK(tracker_ != nullptr);
  // Where a pull is under way, it does the same at its end.
  if (const std::shared_lock content(content_, std::try_to_lock); content) TRY(clear_tail());
  auto state = state_.lock();
  TRY(tracker_->watch(at, size_bytes, {.writable = writable, .may_miss = state->absent > 0}, weak_from_this()));
  state->windows[at] = {size_bytes, writable};
  return {};
}

// The end of the last page may hold what a guest wrote there. With the content locked.
Result<void> Replica::clear_tail() {
  static constexpr uint8_t kZeros[kPageBytes] = {};
  const uint64_t size = size_bytes(), tail = page_up(size) - size;
  if (tail == 0 || !all_present(*state_.lock(), size, 1)) return {};
  return write_file(file_.get(), size, {kZeros, tail});
}

void Replica::remove_window(uint8_t* at) {
  auto state = state_.lock();
  const auto window = state->windows.find(at);
  CHECK(window != state->windows.end());
  if (window->second.writable) {
    WindowTracker::take_written(at, window->second.size_bytes,
                                [&](uint64_t begin, uint64_t end) { mark_dirty(*state, begin, end); });
  }
  state->windows.erase(window);
  tracker_->forget(at);
}

void Replica::mark_dirty(State& state, uint64_t begin, uint64_t end) {
  for (uint64_t chunk = begin / kChunkBytes; chunk * kChunkBytes < end && chunk < state.dirty.size(); ++chunk)
    state.dirty[chunk] |= pages_within(chunk, begin, end);
}

void Replica::scan_windows(State& state, uint64_t from, uint64_t to) {
  for (const auto& [at, window] : state.windows) {
    if (!window.writable || from >= window.size_bytes) continue;
    WindowTracker::take_written(at + from, std::min(to, window.size_bytes) - from,
                                [&](uint64_t begin, uint64_t end) { mark_dirty(state, from + begin, from + end); });
  }
}

bool Replica::dirty() {
  auto state = state_.lock();
  scan_windows(*state);
  return !state->published || has_unsettled_ || state->published_size != size_bytes() ||
         std::ranges::any_of(state->dirty, [](uint64_t pages) { return pages != 0; });
}

// ---- waiting --------------------------------------------------------------------------------------------------------

std::shared_ptr<Operation> Replica::wait_at(uint64_t offset, const std::function<bool()>& as_expected) {
  auto waits = waits_.lock();
  if (!as_expected()) return nullptr;
  return waits->emplace(offset, std::make_shared<Operation>())->second;
}

void Replica::stop_waiting(uint64_t offset, const Operation& operation) {
  auto waits = waits_.lock();
  const auto [begin, end] = waits->equal_range(offset);
  for (auto at = begin; at != end; ++at)
    if (at->second.get() == &operation) return void(waits->erase(at));
}

uint32_t Replica::wake(uint64_t offset, uint32_t count) {
  auto waits = waits_.lock();
  uint32_t woken = 0;
  for (auto at = waits->lower_bound(offset); at != waits->end() && at->first == offset && woken < count; ++woken) {
    at->second->end(0);
    at = waits->erase(at);
  }
  return woken;
}

// ---- reads and writes of the host -----------------------------------------------------------------------------------

bool Replica::all_present(const State& state, uint64_t offset, uint64_t size_bytes) {
  if (state.absent == 0 || size_bytes == 0) return true;
  for (uint64_t chunk = offset / kChunkBytes; chunk * kChunkBytes < offset + size_bytes; ++chunk)
    if (chunk < state.chunks.size() && state.chunks[chunk] != ChunkState::kPresent) return false;
  return true;
}

std::optional<ssize_t> Replica::try_read(uint64_t offset, std::span<const iovec> to) {
  const std::shared_lock content(content_, std::try_to_lock);
  if (!content) return std::nullopt;
  const uint64_t size = size_bytes();
  if (offset >= size) return 0;
  uint64_t left = std::min(size - offset, bytes_of(to));
  {
    auto state = state_.lock();
    if (!all_present(*state, offset, left)) return std::nullopt;
  }
  // The file is longer than the value; what is read is not.
  uint64_t done = 0;
  for (const iovec& buffer : to) {
    const uint64_t count = std::min<uint64_t>(buffer.iov_len, left);
    if (count == 0) continue;
    const ssize_t got = ::pread(file_.get(), buffer.iov_base, count, static_cast<off_t>(offset + done));
    if (got < 0) return done > 0 ? static_cast<ssize_t>(done) : -errno;
    done += static_cast<uint64_t>(got);
    left -= static_cast<uint64_t>(got);
    if (static_cast<uint64_t>(got) < count) break;
  }
  return static_cast<ssize_t>(done);
}

std::optional<ssize_t> Replica::try_write(uint64_t offset, std::span<const iovec> from) {
  const std::shared_lock content(content_, std::try_to_lock);
  if (!content) return std::nullopt;
  const uint64_t size = size_bytes(), bytes = bytes_of(from);
  if (offset > size || bytes > size - offset) return -EFBIG;
  {
    auto state = state_.lock();
    if (!all_present(*state, offset, bytes)) return std::nullopt;
  }
  uint64_t done = 0;
  int error = 0;
  for (const iovec& buffer : from) {
    if (buffer.iov_len == 0) continue;
    const ssize_t wrote = ::pwrite(file_.get(), buffer.iov_base, buffer.iov_len, static_cast<off_t>(offset + done));
    if (wrote < 0) error = errno;
    if (wrote > 0) done += static_cast<uint64_t>(wrote);
    if (wrote < 0 || static_cast<size_t>(wrote) < buffer.iov_len) break;
  }
  // After the bytes: a push that comes between takes the page the next time. A copy that failed half way may have
  // changed bytes beyond those that it counts.
  if (bytes > 0) mark_dirty(*state_.lock(), offset, offset + (error ? bytes : done));
  return done > 0 || error == 0 ? static_cast<ssize_t>(done) : -error;
}

Result<bool> Replica::try_resize(uint64_t size_bytes, const Resize& resize) {
  if (merging().op != MergeOp::kOverwrite)
    return fail(ErrorCode::kFailedPrecondition, "the size of state \"" + id_.key + "\" stays while its pushes merge");
  if (size_bytes > kValueBytesMax)
    return fail(ErrorCode::kInvalidArgument,
                "a state value can have at most " + std::to_string(kValueBytesMax) + " bytes");
  const std::unique_lock content(content_, std::try_to_lock);
  if (!content || resize.expected.value_or(this->size_bytes()) != this->size_bytes()) return false;
  const bool shorter = size_bytes < this->size_bytes();
  if (resize.charge && !shorter && !resize.charge(size_bytes))
    return fail(ErrorCode::kResourceExhausted,
                "no room for the " + std::to_string(size_bytes) + " bytes of state \"" + id_.key + "\"");
  TRY(resize_content(size_bytes));
  if (resize.charge && shorter) resize.charge(size_bytes);
  return true;
}

Result<void> Replica::resize_content(uint64_t size_bytes) {
  const uint64_t before = this->size_bytes();
  if (size_bytes > before) TRY(clear_tail());  // what guests left there was not part of the value
  auto state = state_.lock();
  if (size_bytes > before) {
    TRY(lengthen_file(size_bytes));
  } else if (size_bytes < before) {
    TRY(clear_file_from(size_bytes));
    // Should the value grow again, these bytes are zeros, also where it was published.
    mark_dirty(*state, size_bytes, before);
  }
  const uint64_t chunks = std::max<uint64_t>(chunks_of(size_bytes), state->chunks.size());
  state->chunks.resize(chunks, ChunkState::kPresent);
  state->dirty.resize(chunks, 0);
  state->fetch_end = std::min(state->fetch_end, size_bytes);
  size_bytes_.store(size_bytes, std::memory_order_release);
  return {};
}

// It never gets shorter: windows may show all of it.
Result<void> Replica::lengthen_file(uint64_t size_bytes) {
  const auto end = static_cast<off_t>(page_up(size_bytes));
  if (end > ::lseek(file_.get(), 0, SEEK_END) && ::ftruncate(file_.get(), end) != 0)
    return fail_errno("lengthen a replica of state");
  return {};
}

Result<void> Replica::clear_file_from(uint64_t size_bytes) {
  const auto begin = static_cast<off_t>(size_bytes), end = ::lseek(file_.get(), 0, SEEK_END);
  if (end > begin && ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin, end - begin) != 0)
    return fail_errno("shorten a replica of state");
  return {};
}

Result<void> Replica::write_file(int file, uint64_t offset, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (wrote <= 0) {
      auto error = fail_errno("fill a replica of state");
      error.error().code = ErrorCode::kResourceExhausted;
      return error;
    }
    bytes = bytes.subspan(static_cast<size_t>(wrote));
    offset += static_cast<uint64_t>(wrote);
  }
  return {};
}

Result<Bytes> Replica::read_file(int file, uint64_t offset, uint64_t size_bytes) const {
  Bytes bytes(size_bytes);
  if (::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(offset)) != static_cast<ssize_t>(bytes.size()))
    return fail_errno("read a replica of state");
  return bytes;
}

Result<void> Replica::write_content(uint64_t offset, ByteSpan bytes) {
  if (base_.valid()) TRY(write_file(base_.get(), offset, bytes));
  return write_file(file_.get(), offset, bytes);
}

// ---- fetching -------------------------------------------------------------------------------------------------------

Result<void> Replica::fetch(ByteRange range, Deadline deadline) {
  const uint64_t size = size_bytes();
  const uint64_t begin = std::min(range.offset, size);
  const uint64_t end = begin + std::min(range.size_bytes, size - begin);
  const uint64_t chunks_end = begin == end ? 0 : chunks_of(end);
  for (uint64_t chunk = begin / kChunkBytes; chunk < chunks_end;) {
    ASSIGN_OR_RETURN(chunk, fetch_chunks(chunk, chunks_end, deadline));
  }
  return {};
}

Result<uint64_t> Replica::fetch_chunks(uint64_t chunk, uint64_t chunks_end, Deadline deadline) {
  const std::shared_lock content(content_);  // while it is held, no pull changes the snapshot
  std::shared_ptr<Snapshot> snapshot;
  uint64_t behind = 0, fetch_end = 0;
  {
    auto state = state_.lock();
    const auto is = [&](uint64_t which, ChunkState what) {
      return which < state->chunks.size() && state->chunks[which] == what;
    };
    while (is(chunk, ChunkState::kFetching)) {
      if (chunk_came_.wait_until(state.lock(), deadline) == std::cv_status::timeout)
        return fail(ErrorCode::kDeadlineExceeded,
                    "fetch state \"" + id_.key + "\": the global tier did not answer in time");
    }
    while (chunk < chunks_end && !is(chunk, ChunkState::kAbsent) && !is(chunk, ChunkState::kFetching)) ++chunk;
    behind = chunk;
    while (behind < chunks_end && behind - chunk < kFetchChunksMax && is(behind, ChunkState::kAbsent))
      state->chunks[behind++] = ChunkState::kFetching;
    if (behind == chunk) return chunk;
    snapshot = state->snapshot;
    fetch_end = state->fetch_end;
  }
  const uint64_t begin = chunk * kChunkBytes, end = behind * kChunkBytes;
  Result<void> fetched;
  if (begin < fetch_end) {
    fetched = fill_chunks(*snapshot, begin, std::min(end, fetch_end) - begin, deadline);
  }
  auto state = state_.lock();
  std::fill(state->chunks.begin() + static_cast<ptrdiff_t>(chunk),
            state->chunks.begin() + static_cast<ptrdiff_t>(behind),
            fetched ? ChunkState::kPresent : ChunkState::kAbsent);
  if (fetched && (state->absent -= behind - chunk) == 0) state->snapshot.reset();
  chunk_came_.notify_all();
  for (const auto& [at, window] : state->windows)
    if (begin < window.size_bytes) tracker_->wake(at + begin, std::min(end, window.size_bytes) - begin);
  if (!fetched) return std::unexpected(std::move(fetched).error().within("fetch state \"" + id_.key + "\""));
  return behind;
}

Result<void> Replica::fill_chunks(Snapshot& snapshot, uint64_t begin, uint64_t size_bytes, Deadline deadline) {
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(size_bytes);
  const std::span<uint8_t> bytes(buffer.get(), size_bytes);
  TRY(snapshot.read(begin, bytes, deadline));
  count_fetched(size_bytes);  // before a guest can see them
  if (base_.valid()) TRY(write_file(base_.get(), begin, bytes));
  return splice_into_file(begin, bytes);
}

// Guests see each page as soon as it is in the file. Of a write from memory that is swapped out at that moment, the
// kernel leaves a page of zeros to be seen until it has the bytes; a pipe holds them in memory.
Result<void> Replica::splice_into_file(uint64_t offset, std::span<uint8_t> bytes) {
  const auto failed = [] {
    auto error = fail_errno("fill a replica of state");
    error.error().code = ErrorCode::kResourceExhausted;
    return error;
  };
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return failed();
  const UniqueFd from(ends[0]), into(ends[1]);
  ::fcntl(into.get(), F_SETPIPE_SZ, static_cast<int>(kPipeBytes));  // else more turns
  auto to = static_cast<loff_t>(offset);
  while (!bytes.empty()) {
    const iovec part{bytes.data(), bytes.size()};
    const ssize_t held = ::vmsplice(into.get(), &part, 1, SPLICE_F_NONBLOCK);
    if (held <= 0) return failed();
    for (ssize_t left = held; left > 0;) {
      const ssize_t moved = ::splice(from.get(), nullptr, file_.get(), &to, static_cast<size_t>(left), 0);
      if (moved <= 0) return failed();
      left -= moved;
    }
    bytes = bytes.subspan(static_cast<size_t>(held));
  }
  return {};
}

bool Replica::fill(uint64_t offset) {
  const uint64_t chunk = offset / kChunkBytes;
  const bool fetched = fetch_chunks(chunk, chunk + 1, Clock::now() + fill_timeout_).has_value();
  // Pages of zeros that nobody has written yet are holes too. What is there stays as it is.
  if (fetched &&
      ::fallocate(file_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset & ~(kPageBytes - 1)), kPageBytes) == 0)
    return true;
  retire_windows();
  return false;
}

}  // namespace spore::state
