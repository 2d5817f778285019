#include "calls/schedule.h"

#include <algorithm>

namespace spore::calls {

void Schedule::add(const CallId& id, const std::string& tenant, Order order, Clock::time_point due) {
  const Ticket ticket{.id = id, .serial = ++last_serial_};
  entries_[id] = {.tenant = tenant, .order = order, .serial = ticket.serial};
  later_.emplace(due, ticket);
}

bool Schedule::remove(const CallId& id) { return entries_.erase(id) > 0; }

const Schedule::Entry* Schedule::entry_of(const Ticket& ticket) const {
  const auto found = entries_.find(ticket.id);
  return found != entries_.end() && found->second.serial == ticket.serial ? &found->second : nullptr;
}

void Schedule::make_ready(const Ticket& ticket, const Entry& entry) {
  if (entry.order == Order::kFirst) return first_.push_back(ticket);
  Tickets& tickets = of_tenant_[entry.tenant];
  if (tickets.empty()) turns_.push_back(entry.tenant);
  tickets.push_back(ticket);
}

void Schedule::advance(Clock::time_point now) {
  while (!later_.empty() && later_.begin()->first <= now) {
    const Ticket ticket = later_.begin()->second;
    later_.erase(later_.begin());
    if (const Entry* entry = entry_of(ticket)) make_ready(ticket, *entry);
  }
}

std::optional<Schedule::Taken> Schedule::take_from(Tickets& tickets) {
  while (!tickets.empty()) {
    const Ticket ticket = tickets.front();
    tickets.pop_front();
    const Entry* entry = entry_of(ticket);
    if (!entry) continue;
    Taken taken{.id = ticket.id, .tenant = entry->tenant, .order = entry->order};
    entries_.erase(ticket.id);
    return taken;
  }
  return std::nullopt;
}

std::optional<Schedule::Taken> Schedule::take(Clock::time_point now, Room room) {
  advance(now);
  if (room.first) {
    if (auto taken = take_from(first_)) return taken;
  }
  while (room.in_turn && !turns_.empty()) {
    const std::string tenant = std::move(turns_.front());
    turns_.pop_front();
    const auto of_tenant = of_tenant_.find(tenant);
    auto taken = take_from(of_tenant->second);
    if (of_tenant->second.empty()) {
      of_tenant_.erase(of_tenant);
    } else {
      turns_.push_back(tenant);
    }
    if (taken) return taken;
  }
  return std::nullopt;
}

Clock::time_point Schedule::next_due() const {
  return later_.empty() ? Clock::time_point::max() : later_.begin()->first;
}

std::chrono::milliseconds backoff(uint32_t failures, std::chrono::milliseconds base, std::chrono::milliseconds cap,
                                  uint64_t random) {
  const uint32_t doublings = std::min(std::max(failures, 1u) - 1, 32u);
  const auto most = std::min(static_cast<uint64_t>(cap.count()), static_cast<uint64_t>(base.count()) << doublings);
  return std::chrono::milliseconds(static_cast<int64_t>(random % (most + 1)));
}

}  // namespace spore::calls
