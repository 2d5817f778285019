#include "state/replica.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/digest.h"
#include "base/mapping.h"
#include "state/merge.h"

namespace spore::state {

namespace {

constexpr uint64_t kCopyBytesMax = 4 << 20;                    // a push of more reads from a mapping of the file
constexpr uint64_t kFetchChunksMax = (4 << 20) / kChunkBytes;  // in one read of the global tier

uint64_t page_up(uint64_t bytes) { return (bytes + kPageBytes - 1) & ~(kPageBytes - 1); }

uint64_t bytes_of(std::span<const iovec> buffers) {
  uint64_t bytes = 0;
  for (const iovec& buffer : buffers) bytes += buffer.iov_len;
  return bytes;
}

std::unexpected<Error> late(const ValueId& id, const char* what) {
  return fail(ErrorCode::kDeadlineExceeded,
              std::string(what) + " state \"" + id.key + "\": other pushes and pulls of it took too long");
}

// Calls visit(begin, end) for each run of pages, as byte offsets.
template <class Visit>
void each_run(std::span<const uint64_t> pages, Visit visit) {
  uint64_t begin = 0, end = 0;
  for (size_t chunk = 0; chunk < pages.size(); ++chunk) {
    for (uint64_t left = pages[chunk]; left != 0;) {
      const auto first = static_cast<uint64_t>(std::countr_zero(left));
      const auto count = static_cast<uint64_t>(std::countr_one(left >> first));
      const uint64_t at = chunk * kChunkBytes + first * kPageBytes;
      if (at != end || begin == end) {
        if (begin != end) visit(begin, end);
        begin = at;
      }
      end = at + count * kPageBytes;
      left = first + count == 64 ? 0 : left >> (first + count) << (first + count);
    }
  }
  if (begin != end) visit(begin, end);
}

// The pages of a chunk that [begin, end) touches.
uint64_t pages_within(uint64_t chunk, uint64_t begin, uint64_t end) {
  const uint64_t base = chunk * kChunkBytes;
  if (end <= base || begin >= base + kChunkBytes) return 0;
  const uint64_t first = begin <= base ? 0 : (begin - base) / kPageBytes;
  const uint64_t last = end - base >= kChunkBytes ? 63 : (end - base - 1) / kPageBytes;
  return (last == 63 ? ~uint64_t{0} : (uint64_t{1} << (last + 1)) - 1) & ~((uint64_t{1} << first) - 1);
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
    const uint64_t size = std::min(end, fetch_end) - begin;
    const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(size);
    const std::span<uint8_t> bytes(buffer.get(), size);
    fetched = snapshot->read(begin, bytes, deadline);
    if (fetched) fetched = write_content(begin, bytes);
    if (fetched) count_fetched(size);
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

Result<void> Replica::settle(Deadline deadline) {
  const std::unique_lock turn(turn_, deadline);
  if (!turn) return late(id_, "change");
  const std::unique_lock content(content_);
  return {};
}

// ---- push -----------------------------------------------------------------------------------------------------------

Result<Version> Replica::push(const PushOptions& options, Deadline deadline) {
  const std::unique_lock turn(turn_, deadline);
  if (!turn) return late(id_, "push");
  const std::shared_lock content(content_);  // the size stays
  if (unsettled_) TRY(settle_merge(deadline));
  const uint64_t size = size_bytes();
  Push push;
  push.expected = options.expected;
  push.lock_token = options.lock_token;
  std::vector<uint64_t> taken;
  Merging merging;
  {
    auto state = state_.lock();
    scan_windows(*state);
    merging = state->merging;
    const uint64_t begin = std::min(options.range.offset, size);
    const uint64_t end = begin + std::min(options.range.size_bytes, size - begin);
    taken.resize(state->dirty.size());
    for (size_t chunk = 0; chunk < taken.size(); ++chunk) {
      taken[chunk] = state->dirty[chunk] & pages_within(chunk, begin, end);
      state->dirty[chunk] &= ~taken[chunk];
    }
    const bool any = std::ranges::any_of(taken, [](uint64_t pages) { return pages != 0; });
    const bool resized = !state->published || state->published_size != size;
    if (!any && !resized && !push.expected) return state->version;
    if (resized) push.size_bytes = size;
  }
  if (merging.op == MergeOp::kOverwrite) return push_overwriting(std::move(push), std::move(taken), size, deadline);
  push.once = options.once.empty() ? to_hex(random_bytes(16)) : options.once;
  auto made = make_merge_push(std::move(push), merging, taken, size);
  if (!made) {
    auto state = state_.lock();
    for (size_t chunk = 0; chunk < taken.size(); ++chunk) state->dirty[chunk] |= taken[chunk];
    return std::unexpected(std::move(made).error());
  }
  unsettled_ = std::move(*made);
  return settle_merge(deadline);
}

Result<Version> Replica::push_overwriting(Push push, std::vector<uint64_t> taken, uint64_t size, Deadline deadline) {
  uint64_t bytes = 0;
  each_run(taken, [&](uint64_t begin, uint64_t end) { bytes += std::min(end, size) - begin; });
  Bytes copy;
  Mapping mapping;
  const auto gather = [&]() -> Result<void> {
    if (bytes > kCopyBytesMax) {
      void* at = ::mmap(nullptr, page_up(size), PROT_READ, MAP_SHARED | MAP_NORESERVE, file_.get(), 0);
      if (at == MAP_FAILED) return fail_errno("map a replica of state");
      mapping = Mapping(at, page_up(size));
      each_run(taken, [&](uint64_t begin, uint64_t end) {
        push.patches.push_back({begin, {mapping.data() + begin, std::min(end, size) - begin}});
      });
      return {};
    }
    copy.resize(bytes);
    uint64_t at = 0;
    bool failed = false;
    each_run(taken, [&](uint64_t begin, uint64_t end) {
      const std::span<uint8_t> to = std::span(copy).subspan(at, std::min(end, size) - begin);
      failed |=
          ::pread(file_.get(), to.data(), to.size(), static_cast<off_t>(begin)) != static_cast<ssize_t>(to.size());
      push.patches.push_back({begin, to});
      at += to.size();
    });
    if (failed) return fail_errno("read a replica of state");
    return {};
  };
  const auto send = [&]() -> Result<Pushed> {
    TRY(gather());
    return tier_.push(id_, push, deadline);
  };
  const auto pushed = send();
  auto state = state_.lock();
  if (!pushed) {
    for (size_t chunk = 0; chunk < taken.size(); ++chunk) state->dirty[chunk] |= taken[chunk];
    return std::unexpected(Error(pushed.error()).within("push state \"" + id_.key + "\""));
  }
  account(*state, *pushed, bytes);
  return pushed->after.version;
}

// Where others pushed meanwhile, this still holds the version it had, with its own pages newer than that.
void Replica::account(State& state, const Pushed& pushed, uint64_t bytes) {
  if (traffic_) {
    traffic_->pushes.fetch_add(1, std::memory_order_relaxed);
    traffic_->pushed_bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  if (state.version == pushed.before)
    state.version = pushed.after.version;
  else if (!state.published)
    state.version = {.epoch = pushed.after.version.epoch, .number = 0};
  state.published = true;
  state.published_size = pushed.after.size_bytes;
}

// ---- merging --------------------------------------------------------------------------------------------------------

Result<void> Replica::set_merging(const Merging& merging, Deadline deadline) {
  const std::unique_lock turn(turn_, deadline);
  if (!turn) return late(id_, "change");
  if (this->merging() == merging) return {};
  const std::unique_lock content(content_);
  const auto refuse = [&](ErrorCode code, std::string why) {
    return fail(code, "merge pushes of state \"" + id_.key + "\": " + std::move(why));
  };
  const uint64_t size = size_bytes();
  if (merging.op != MergeOp::kOverwrite && size % element_bytes(merging.element) != 0)
    return refuse(ErrorCode::kInvalidArgument, "its " + std::to_string(size) + " bytes are not whole elements");
  auto state = state_.lock();
  scan_windows(*state);
  if (unsettled_ || std::ranges::any_of(state->dirty, [](uint64_t pages) { return pages != 0; }))
    return refuse(ErrorCode::kFailedPrecondition, "what was written before must be pushed first");
  UniqueFd base;
  if (merging.op != MergeOp::kOverwrite) {
    base = UniqueFd(::memfd_create("spore-state-base", MFD_CLOEXEC));
    if (!base.valid() || ::ftruncate(base.get(), static_cast<off_t>(page_up(size))) != 0)
      return fail_errno("make the base of a replica of state");
    for (off_t at = 0, end = static_cast<off_t>(size); at < end;) {  // holes stay holes
      const off_t data = ::lseek(file_.get(), at, SEEK_DATA);
      if (data < 0 || data >= end) break;
      at = std::min(::lseek(file_.get(), data, SEEK_HOLE), end);
      for (off_t from = data; from < at; from += static_cast<off_t>(kChunkBytes)) {
        ASSIGN_OR_RETURN(const Bytes bytes, read_file(file_.get(), static_cast<uint64_t>(from),
                                                      std::min(kChunkBytes, static_cast<uint64_t>(at - from))));
        TRY(write_file(base.get(), static_cast<uint64_t>(from), bytes));
      }
    }
  }
  base_ = std::move(base);
  state->merging = merging;
  return {};
}

Result<std::unique_ptr<Replica::MergePush>> Replica::make_merge_push(Push push, const Merging& merging,
                                                                     const std::vector<uint64_t>& taken,
                                                                     uint64_t size) const {
  auto out = std::make_unique<MergePush>();
  each_run(taken, [&](uint64_t begin, uint64_t end) { out->runs.emplace_back(begin, std::min(end, size)); });
  push.merge = merging.op;
  push.element = merging.element;
  struct Part {
    uint64_t offset, at, size_bytes;
  };
  std::vector<Part> parts;
  const uint64_t unit = element_bytes(merging.element);
  for (const auto& [begin, end] : out->runs) {
    ASSIGN_OR_RETURN(Bytes now, read_file(file_.get(), begin, end - begin));
    ASSIGN_OR_RETURN(const Bytes base, read_file(base_.get(), begin, end - begin));
    out->now.insert(out->now.end(), now.begin(), now.end());
    // Only elements that changed: for the others a minimum could undo what somebody overwrote.
    for (uint64_t at = 0; at < now.size();) {
      uint64_t to = at;
      while (to < now.size() && std::memcmp(&now[to], &base[to], unit) != 0) to += unit;
      if (to == at) {
        at += unit;
        continue;
      }
      const std::span<uint8_t> changed = std::span(now).subspan(at, to - at);
      if (merging.op == MergeOp::kSum) subtract(changed, ByteSpan(base).subspan(at, to - at), merging.element);
      parts.push_back({begin + at, out->bytes.size(), to - at});
      out->bytes.insert(out->bytes.end(), changed.begin(), changed.end());
      at = to;
    }
  }
  for (const Part& part : parts)
    push.patches.push_back({part.offset, ByteSpan(out->bytes).subspan(part.at, part.size_bytes)});
  out->push = std::move(push);
  return out;
}

Result<Version> Replica::settle_merge(Deadline deadline) {
  has_unsettled_ = true;
  const auto pushed = tier_.push(id_, unsettled_->push, deadline);
  if (!pushed) {
    const ErrorCode code = pushed.error().code;
    const bool unknown =
        code == ErrorCode::kDeadlineExceeded || code == ErrorCode::kUnavailable || code == ErrorCode::kInternal;
    if (!unknown) {
      auto state = state_.lock();
      for (const auto& [begin, end] : unsettled_->runs) mark_dirty(*state, begin, end);
      unsettled_.reset();
      has_unsettled_ = false;
    }
    return std::unexpected(Error(pushed.error()).within("push state \"" + id_.key + "\""));
  }
  uint64_t at = 0;
  for (const auto& [begin, end] : unsettled_->runs) {
    TRY(write_file(base_.get(), begin, ByteSpan(unsettled_->now).subspan(at, end - begin)));
    at += end - begin;
  }
  const uint64_t bytes = unsettled_->bytes.size();
  unsettled_.reset();
  has_unsettled_ = false;
  account(*state_.lock(), *pushed, bytes);
  return pushed->after.version;
}

// What others made of the run, and what is not pushed of it here: both are here afterwards, also what guests add to it
// by atomic instructions meanwhile. `begin` is that of a page.
Result<void> Replica::merge_run(uint64_t begin, ByteSpan theirs, const Merging& merging) {
  ASSIGN_OR_RETURN(const Bytes base, read_file(base_.get(), begin, theirs.size()));
  void* at = ::mmap(nullptr, theirs.size(), PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), static_cast<off_t>(begin));
  if (at == MAP_FAILED) return fail_errno("map a replica of state");
  const Mapping here(at, theirs.size());
  rebase({here.data(), here.size()}, theirs, base, merging.op, merging.element);
  return write_file(base_.get(), begin, theirs);
}

// ---- pull -----------------------------------------------------------------------------------------------------------

Result<Version> Replica::pull(Deadline deadline) {
  const std::unique_lock turn(turn_, deadline);
  if (!turn) return late(id_, "pull");
  if (unsettled_) {
    const std::shared_lock content(content_);
    TRY(settle_merge(deadline));
  }
  auto pinned = tier_.pin(id_, deadline);
  if (!pinned) return std::unexpected(std::move(pinned).error().within("pull state \"" + id_.key + "\""));
  const std::unique_lock content(content_);
  // Held only for moments: guests write meanwhile, and what they write is dirty.
  std::vector<uint32_t> present;
  Version held;
  Merging merging;
  {
    auto state = state_.lock();
    held = state->version;
    merging = state->merging;
    if (state->published && held == (*pinned)->manifest().version) return held;
    for (uint32_t chunk = 0; chunk < state->chunks.size(); ++chunk)
      if (state->chunks[chunk] == ChunkState::kPresent) present.push_back(chunk);
  }
  const Manifest manifest = (*pinned)->manifest();
  std::erase_if(present, [&](uint32_t chunk) { return chunk >= chunks_of(manifest.size_bytes); });
  const auto take_over = [&]() -> Result<void> {
    std::vector<uint64_t> changed(present.size(), ~uint64_t{0});
    if (held.epoch == manifest.version.epoch) {
      ASSIGN_OR_RETURN(changed, (*pinned)->changed_pages(present, held.number, deadline));
    }
    Bytes bytes;
    for (size_t i = 0; i < present.size(); ++i) {
      const uint64_t chunk = present[i], base = chunk * kChunkBytes;
      const auto dirty_now = [&] {
        auto state = state_.lock();
        scan_windows(*state, base, base + kChunkBytes);
        return state->dirty[chunk];
      };
      const bool merges = merging.op != MergeOp::kOverwrite;
      uint64_t wanted = changed[i] & (merges ? ~uint64_t{0} : ~dirty_now());
      if (wanted == 0) continue;
      const uint64_t first = base + static_cast<uint64_t>(std::countr_zero(wanted)) * kPageBytes;
      const uint64_t last = base + (64 - static_cast<uint64_t>(std::countl_zero(wanted))) * kPageBytes;
      // Behind the new end everything is zero.
      bytes.assign(last - first, 0);
      if (first < manifest.size_bytes) {
        const uint64_t count = std::min(last, manifest.size_bytes) - first;
        TRY((*pinned)->read(first, std::span(bytes).first(count), deadline));
        count_fetched(count);
      }
      // A page that this host itself pushed may be among those that changed, and guests may write to it right now. As
      // long as they have not, it is what was fetched, and is left alone; when they have, it is dirty.
      const uint64_t file_end = std::min(last, page_up(size_bytes()));
      if (first >= file_end) continue;
      ASSIGN_OR_RETURN(const Bytes here, read_file(file_.get(), first, file_end - first));
      for (uint64_t at = 0; at < here.size(); at += kPageBytes)
        if (std::memcmp(here.data() + at, bytes.data() + at, kPageBytes) == 0 && !merges)
          wanted &= ~pages_within(chunk, first + at, first + at + kPageBytes);
      if (!merges) wanted &= ~dirty_now();
      Result<void> written;
      each_run({&wanted, 1}, [&](uint64_t from, uint64_t to) {
        const uint64_t begin = base + from, end = std::min(base + to, file_end);
        if (begin >= end || !written) return;
        const auto run = std::span(bytes).subspan(begin - first, end - begin);
        written = merges ? merge_run(begin, run.first(std::min(end, size_bytes()) - begin), merging)
                         : write_content(begin, run);
      });
      TRY(std::move(written));
    }
    return {};
  };
  TRY([&]() -> Result<void> {
    // First longer, so that there is room; shorter last.
    const bool resized_here = [&] {
      auto state = state_.lock();
      return state->published ? state->published_size != size_bytes() : size_bytes() != manifest.size_bytes;
    }();
    const uint64_t before = size_bytes();
    if (!resized_here && manifest.size_bytes > before) {
      TRY(lengthen_file(manifest.size_bytes));
      size_bytes_.store(manifest.size_bytes, std::memory_order_release);
      if (base_.valid() && ::ftruncate(base_.get(), static_cast<off_t>(page_up(manifest.size_bytes))) != 0)
        return fail_errno("lengthen the base of a replica of state");
    }
    TRY(take_over());
    auto state = state_.lock();
    if (!resized_here && manifest.size_bytes < before) {
      TRY(clear_file_from(manifest.size_bytes));
      size_bytes_.store(manifest.size_bytes, std::memory_order_release);
    }
    const uint64_t chunks = std::max<uint64_t>(chunks_of(size_bytes()), state->chunks.size());
    const size_t known = state->chunks.size();
    state->chunks.resize(chunks, ChunkState::kAbsent);
    state->dirty.resize(chunks, 0);
    for (size_t chunk = known; chunk < chunks; ++chunk) ++state->absent;
    // Chunks behind the end of both are zeros, of which there is nothing to fetch.
    state->version = manifest.version;
    state->published = true;
    state->published_size = manifest.size_bytes;
    state->fetch_end = std::min(manifest.size_bytes, size_bytes());
    state->snapshot = state->absent > 0 ? std::move(*pinned) : nullptr;
    return {};
  }());
  TRY(clear_tail());
  return manifest.version;
}

}  // namespace spore::state
