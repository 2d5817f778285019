#include "host/faasm.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "host/chain_calls.h"
#include "host/child_calls.h"
#include "host/spore_calls.h"
#include "host/state_call.h"
#include "host/state_calls.h"

namespace spore::host::faasm {

namespace {

using state::Deadline;
using state::Replica;
using wasi::Errno;

constexpr std::string_view kAppended = "/appended";
constexpr uint32_t kSizeBytes = 4;  // in front of an appended element

std::string_view meaning_of(Errno error) {
  switch (error) {
    case Errno::k2Big: return "the input is larger than this host takes";
    case Errno::kAgain: return "a limit is reached; the log says which";
    case Errno::kBadf: return "there is no such call";
    case Errno::kDeadlk: return "this call, or one that waits for it, holds the lock";
    case Errno::kFbig: return "it is behind the end of the value";
    case Errno::kHostUnreach: return "the store cannot be reached";
    case Errno::kInval: return "it cannot be; the log says why";
    case Errno::kNoEnt: return "there is none";
    case Errno::kNoMem: return "there is no room for it on this host";
    case Errno::kNoSpc: return "the store is full";
    case Errno::kNotSup: return "this host does not offer it";
    case Errno::kStale: return "it was changed, removed or locked by somebody else meanwhile";
    case Errno::kTimedOut: return "the store did not answer in time";
    default: return "it failed; the log says why";
  }
}

// One dispatch of a function, about what `text` names: a key, or another function.
class Dispatch {
 public:
  Dispatch(HostCall& call, std::string_view name) : call_(call), name_(name) {}
  Dispatch(HostCall& call, std::string_view name, GuestPtr<uint8_t> text, uint32_t bytes_max = state::kKeyBytesMax)
      : call_(call), name_(name) {
    const GuestMemory memory(call);
    for (uint32_t i = 0; i <= bytes_max; ++i) {
      const auto byte = text.at(i).copy_in(memory);
      if (!byte) {
        ended_ = outside();
        return;
      }
      if (*byte == 0) return;
      text_ += static_cast<char>(*byte);
    }
    ended_ = trap("a text of more than " + std::to_string(bytes_max) + " bytes");
  }

  // How it has ended already.
  const std::optional<HostResult>& ended() const { return ended_; }
  const std::string& text() const { return text_; }
  uint32_t length() const { return static_cast<uint32_t>(text_.size()); }
  HostState& state() const { return call_.state<HostState>(); }

  HostResult trap(std::string_view why) const { return call_.trap(wasm::TrapKind::kHostCall, told(why)); }
  HostResult outside() const {
    return call_.trap(wasm::TrapKind::kMemoryOutOfBounds, told("a pointer is outside memory"));
  }
  void log(std::string_view what) const { state().append_log(as_bytes(told(what) + "\n")); }
  // Whether [offset, offset + size) lies in a value of `total` bytes; else it has ended.
  bool holds(uint32_t total, uint32_t offset, uint32_t size) {
    if (offset <= total && size <= total - offset) return true;
    ended_ = trap("the " + std::to_string(size) + " bytes at " + std::to_string(offset) + " are not inside one of " +
                  std::to_string(total));
    return false;
  }
  HostResult wrong_size(uint64_t has, uint32_t wanted) const {
    return trap("it has " + std::to_string(has) + " bytes, not " + std::to_string(wanted));
  }

  // What one of Spore's own functions replied: its value, or it has ended (or parked).
  std::optional<int64_t> value_of(const Reply<int64_t>& reply) {
    if (reply.result() == HostResult::kDone && reply.value() >= 0) return reply.value();
    ended_ =
        reply.result() == HostResult::kDone ? trap(meaning_of(static_cast<Errno>(-reply.value()))) : reply.result();
    return std::nullopt;
  }
  Reply<void> done(const Reply<int64_t>& reply) { return value_of(reply) ? HostResult::kDone : *ended_; }
  Reply<uint32_t> gives(const Reply<int64_t>& reply) {
    const auto value = value_of(reply);
    return value ? Reply<uint32_t>(static_cast<uint32_t>(*value)) : Reply<uint32_t>(*ended_);
  }

 private:
  std::string told(std::string_view what) const {
    std::string out = "__faasm_" + std::string(name_);
    if (!text_.empty()) out += "(\"" + text_ + "\")";
    return out + ": " + std::string(what);
  }

  HostCall& call_;
  const std::string_view name_;
  std::string text_;
  std::optional<HostResult> ended_;
};

// About a key, through the replica.
class StateDispatch : public Dispatch, public host::StateDispatch<int64_t> {
 public:
  StateDispatch(HostCall& call, std::string_view name, Key key, std::string_view suffix = {})
      : Dispatch(call, name, key), host::StateDispatch<int64_t>(call, name, text() + std::string(suffix)) {
    if (ended()) {
      refuse(*ended());
    } else if (const auto checked = state::check_key(id().key); ok() && !checked) {
      refuse(trap(checked.error().message));
    }
  }
  using Dispatch::state;
};

Reply<void> lock(HostCall& call, std::string_view name, Key key, uint32_t flags) {
  Dispatch on(call, name, key);
  if (on.ended()) return *on.ended();
  const auto poisoned = on.value_of(calls::state_lock(call, key, on.length(), flags, UINT32_MAX));
  if (!poisoned) return *on.ended();
  if (*poisoned == 1) on.log("its last holder died with it; what it guards may be half changed");
  return {};
}

Reply<void> unlock(HostCall& call, std::string_view name, Key key, uint32_t flags) {
  Dispatch on(call, name, key);
  if (on.ended()) return *on.ended();
  return on.done(calls::state_unlock(call, key, on.length(), flags));
}

// The code of a child that has ended.
std::optional<uint32_t> code_of(Dispatch& on, HostCall& call, uint32_t id) {
  const Reply<int64_t> reply = calls::call_await(call, id, calls::kNoTimeout);
  HostState& state = on.state();
  if (reply.result() == HostResult::kDone && reply.value() < 0 && state.children &&
      state.children->status(id) == ChildCalls::Status::kEnded) {
    on.log("call " + std::to_string(id) + " failed: " + state.children->result(id).message);
    return kChildFailed;
  }
  const auto code = on.value_of(reply);
  return code ? std::optional(static_cast<uint32_t>(*code)) : std::nullopt;
}

}  // namespace

// ---- input, output, calls -------------------------------------------------------------------------------------------

Reply<uint32_t> read_input(HostCall& call, Data to, uint32_t size) {
  return size == 0 ? calls::input_size(call) : calls::input_read(call, 0, to, size);
}

Reply<void> write_output(HostCall& call, Data from, uint32_t size) {
  const Dispatch on(call, "write_output");
  const auto range = from.range(GuestMemory(call), size);
  if (!range) return on.outside();
  HostState& state = on.state();
  if (!state.pending.active) {  // else it is this one that is being written
    if (state.output_streamed > 0) return on.trap("the output before is too large to be held, and is on its way");
    state.output.clear();
  }
  return calls::write_whole(call, Descriptor::Kind::kStdout, *range);
}

Reply<uint32_t> chain_name(HostCall& call, GuestPtr<uint8_t> name, Data input, uint32_t size) {
  Dispatch on(call, "chain_name", name, calls::kFunctionNameBytesMax);
  if (on.ended()) return *on.ended();
  return on.gives(calls::call(call, name, on.length(), input, size));
}

Reply<uint32_t> chain_ptr(HostCall& call, uint32_t table_index, Data input, uint32_t size) {
  return Dispatch(call, "chain_ptr").gives(calls::call_self(call, table_index, input, size));
}

Reply<uint32_t> await_call(HostCall& call, uint32_t id) {
  Dispatch on(call, "await_call");
  const auto code = code_of(on, call, id);
  return code ? Reply<uint32_t>(*code) : Reply<uint32_t>(*on.ended());
}

Reply<uint32_t> await_call_output(HostCall& call, uint32_t id, GuestPtr<uint32_t> output, GuestPtr<uint32_t> size) {
  Dispatch on(call, "await_call_output");
  if (!output.range(GuestMemory(call), 1) || !size.range(GuestMemory(call), 1)) return on.outside();
  const auto code = code_of(on, call, id);
  if (!code) return *on.ended();
  const auto* exported = call.faaslet().module().find_export("malloc", wasm::ExternalKind::kFunction);
  static const wasm::Signature kMalloc{{wasm::ValueType::kI32}, {wasm::ValueType::kI32}};
  if (!exported || call.faaslet().module().signature_of(exported->index) != kMalloc)
    return on.trap("the module exports no malloc() for the output (-Wl,--export=malloc)");
  const wasm::Cell argument{.low = on.state().children->result(id).output.size() + 1};
  const faaslet::Outcome made = call.faaslet().enter(exported->index, {&argument, 1});
  if (made.kind == faaslet::Outcome::Kind::kExited) return call.exit(made.exit_code);
  if (made.kind == faaslet::Outcome::Kind::kTrapped) return call.trap(made.trap.kind, made.trap.message);
  if (made.kind == faaslet::Outcome::Kind::kParked) return on.trap("malloc() may not wait");
  const auto address = static_cast<uint32_t>(call.faaslet().result(0).low);
  if (address == 0) return on.trap("malloc() has no " + std::to_string(argument.low) + " bytes for the output");
  // malloc() is the guest's, and may have closed the call.
  if (on.state().children->status(id) != ChildCalls::Status::kEnded)
    return on.trap("malloc() has closed call " + std::to_string(id));
  const Bytes& bytes = on.state().children->result(id).output;
  const GuestMemory memory(call);
  const Data to(address);
  if (!to.copy_out(memory, std::span<const uint8_t>(bytes)) ||
      !to.at(static_cast<uint32_t>(bytes.size())).copy_out(memory, 0) || !output.copy_out(memory, address) ||
      !size.copy_out(memory, static_cast<uint32_t>(bytes.size())))
    return on.outside();
  return *code;
}

// ---- state ----------------------------------------------------------------------------------------------------------

Reply<uint32_t> read_state(HostCall& call, Key key, Data to, uint32_t size) {
  StateDispatch on(call, "read_state", key);
  if (!on.ok()) return on.gives(on.reply());
  if (!to.range(GuestMemory(call), size)) return on.outside();
  const Reply<int64_t> reply = on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const uint64_t has = replica.size_bytes();
        if (size == 0) return static_cast<int64_t>(has);
        if (has > size) return on.wrong_size(has, size);
        const auto range = to.range(GuestMemory(call), has);
        const auto got = replica.try_read(0, {&*range, 1});
        if (!got) return std::nullopt;
        if (*got == -EFAULT) return on.outside();
        return *got >= 0 ? int64_t{*got} : on.failed(Errno::kIo);
      },
      [size](Replica& replica, Deadline deadline) {
        return replica.fetch({.offset = 0, .size_bytes = size}, deadline);
      });
  if (size == 0 && reply.result() == HostResult::kDone && reply.value() == on.failed(Errno::kNoEnt)) return 0u;
  return on.gives(reply);
}

namespace {

Reply<uint32_t> map_state(HostCall& call, std::string_view name, Key key, uint32_t total, uint32_t offset,
                          uint32_t size) {
  Dispatch on(call, name, key);
  if (on.ended()) return *on.ended();
  if (total == 0) return on.trap("a value of no bytes cannot be mapped");
  if (!on.holds(total, offset, size)) return *on.ended();
  const auto mapped = on.value_of(calls::state_map(call, key, on.length(), total, 0));
  return mapped ? Reply<uint32_t>(static_cast<uint32_t>(*mapped) + offset) : Reply<uint32_t>(*on.ended());
}

Reply<void> push(HostCall& call, std::string_view name, Key key) {
  Dispatch on(call, name, key);
  if (on.ended()) return *on.ended();
  return on.done(calls::state_push(call, key, on.length(), 0, 0));
}

Reply<void> check_range(HostCall& call, std::string_view name, Key key, uint32_t total, uint32_t offset,
                        uint32_t size) {
  Dispatch on(call, name, key);
  if (on.ended() || !on.holds(total, offset, size)) return *on.ended();
  return {};
}

}  // namespace

Reply<uint32_t> read_state_ptr(HostCall& call, Key key, uint32_t total) {
  return map_state(call, "read_state_ptr", key, total, 0, total);
}

Reply<uint32_t> read_state_offset_ptr(HostCall& call, Key key, uint32_t total, uint32_t offset, uint32_t size) {
  return map_state(call, "read_state_offset_ptr", key, total, offset, size);
}

Reply<void> read_state_offset(HostCall& call, Key key, uint32_t total, uint32_t offset, Data to, uint32_t size) {
  StateDispatch on(call, "read_state_offset", key);
  if (!on.ok()) return on.done(on.reply());
  const auto range = to.range(GuestMemory(call), size);
  if (!range) return on.outside();
  if (!on.holds(total, offset, size)) return *on.ended();
  return on.done(on.with_replica(
      std::nullopt,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        if (replica.size_bytes() != total) return on.wrong_size(replica.size_bytes(), total);
        const auto got = replica.try_read(offset, {&*range, 1});
        if (!got) return std::nullopt;
        if (*got == -EFAULT) return on.outside();
        return *got == size ? int64_t{*got} : on.failed(Errno::kIo);
      },
      [offset, size](Replica& replica, Deadline deadline) {
        return replica.fetch({.offset = offset, .size_bytes = size}, deadline);
      }));
}

namespace {

// Writes into a value of `total` bytes, made where there is none. `resizes`: one of another size becomes one of that.
Reply<void> write_into(HostCall& call, StateDispatch& on, uint32_t total, uint32_t offset, iovec from, bool resizes) {
  bool has_room = true;
  return on.done(on.with_replica(
      total,
      [&](Replica& replica) -> std::optional<Reply<int64_t>> {
        const uint64_t has = replica.size_bytes();
        if (has != total && !resizes) return on.wrong_size(has, total);
        if (has != total) {
          const auto resized = replica.try_resize(total, {.expected = has, .charge = [&](uint64_t bytes) {
                                                            return has_room = on.tier().charge(replica, bytes);
                                                          }});
          if (!resized && has_room) return on.trap(resized.error().message);
          if (!resized || !*resized) return std::nullopt;
        }
        const auto wrote = replica.try_write(offset, {&from, 1});
        if (!wrote) return std::nullopt;
        if (*wrote == -EFAULT) return on.outside();
        if (*wrote >= 0) return int64_t{*wrote};
        return on.failed(*wrote == -ENOSPC || *wrote == -ENOMEM ? Errno::kNoMem : Errno::kIo);
      },
      [&tier = on.tier(), total, offset, bytes = from.iov_len](Replica& replica, Deadline deadline) -> Result<void> {
        if (total > replica.size_bytes()) TRY(tier.make_room_for(replica, total));
        TRY(replica.settle(deadline));
        return replica.fetch({.offset = offset, .size_bytes = bytes}, deadline);
      }));
}

}  // namespace

Reply<void> write_state(HostCall& call, Key key, Data from, uint32_t size) {
  StateDispatch on(call, "write_state", key);
  if (!on.ok()) return on.done(on.reply());
  const auto range = from.range(GuestMemory(call), size);
  if (!range) return on.outside();
  return write_into(call, on, size, 0, *range, /*resizes=*/true);
}

Reply<void> write_state_offset(HostCall& call, Key key, uint32_t total, uint32_t offset, Data from, uint32_t size) {
  StateDispatch on(call, "write_state_offset", key);
  if (!on.ok()) return on.done(on.reply());
  const auto range = from.range(GuestMemory(call), size);
  if (!range) return on.outside();
  if (!on.holds(total, offset, size)) return *on.ended();
  return write_into(call, on, total, offset, *range, /*resizes=*/false);
}

Reply<void> push_state(HostCall& call, Key key) { return push(call, "push_state", key); }
Reply<void> push_state_partial(HostCall& call, Key key) { return push(call, "push_state_partial", key); }

Reply<void> pull_state(HostCall& call, Key key, uint32_t total) {
  StateDispatch on(call, "pull_state", key);
  if (!on.ok()) return on.done(on.reply());
  return on.done(on.run([&tier = on.tier(), id = on.id(), total, deadline = on.deadline()]() -> Result<int64_t> {
    ASSIGN_OR_RETURN(const auto replica, tier.open(id, std::nullopt, deadline));
    TRY(pull_or_discard(tier, *replica, deadline));
    if (total != 0 && replica->size_bytes() != total)
      return fail(ErrorCode::kInvalidArgument, "state \"" + id.key + "\" has " + std::to_string(replica->size_bytes()) +
                                                   " bytes, not " + std::to_string(total));
    TRY(replica->fetch({}, deadline));
    return 0;
  }));
}

Reply<void> append_state(HostCall& call, Key key, Data from, uint32_t size) {
  StateDispatch on(call, "append_state", key, kAppended);
  if (!on.ok()) return on.done(on.reply());
  if (!from.range(GuestMemory(call), size)) return on.outside();
  auto bytes = std::make_shared<Bytes>();
  std::string once;
  if (!on.state().pending.operation) {
    bytes->resize(kSizeBytes + size_t{size});
    std::memcpy(bytes->data(), &size, kSizeBytes);
    if (!from.copy_in(GuestMemory(call), std::span(*bytes).subspan(kSizeBytes))) return on.outside();
    once = on.state().next_once();
  }
  return on.done(on.run([&tier = on.tier(), id = on.id(), bytes, once, deadline = on.deadline()]() -> Result<int64_t> {
    TRY(tier.append(id, *bytes, once, deadline));
    return 0;
  }));
}

Reply<void> read_appended_state(HostCall& call, Key key, Data to, uint32_t size, uint32_t count) {
  StateDispatch on(call, "read_appended_state", key, kAppended);
  if (!on.ok()) return on.done(on.reply());
  if (!to.range(GuestMemory(call), size)) return on.outside();
  PendingCall& pending = on.state().pending;
  if (!pending.operation) {
    pending.answer = std::make_shared<Bytes>();
    return on.done(on.begin([&tier = on.tier(), id = on.id(), to = pending.answer, deadline = on.deadline(),
                             wanted = size + uint64_t{kSizeBytes} * count]() -> Result<int64_t> {
      ASSIGN_OR_RETURN(const auto replica, tier.open(id, std::nullopt, deadline));
      TRY(pull_or_discard(tier, *replica, deadline));
      to->resize(std::min(wanted, replica->size_bytes()));
      const iovec part{to->data(), to->size()};
      for (int round = 0; round < kStateRoundsMax; ++round) {
        TRY(replica->fetch({.offset = 0, .size_bytes = to->size()}, deadline));
        if (const auto got = replica->try_read(0, {&part, 1})) {
          to->resize(static_cast<size_t>(std::max<ssize_t>(*got, 0)));
          return 0;
        }
      }
      return fail(ErrorCode::kDeadlineExceeded, "read state \"" + id.key + "\": it changes all the time");
    }));
  }
  if (on.still_waits()) return on.done(on.wait());
  const auto read = *on.take_result();
  const auto bytes = std::move(pending.answer);
  pending = {};
  if (!read && read.error().code != ErrorCode::kNotFound) return on.done(on.fails(read.error()));
  ByteSpan rest = *bytes;
  uint32_t done = 0;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t element = 0;
    if (rest.size() >= kSizeBytes) std::memcpy(&element, rest.data(), kSizeBytes);
    if (rest.size() < kSizeBytes)
      return on.trap("it has " + std::to_string(i) + " elements, not " + std::to_string(count));
    if (element > size - done || element > rest.size() - kSizeBytes)
      return on.trap("element " + std::to_string(i) + " of " + std::to_string(element) + " bytes does not fit in the " +
                     std::to_string(size - done) + " that are left");
    if (!to.at(done).copy_out(GuestMemory(call), rest.subspan(kSizeBytes, element))) return on.outside();
    rest = rest.subspan(kSizeBytes + element);
    done += element;
  }
  return {};
}

Reply<void> clear_appended_state(HostCall& call, Key key) {
  StateDispatch on(call, "clear_appended_state", key, kAppended);
  if (!on.ok()) return on.done(on.reply());
  return on.done(on.run([&tier = on.tier(), id = on.id(), deadline = on.deadline()]() -> Result<int64_t> {
    const auto removed = tier.remove(id, deadline);
    if (!removed && removed.error().code != ErrorCode::kNotFound) return std::unexpected(removed.error());
    return 0;
  }));
}

Reply<void> flag_state_dirty(HostCall& call, Key key, uint32_t total) {
  return check_range(call, "flag_state_dirty", key, total, 0, total);
}
Reply<void> flag_state_offset_dirty(HostCall& call, Key key, uint32_t total, uint32_t offset, uint32_t size) {
  return check_range(call, "flag_state_offset_dirty", key, total, offset, size);
}

Reply<void> lock_state_read(HostCall& call, Key key) { return lock(call, "lock_state_read", key, 0); }
Reply<void> unlock_state_read(HostCall& call, Key key) { return unlock(call, "unlock_state_read", key, 0); }
Reply<void> lock_state_write(HostCall& call, Key key) { return lock(call, "lock_state_write", key, calls::kLockWrite); }
Reply<void> unlock_state_write(HostCall& call, Key key) {
  return unlock(call, "unlock_state_write", key, calls::kLockWrite);
}
Reply<void> lock_state_global(HostCall& call, Key key) {
  return lock(call, "lock_state_global", key, calls::kLockWrite | calls::kLockGlobal);
}
Reply<void> unlock_state_global(HostCall& call, Key key) {
  return unlock(call, "unlock_state_global", key, calls::kLockWrite | calls::kLockGlobal);
}

}  // namespace spore::host::faasm
