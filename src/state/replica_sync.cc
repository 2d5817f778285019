// Of a replica: what goes to the global tier and comes from it, page by page.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/digest.h"
#include "base/mapping.h"
#include "state/merge.h"
#include "state/pages.h"
#include "state/replica.h"

namespace spore::state {

namespace {

constexpr uint64_t kCopyBytesMax = 4 << 20;  // a push of more reads from a mapping of the file

std::unexpected<Error> late(const ValueId& id, const char* what) {
  return fail(ErrorCode::kDeadlineExceeded,
              std::string(what) + " state \"" + id.key + "\": other pushes and pulls of it took too long");
}

}  // namespace

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
