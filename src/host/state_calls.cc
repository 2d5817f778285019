#include "host/state_calls.h"

#include <algorithm>
#include <cerrno>

#include "host/child_calls.h"
#include "host/state_call.h"

namespace spore::host::calls {

namespace {

using state::ByteRange;
using state::Deadline;
using state::Replica;
using state::ValueId;
using state::Version;
using wasi::Errno;

HostState& state_of(HostCall& call) { return call.state<HostState>(); }

int64_t failed(Errno error) { return -static_cast<int64_t>(error); }

HostResult out_of_bounds(HostCall& call, std::string_view what) {
  return call.trap(wasm::TrapKind::kMemoryOutOfBounds, std::string(what) + ": a pointer is outside memory");
}

// With the key that the guest names.
class StateCall : public StateDispatch<int64_t> {
 public:
  StateCall(HostCall& call, std::string_view name, Key key, uint32_t key_len) : StateDispatch(call, name) {
    if (!ok()) return;
    std::string& text = value().key;
    text.resize(std::min<size_t>(key_len, state::kKeyBytesMax + 1));
    if (!key.range(GuestMemory(call), key_len)) {
      refuse(out_of_bounds(call, name));
    } else if (!key.copy_in(GuestMemory(call), {reinterpret_cast<uint8_t*>(text.data()), text.size()})) {
      refuse(out_of_bounds(call, name));
    } else if (const auto checked = state::check_key(text); !checked) {
      refuse(fails(checked.error()));
    }
  }
  using StateDispatch::StateDispatch;
};

state::LockScope scope_of(uint32_t flags) {
  return flags & kLockGlobal ? state::LockScope::kGlobal : state::LockScope::kLocal;
}

// A window of this Faaslet that shows the value, or nothing.
std::optional<size_t> find_window(faaslet::Faaslet& faaslet, const ValueId& id, bool writable) {
  const auto windows = faaslet.windows();
  for (size_t i = 0; i < windows.size(); ++i) {
    const auto* source = dynamic_cast<const StateWindow*>(windows[i].source.get());
    if (!source || windows[i].writable != writable || source->replica()->id() != id) continue;
    if (windows[i].size_bytes < source->replica()->size_bytes() || !source->reusable()) continue;
    return i;
  }
  return std::nullopt;
}

}  // namespace

Reply<int64_t> state_map(HostCall& call, Key key, uint32_t key_len, uint64_t size, uint32_t flags) {
  StateCall on(call, "state_map", key, key_len);
  if (!on.ok()) return on.reply();
  if (flags & ~kMapReadOnly) return failed(Errno::kInval);
  const bool writable = !(flags & kMapReadOnly);
  if (writable && !on.may_write()) return failed(Errno::kNoMem);
  faaslet::Faaslet& faaslet = call.faaslet();
  const auto wrong_size = [&](uint64_t has) -> Reply<int64_t> {
    return on.fails({ErrorCode::kInvalidArgument, "state \"" + on.id().key + "\" has " + std::to_string(has) +
                                                      " bytes, not " + std::to_string(size)});
  };
  if (!on.still_waits()) {
    if (const auto index = find_window(faaslet, on.id(), writable)) {
      const faaslet::Window& window = faaslet.windows()[*index];
      const uint64_t has = static_cast<const StateWindow&>(*window.source).replica()->size_bytes();
      on.take_result();
      if (size != 0 && size != has) return wrong_size(has);
      faaslet.use_window(*index);
      return static_cast<int64_t>(window.offset);
    }
  }
  return on.with_replica(
      size == 0 ? std::nullopt : std::optional(size),
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        if (!replica.can_be_mapped()) return failed(Errno::kNotSup);
        const uint64_t has = replica.size_bytes();
        if (size != 0 && size != has) return wrong_size(has);
        if (has == 0)
          return on.fails({ErrorCode::kInvalidArgument, "state \"" + on.id().key + "\" has no bytes to map"});
        const auto window = std::make_shared<StateWindow>(replica.shared_from_this());
        auto mapped = faaslet.map_window(window, has, writable);
        if (!mapped && mapped.error().code == ErrorCode::kResourceExhausted) {
          on.tier().let_go();  // windows that idle Faaslets keep
          mapped = faaslet.map_window(window, has, writable);
        }
        if (!mapped) return on.fails(mapped.error());
        return static_cast<int64_t>(*mapped);
      },
      nothing_to_prepare);
}

Reply<int64_t> state_unmap(HostCall& call, Key key, uint32_t key_len) {
  StateCall on(call, "state_unmap", key, key_len);
  if (!on.ok()) return on.reply();
  faaslet::Faaslet& faaslet = call.faaslet();
  int64_t count = 0;
  for (size_t i = faaslet.windows().size(); i-- > 0;) {
    const faaslet::Window& window = faaslet.windows()[i];
    const auto* source = dynamic_cast<const StateWindow*>(window.source.get());
    if (!source || source->replica()->id() != on.id()) continue;
    faaslet.unmap_window(static_cast<uint32_t>(window.offset));
    ++count;
  }
  return count > 0 ? 0 : failed(Errno::kNoEnt);
}

Reply<int64_t> state_read(HostCall& call, Key key, uint32_t key_len, uint64_t offset, GuestPtr<uint8_t> to,
                          uint32_t size) {
  const auto range = to.range(GuestMemory(call), size);
  if (!range) return out_of_bounds(call, "state_read");
  StateCall on(call, "state_read", key, key_len);
  return on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const auto got = replica.try_read(offset, {&*range, 1});
        if (!got) return std::nullopt;
        if (*got == -EFAULT) return out_of_bounds(call, "state_read");
        return *got >= 0 ? int64_t{*got} : failed(Errno::kIo);
      },
      [offset, size](Replica& replica, Deadline deadline) {
        return replica.fetch({.offset = offset, .size_bytes = size}, deadline);
      });
}

Reply<int64_t> state_write(HostCall& call, Key key, uint32_t key_len, uint64_t offset, GuestPtr<uint8_t> from,
                           uint32_t size) {
  const auto range = from.range(GuestMemory(call), size);
  if (!range) return out_of_bounds(call, "state_write");
  StateCall on(call, "state_write", key, key_len);
  if (!on.ok()) return on.reply();
  if (!on.may_write()) return failed(Errno::kNoMem);
  return on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const auto wrote = replica.try_write(offset, {&*range, 1});
        if (!wrote) return std::nullopt;
        if (*wrote == -EFAULT) return out_of_bounds(call, "state_write");
        if (*wrote == -EFBIG) return failed(Errno::kFbig);
        return *wrote >= 0 ? int64_t{*wrote}
                           : failed(*wrote == -ENOSPC || *wrote == -ENOMEM ? Errno::kNoMem : Errno::kIo);
      },
      [offset, size](Replica& replica, Deadline deadline) {
        return replica.fetch({.offset = offset, .size_bytes = size}, deadline);
      });
}

Reply<int64_t> state_append(HostCall& call, Key key, uint32_t key_len, GuestPtr<uint8_t> from, uint32_t size) {
  StateCall on(call, "state_append", key, key_len);
  if (!on.ok()) return on.reply();
  auto bytes = std::make_shared<Bytes>();
  std::string once;
  if (!state_of(call).pending.operation) {
    if (!from.range(GuestMemory(call), size)) return out_of_bounds(call, "state_append");
    bytes->resize(size);
    if (!from.copy_in(GuestMemory(call), *bytes)) return out_of_bounds(call, "state_append");
    once = state_of(call).next_once();
  }
  return on.run([&tier = on.tier(), id = on.id(), bytes, once, deadline = on.deadline()]() -> Result<int64_t> {
    ASSIGN_OR_RETURN(const uint64_t offset, tier.append(id, *bytes, once, deadline));
    return static_cast<int64_t>(offset);
  });
}

Reply<int64_t> state_size(HostCall& call, Key key, uint32_t key_len) {
  StateCall on(call, "state_size", key, key_len);
  return on.with_replica(
      std::nullopt,
      [](Replica& replica) -> std::optional<Reply<int64_t>> { return static_cast<int64_t>(replica.size_bytes()); },
      nothing_to_prepare);
}

Reply<int64_t> state_resize(HostCall& call, Key key, uint32_t key_len, uint64_t size) {
  StateCall on(call, "state_resize", key, key_len);
  if (!on.ok()) return on.reply();
  if (size > state::kValueBytesMax) return failed(Errno::kInval);
  if (!on.may_write()) return failed(Errno::kNoMem);
  bool has_room = true;
  return on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const auto resized = replica.try_resize(
            size, {.charge = [&](uint64_t bytes) { return has_room = on.tier().charge(replica, bytes); }});
        if (!resized && has_room) return on.fails(resized.error());
        if (!resized || !*resized) return std::nullopt;
        return 0;
      },
      [&tier = on.tier(), size](Replica& replica, Deadline deadline) -> Result<void> {
        TRY(tier.make_room_for(replica, size));
        return replica.settle(deadline);
      });
}

Reply<int64_t> state_delete(HostCall& call, Key key, uint32_t key_len) {
  StateCall on(call, "state_delete", key, key_len);
  if (!on.ok()) return on.reply();
  return on.run([&tier = on.tier(), id = on.id(), deadline = on.deadline()]() -> Result<int64_t> {
    TRY(tier.remove(id, deadline));
    return 0;
  });
}

Reply<int64_t> state_list(HostCall& call, GuestPtr<uint8_t> prefix, uint32_t prefix_len, GuestPtr<uint8_t> after,
                          uint32_t after_len, GuestPtr<uint8_t> to, uint32_t size) {
  const GuestMemory memory(call);
  StateCall on(call, "state_list");
  if (!on.ok()) return on.reply();
  if (prefix_len > state::kKeyBytesMax || after_len > state::kKeyBytesMax) return failed(Errno::kInval);
  std::string begins(prefix_len, '\0'), behind(after_len, '\0');
  if (!prefix.copy_in(memory, {reinterpret_cast<uint8_t*>(begins.data()), begins.size()}) ||
      !after.copy_in(memory, {reinterpret_cast<uint8_t*>(behind.data()), behind.size()}) || !to.range(memory, size))
    return out_of_bounds(call, "state_list");
  HostState& host_state = state_of(call);
  if (on.still_waits()) return on.wait();
  if (const auto result = on.take_result()) {
    const auto names = std::move(host_state.pending.answer);
    host_state.pending.answer.reset();
    if (!*result) return on.fails(result->error());
    if (!to.copy_out(memory, std::span<const uint8_t>(*names))) return out_of_bounds(call, "state_list");
    return static_cast<int64_t>(names->size());
  }
  host_state.pending.answer = std::make_shared<Bytes>();
  return on.begin([&tier = on.tier(), tenant = on.id().tenant, begins, behind, size, deadline = on.deadline(),
                   names = host_state.pending.answer]() -> Result<int64_t> {
    ASSIGN_OR_RETURN(const auto keys, tier.list(tenant, begins, behind, size, deadline));
    for (const std::string& key : keys) {
      names->insert(names->end(), key.begin(), key.end());
      names->push_back(0);
    }
    return 0;
  });
}

Reply<int64_t> state_push(HostCall& call, Key key, uint32_t key_len, uint64_t offset, uint64_t size) {
  StateCall on(call, "state_push", key, key_len);
  return on.push({offset, size == 0 ? UINT64_MAX : size});
}

Reply<int64_t> state_push_if(HostCall& call, Key key, uint32_t key_len, GuestPtr<GuestVersion> version) {
  StateCall on(call, "state_push_if", key, key_len);
  if (!on.ok()) return on.reply();
  const auto expected = version.copy_in(GuestMemory(call));
  if (!expected) return out_of_bounds(call, "state_push_if");
  return on.run([&tier = on.tier(), id = on.id(), expected = Version{expected->epoch, expected->number},
                 lock = on.lock_held(), deadline = on.deadline()]() -> Result<int64_t> {
    ASSIGN_OR_RETURN(const auto replica, tier.open(id, std::nullopt, deadline));
    TRY(push_or_discard(tier, *replica, {.expected = expected}, lock, deadline));
    return 0;
  });
}

Reply<int64_t> state_pull(HostCall& call, Key key, uint32_t key_len, uint64_t offset, uint64_t size) {
  StateCall on(call, "state_pull", key, key_len);
  if (!on.ok()) return on.reply();
  return on.run([&tier = on.tier(), id = on.id(), offset, size, deadline = on.deadline()]() -> Result<int64_t> {
    ASSIGN_OR_RETURN(const auto replica, tier.open(id, std::nullopt, deadline));
    TRY(pull_or_discard(tier, *replica, deadline));
    TRY(replica->fetch({offset, size == 0 ? UINT64_MAX : size}, deadline));
    return 0;
  });
}

Reply<int64_t> state_merge(HostCall& call, Key key, uint32_t key_len, uint32_t op, uint32_t element) {
  StateCall on(call, "state_merge", key, key_len);
  if (!on.ok()) return on.reply();
  if (op > static_cast<uint32_t>(state::MergeOp::kMax) || element > static_cast<uint32_t>(state::Element::kF64))
    return failed(Errno::kInval);
  const state::Merging merging{static_cast<state::MergeOp>(op), static_cast<state::Element>(element)};
  return on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        if (replica.merging() != merging) return std::nullopt;
        return 0;
      },
      [merging](Replica& replica, Deadline deadline) { return replica.set_merging(merging, deadline); });
}

Reply<int64_t> state_version(HostCall& call, Key key, uint32_t key_len, GuestPtr<GuestVersion> version) {
  StateCall on(call, "state_version", key, key_len);
  return on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const Version now = replica.version();
        if (!version.copy_out(GuestMemory(call), {now.epoch, now.number})) return out_of_bounds(call, "state_version");
        return 0;
      },
      nothing_to_prepare);
}

Reply<int64_t> state_lock(HostCall& call, Key key, uint32_t key_len, uint32_t flags, uint32_t timeout_ms) {
  StateCall on(call, "state_lock", key, key_len);
  if (!on.ok()) return on.reply();
  if (flags & ~(kLockWrite | kLockGlobal)) return failed(Errno::kInval);
  if (!on.services()->locks) return failed(Errno::kNotSup);
  HostState& state = state_of(call);
  if (!state.pending.operation) {
    const auto now = state::Clock::now();
    const auto until = state.deadline.value_or(now + std::chrono::hours(1));
    state.locks_taken = true;
    state.pending.operation = on.services()->locks->lock(
        on.id(), flags & kLockWrite ? state::LockMode::kWrite : state::LockMode::kRead, scope_of(flags),
        {.owner = state.call_key,
         .ancestors = state.children ? state.children->ancestors() : std::vector<std::string>{},
         .until = until},
        std::min(until, now + std::chrono::milliseconds(timeout_ms)));
  }
  if (on.still_waits()) return on.wait();
  const auto granted = *on.take_result();
  if (granted) return *granted;
  if (granted.error().code == ErrorCode::kDeadlineExceeded) return failed(Errno::kTimedOut);
  const Reply<int64_t> reply = on.fails(granted.error());
  return granted.error().code == ErrorCode::kFailedPrecondition ? Reply<int64_t>(failed(Errno::kDeadlk)) : reply;
}

Reply<int64_t> state_unlock(HostCall& call, Key key, uint32_t key_len, uint32_t flags) {
  StateCall on(call, "state_unlock", key, key_len);
  if (!on.ok()) return on.reply();
  if (flags & ~(kLockWrite | kLockGlobal)) return failed(Errno::kInval);
  if (!on.services()->locks) return failed(Errno::kNotSup);
  const auto unlocked = on.services()->locks->unlock(on.id(), scope_of(flags), state_of(call).call_key);
  return unlocked ? Reply<int64_t>(0) : on.fails(unlocked.error());
}

}  // namespace spore::host::calls
