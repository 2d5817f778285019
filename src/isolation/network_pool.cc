#include "isolation/network_pool.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/check.h"

namespace spore::isolation {
namespace {

using Clock = Broker::Clock;
using namespace std::chrono_literals;

using Milliseconds = std::chrono::milliseconds;

constexpr auto kOpenPatience = 10s;   // of Spore's start
constexpr auto kChangePatience = 5s;  // of policies and new namespaces
constexpr auto kSocketPatience = 5s;  // of a guest's
constexpr auto kPostPatience = 1s;    // for a place in the broker's queue
constexpr auto kFillAfter = 5ms;      // the last take()
// Where all namespaces are taken. The removal of some takes about as long.
constexpr Milliseconds kRetryAfter = 20ms;
constexpr Milliseconds kRetryAfterMax = 1s;

constexpr size_t kAddressesOfNameMax = 64;

void add(std::vector<Destination>& to, const Destination& destination) {
  if (std::ranges::find(to, destination) == to.end()) to.push_back(destination);
}

void add(std::vector<Destination>& to, const std::vector<Destination>& more) {
  for (const Destination& destination : more) add(to, destination);
}

Bytes id_bytes(NamespaceId id) {
  ByteWriter out;
  out.write(id.slot);
  out.write(id.serial);
  return out.take();
}

// All that a policy says.
Bytes key_of(const NetworkPolicy& policy) {
  ByteWriter out;
  out.write_bytes(serialize(policy));
  out.write(policy.sockets_max);
  for (const NamedDestination& named : policy.allow_names) {
    out.write_text(named.name);
    out.write(named.protocol);
    out.write(named.port_first);
    out.write(named.port_last);
  }
  return out.take();
}

IpAddress read_address(ByteReader& in) {
  IpAddress out{.v6 = in.read<uint8_t>() == 1};
  for (uint8_t& byte : out.bytes) byte = in.read<uint8_t>();
  return out;
}

Result<MadeNamespace> make(Broker& broker) {
  ASSIGN_OR_RETURN(const BrokerReply reply, broker.call("network.make", {}, Clock::now() + kChangePatience));
  ByteReader in(reply.bytes);
  MadeNamespace out;
  out.id.slot = in.read<uint32_t>();
  out.id.serial = in.read<uint64_t>();
  out.v4 = read_address(in);
  const bool has_v6 = in.read<uint8_t>() == 1;
  const IpAddress v6 = read_address(in);
  if (has_v6) out.v6 = v6;
  CHECK(in.ok());
  return out;
}

}  // namespace

// ---- policies -------------------------------------------------------------------------------------------------------

PreparedPolicy::~PreparedPolicy() {
  ByteWriter request;
  request.write(number_);
  (void)broker_.post("network.remove_policy", request.bytes(), Clock::now() + kPostPatience);
}

Result<void> PreparedPolicy::resolve(const ResolveName& resolve, const NetworkLimits& limits) {
  std::vector<Destination> now;
  bool complete = true;
  for (const NamedDestination& named : policy_.allow_names) {
    const auto addresses = resolve(named.name);
    complete &= addresses.has_value();
    for (const IpAddress& address : addresses.value_or(std::vector<IpAddress>())) {
      const Destination destination{.addresses = IpRange::of(address),
                                    .protocol = named.protocol,
                                    .port_first = named.port_first,
                                    .port_last = named.port_last};
      if (check(destination, limits)) add(now, destination);
    }
  }
  auto state = addresses_.lock();
  if (!complete) add(now, state->latest);
  state->before = std::exchange(state->latest, std::move(now));
  auto wanted = state->latest;
  add(wanted, state->before);
  if (std::ranges::is_permutation(wanted, state->applied)) return {};
  NetworkPolicy changed = policy_;
  for (const Destination& destination : wanted)
    if (changed.allow.size() < limits.destinations_max) changed.allow.push_back(destination);
  ByteWriter number;
  number.write(number_);
  Bytes request = number.take();
  const Bytes body = serialize(changed);
  request.insert(request.end(), body.begin(), body.end());
  TRY(broker_.call("network.change_policy", request, Clock::now() + kChangePatience));
  state->applied = std::move(wanted);
  return {};
}

ResolveName host_resolver() {
  return [](const std::string& name) -> Result<std::vector<IpAddress>> {
    const addrinfo hints{.ai_socktype = SOCK_STREAM};
    addrinfo* found = nullptr;
    if (const int error = ::getaddrinfo(name.c_str(), nullptr, &hints, &found); error != 0)
      return fail(ErrorCode::kNotFound, name + ": " + ::gai_strerror(error));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
    std::vector<IpAddress> out;
    for (const addrinfo* at = found; at != nullptr && out.size() < kAddressesOfNameMax; at = at->ai_next) {
      if (at->ai_family == AF_INET)
        out.push_back(IpAddress::from_v4(reinterpret_cast<const sockaddr_in*>(at->ai_addr)->sin_addr));
      if (at->ai_family == AF_INET6)
        out.push_back(IpAddress::from_v6(reinterpret_cast<const sockaddr_in6*>(at->ai_addr)->sin6_addr));
    }
    return out;
  };
}

// ---- sockets --------------------------------------------------------------------------------------------------------

LeasedSocket& LeasedSocket::operator=(LeasedSocket&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = std::move(other.fd_);
  open_ = std::move(other.open_);
  return *this;
}

UniqueFd LeasedSocket::release() && {
  UniqueFd out = std::move(fd_);
  close();
  return out;
}

void LeasedSocket::close() {
  fd_.reset();
  if (open_) --*open_;
  open_.reset();
}

Result<LeasedSocket> NetworkLease::count(UniqueFd fd) {
  if (open_->fetch_add(1) < policy_->policy_.sockets_max) return LeasedSocket(std::move(fd), open_);
  --*open_;
  return fail(ErrorCode::kResourceExhausted,
              "all " + std::to_string(policy_->policy_.sockets_max) + " sockets of this call are open");
}

Result<LeasedSocket> NetworkLease::adopt(UniqueFd accepted) { return count(std::move(accepted)); }

Result<LeasedSocket> NetworkLease::socket(int family, int type) {
  ASSIGN_OR_RETURN(LeasedSocket counted, count(UniqueFd()));
  ByteWriter request;
  request.write(made_.id.slot);
  request.write(made_.id.serial);
  request.write<int32_t>(family);
  request.write<int32_t>(type);
  ASSIGN_OR_RETURN(BrokerReply reply,
                   policy_->broker_.call("network.socket", request.bytes(), Clock::now() + kSocketPatience));
  CHECK(reply.descriptors.size() == 1, reply.descriptors.size());
  counted.fd_ = std::move(reply.descriptors[0]);
  return counted;
}

NetworkLease& NetworkLease::operator=(NetworkLease&& other) noexcept {
  if (this == &other) return *this;
  release();
  policy_ = std::move(other.policy_);
  made_ = other.made_;
  resolver_ = other.resolver_;
  open_ = std::move(other.open_);
  return *this;
}

void NetworkLease::release() {
  if (!policy_) return;
  (void)policy_->broker_.post("network.release", id_bytes(made_.id), Clock::now() + kPostPatience);
  policy_.reset();
}

// ---- the pool -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<NetworkPool>> NetworkPool::open(Broker& broker, NetworkPoolOptions options) {
  auto opened = broker.call("network.open", {}, Clock::now() + kOpenPatience);
  if (!opened) return std::unexpected(std::move(opened).error().within("Network is not available"));
  ByteReader in(opened->bytes);
  std::string v4_problem(in.read_text());
  std::string v6_problem(in.read_text());
  CHECK(in.ok());
  // The first namespace shows whether the kernel has what they need.
  auto first = make(broker);
  if (!first) return std::unexpected(std::move(first).error().within("Network is not available"));
  return std::unique_ptr<NetworkPool>(
      new NetworkPool(broker, std::move(options), *first, std::move(v4_problem), std::move(v6_problem)));
}

NetworkPool::NetworkPool(Broker& broker, NetworkPoolOptions options, const MadeNamespace& first, std::string v4_problem,
                         std::string v6_problem)
    : broker_(broker),
      options_(std::move(options)),
      v4_problem_(std::move(v4_problem)),
      v6_problem_(std::move(v6_problem)),
      state_(State{.ready = {first}, .made = 1}),
      filler_([this] { fill(); }),
      resolver_([this] { resolve_names(); }) {}

NetworkPool::~NetworkPool() {
  state_.lock()->stopping = true;
  changed_.notify_one();
  stopping_.notify_one();
  filler_.join();
  resolver_.join();
  for (const MadeNamespace& made : state_.lock()->ready)
    (void)broker_.post("network.release", id_bytes(made.id), Clock::now() + kPostPatience);
}

Result<std::shared_ptr<PreparedPolicy>> NetworkPool::prepare(NetworkPolicy policy) {
  TRY(check(policy, options_.limits));
  const Bytes key = key_of(policy);
  {
    auto state = state_.lock();
    std::erase_if(state->policies, [](const auto& entry) { return entry.second.expired(); });
    if (const auto found = state->policies.find(key); found != state->policies.end())
      if (auto there = found->second.lock()) return there;
  }
  ASSIGN_OR_RETURN(const BrokerReply reply,
                   broker_.call("network.add_policy", serialize(policy), Clock::now() + kChangePatience));
  ByteReader in(reply.bytes);
  const auto number = in.read<uint32_t>();
  CHECK(in.ok());
  std::shared_ptr<PreparedPolicy> out(new PreparedPolicy(broker_, std::move(policy), number));
  if (!out->policy_.allow_names.empty()) TRY(out->resolve(options_.resolve, options_.limits));
  state_.lock()->policies.insert_or_assign(key, out);
  changed_.notify_all();
  return out;
}

Result<NetworkLease> NetworkPool::take(std::shared_ptr<const PreparedPolicy> policy) {
  std::optional<MadeNamespace> made;
  bool wake = false;
  {
    auto state = state_.lock();
    if (!state->ready.empty()) {
      made = state->ready.front();
      state->ready.pop_front();
    } else {
      ++state->made_late;
    }
    state->last_take = Clock::now();
    wake = std::exchange(state->filler_rests, false) || state->ready.size() == options_.ready / 2;
  }
  Result<MadeNamespace> one = made ? Result<MadeNamespace>(*made) : make(broker_);
  auto lease = one ? attach(*one, std::move(policy)) : Result<NetworkLease>(std::unexpected(std::move(one).error()));
  if (wake) changed_.notify_one();  // after our own request, which would else wait for the filler's
  return lease;
}

Result<NetworkLease> NetworkPool::attach(const MadeNamespace& made, std::shared_ptr<const PreparedPolicy> policy) {
  ByteWriter request;
  request.write(made.id.slot);
  request.write(made.id.serial);
  request.write(policy->number_);
  NetworkLease lease(std::move(policy), made, options_.limits.resolver);
  TRY(broker_.post("network.attach", request.bytes(), Clock::now() + kPostPatience));
  return lease;
}

void NetworkPool::fill() {
  auto pause = kRetryAfter;
  auto state = state_.lock();
  while (!state->stopping) {
    if (state->policies.empty() || state->ready.size() >= options_.ready) {
      state->filler_rests = true;
      changed_.wait(state.lock());
      continue;
    }
    const auto begin_at = state->last_take + kFillAfter;
    if (state->ready.size() > options_.ready / 2 && Clock::now() < begin_at) {
      changed_.wait_until(state.lock(), begin_at);
      continue;
    }
    state.lock().unlock();
    const auto made = make(broker_);
    state.lock().lock();
    if (made) {
      state->ready.push_back(*made);
      ++state->made;
      pause = kRetryAfter;
      continue;
    }
    // All namespaces are taken, or the broker is gone: take() says so to whoever asks.
    changed_.wait_for(state.lock(), pause, [&] { return state->stopping; });
    pause = std::min(pause * 2, kRetryAfterMax);
  }
}

void NetworkPool::resolve_names() {
  for (;;) {
    std::vector<std::shared_ptr<PreparedPolicy>> policies;
    {
      auto state = state_.lock();
      if (stopping_.wait_for(state.lock(), options_.resolve_every, [&] { return state->stopping; })) return;
      for (const auto& [key, prepared] : state->policies)
        if (auto policy = prepared.lock(); policy && !policy->policy_.allow_names.empty())
          policies.push_back(std::move(policy));
    }
    for (const auto& policy : policies) {
      if (state_.lock()->stopping) return;
      (void)policy->resolve(options_.resolve, options_.limits);  // else the addresses stay, until the next time
    }
  }
}

NetworkPoolStats NetworkPool::stats() const {
  auto state = state_.lock();
  return {.ready = state->ready.size(),
          .made = state->made,
          .made_late = state->made_late,
          .v4_problem = v4_problem_,
          .v6_problem = v6_problem_};
}

}  // namespace spore::isolation
