#include "processes/remote_tier.h"

#include <algorithm>

namespace spore::processes {

using state::Deadline;
using state::Manifest;
using state::ValueId;

namespace {

// Requests begin with the deadline, those on a value then have its key.
ByteWriter begin(Deadline deadline) {
  ByteWriter out;
  out.write(to_ns(deadline));
  return out;
}
ByteWriter begin(const ValueId& id, Deadline deadline) {
  ByteWriter out = begin(deadline);
  out.write_text(id.key);
  return out;
}

std::unexpected<Error> unreadable() { return fail(ErrorCode::kInternal, "the host's answer cannot be read"); }

class RemoteSnapshot final : public state::Snapshot {
 public:
  RemoteSnapshot(HostLine& host, Manifest manifest, uint64_t number)
      : Snapshot(manifest), host_(host), number_(number) {}
  ~RemoteSnapshot() override {
    ByteWriter out = begin(Deadline::max());
    out.write(number_);
    host_.tell(RequestKind::kUnpin, out.bytes());
  }

  Result<void> read(uint64_t offset, std::span<uint8_t> to, Deadline deadline) override {
    while (!to.empty()) {
      const auto part = to.first(std::min<uint64_t>(to.size(), kReadBytesMax));
      ByteWriter out = begin(deadline);
      out.write(number_);
      out.write(offset);
      out.write<uint64_t>(part.size());
      ASSIGN_OR_RETURN(const Answer answer, host_.ask(RequestKind::kRead, out.bytes(), deadline));
      if (answer.bytes.size() != part.size()) return unreadable();
      std::ranges::copy(answer.bytes, part.begin());
      offset += part.size();
      to = to.subspan(part.size());
    }
    return {};
  }

  Result<std::vector<uint64_t>> changed_pages(std::span<const uint32_t> chunks, uint64_t since,
                                              Deadline deadline) override {
    ByteWriter out = begin(deadline);
    out.write(number_);
    out.write(since);
    out.write<uint64_t>(chunks.size());
    for (const uint32_t chunk : chunks) out.write(chunk);
    ASSIGN_OR_RETURN(const Answer answer, host_.ask(RequestKind::kChangedPages, out.bytes(), deadline));
    ByteReader in(answer.bytes);
    std::vector<uint64_t> pages(chunks.size());
    for (uint64_t& set : pages) set = in.read<uint64_t>();
    if (!in.ok()) return unreadable();
    return pages;
  }

 private:
  HostLine& host_;
  const uint64_t number_;
};

}  // namespace

Result<Bytes> RemoteTier::ask(const std::string& tenant, RequestKind kind, ByteWriter arguments, Deadline deadline) {
  if (tenant != tenant_)
    return fail(ErrorCode::kPermissionDenied, "this process has the state of " + tenant_ + " alone");
  ASSIGN_OR_RETURN(Answer answer, host_.ask(kind, arguments.bytes(), deadline));
  return std::move(answer.bytes);
}

Result<std::shared_ptr<state::Snapshot>> RemoteTier::pin(const ValueId& id, Deadline deadline) {
  ASSIGN_OR_RETURN(const Bytes answer, ask(id.tenant, RequestKind::kPin, begin(id, deadline), deadline));
  ByteReader in(answer);
  const Manifest manifest = read_manifest(in);
  const auto number = in.read<uint64_t>();
  if (!in.ok()) return unreadable();
  return std::make_shared<RemoteSnapshot>(host_, manifest, number);
}

Result<Manifest> RemoteTier::describe(const ValueId& id, Deadline deadline) {
  ASSIGN_OR_RETURN(const Bytes answer, ask(id.tenant, RequestKind::kDescribe, begin(id, deadline), deadline));
  ByteReader in(answer);
  const Manifest manifest = read_manifest(in);
  if (!in.ok()) return unreadable();
  return manifest;
}

Result<state::Pushed> RemoteTier::push(const ValueId& id, const state::Push& push, Deadline deadline) {
  ByteWriter arguments = begin(id, deadline);
  write(arguments, push);
  ASSIGN_OR_RETURN(const Bytes answer, ask(id.tenant, RequestKind::kPush, std::move(arguments), deadline));
  ByteReader in(answer);
  state::Pushed out;
  out.before = read_manifest(in).version;
  out.after = read_manifest(in);
  if (!in.ok()) return unreadable();
  return out;
}

Result<void> RemoteTier::remove(const ValueId& id, std::optional<state::Version> expected, Deadline deadline) {
  ByteWriter arguments = begin(id, deadline);
  write_optional(arguments, expected);
  TRY(ask(id.tenant, RequestKind::kRemove, std::move(arguments), deadline));
  return {};
}

Result<state::KeyPage> RemoteTier::list(const std::string& tenant, const std::string& prefix, const std::string& from,
                                        size_t limit, Deadline deadline) {
  ByteWriter arguments = begin(deadline);
  arguments.write_text(prefix);
  arguments.write_text(from);
  arguments.write<uint64_t>(limit);
  ASSIGN_OR_RETURN(const Bytes answer, ask(tenant, RequestKind::kList, std::move(arguments), deadline));
  ByteReader in(answer);
  state::KeyPage page;
  page.next = in.read_text();
  const uint64_t count = in.read_count(8 + 24);
  for (uint64_t i = 0; i < count; ++i) {
    state::KeyPage::Entry entry{.key = in.read_text()};
    entry.manifest = read_manifest(in);
    page.entries.push_back(std::move(entry));
  }
  if (!in.ok()) return unreadable();
  return page;
}

Result<state::Usage> RemoteTier::usage(const std::string& tenant, Deadline deadline) {
  ASSIGN_OR_RETURN(const Bytes answer, ask(tenant, RequestKind::kUsage, begin(deadline), deadline));
  ByteReader in(answer);
  state::Usage usage{.keys = in.read<uint64_t>()};
  usage.bytes = in.read<uint64_t>();
  if (!in.ok()) return unreadable();
  return usage;
}

Result<std::optional<state::LockGrant>> RemoteTier::try_lock(const ValueId& id, state::LockMode mode,
                                                             const std::string& owner, std::chrono::milliseconds lease,
                                                             Deadline deadline) {
  ByteWriter arguments = begin(id, deadline);
  arguments.write(mode);
  arguments.write_text(owner);
  arguments.write<int64_t>(lease.count());
  ASSIGN_OR_RETURN(const Bytes answer, ask(id.tenant, RequestKind::kTryLock, std::move(arguments), deadline));
  ByteReader in(answer);
  const bool granted = in.read<uint8_t>() != 0;
  state::LockGrant grant{.token = in.read<uint64_t>()};
  grant.poisoned = in.read<uint8_t>() != 0;
  if (!in.ok()) return unreadable();
  return granted ? std::optional(grant) : std::nullopt;
}

Result<void> RemoteTier::renew_lock(const ValueId& id, const std::string& owner, std::chrono::milliseconds lease,
                                    Deadline deadline) {
  ByteWriter arguments = begin(id, deadline);
  arguments.write_text(owner);
  arguments.write<int64_t>(lease.count());
  TRY(ask(id.tenant, RequestKind::kRenewLock, std::move(arguments), deadline));
  return {};
}

Result<void> RemoteTier::unlock(const ValueId& id, const std::string& owner, Deadline deadline) {
  ByteWriter arguments = begin(id, deadline);
  arguments.write_text(owner);
  TRY(ask(id.tenant, RequestKind::kUnlock, std::move(arguments), deadline));
  return {};
}

}  // namespace spore::processes
