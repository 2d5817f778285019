#include "gateway/operations.h"

#include <algorithm>

#include "base/digest.h"

namespace spore::gateway {
using nlohmann::json;

void Operation::progress(double share) {
  auto state = state_.lock();
  state->share = std::max(state->share, std::clamp(share, 0.0, 1.0));
}

void Operation::succeed(json result) {
  auto state = state_.lock();
  state->status = "succeeded";
  state->share = 1;
  state->result = std::move(result);
}

void Operation::fail(json problem) {
  auto state = state_.lock();
  state->status = "failed";
  state->problem = std::move(problem);
}

bool Operation::ended() const { return state_.lock()->status != "running"; }

json Operation::describe() const {
  auto state = state_.lock();
  json out = {{"id", id_}, {"operation", what_}, {"status", state->status}, {"progress", state->share}};
  if (!state->result.is_null()) out["result"] = state->result;
  if (!state->problem.is_null()) out["problem"] = state->problem;
  return out;
}

std::shared_ptr<Operation> Operations::begin(std::string tenant, std::string what) {
  auto operation = std::make_shared<Operation>(to_hex(random_bytes(16)), std::move(tenant), std::move(what));
  auto table = table_.lock();
  if (table->by_id.size() >= count_max_) {
    const auto oldest_ended =
        std::ranges::find_if(table->order, [&](const std::string& id) { return table->by_id.at(id)->ended(); });
    if (oldest_ended == table->order.end()) return nullptr;
    table->by_id.erase(*oldest_ended);
    table->order.erase(oldest_ended);
  }
  table->order.push_back(operation->id());
  table->by_id.emplace(operation->id(), operation);
  return operation;
}

std::shared_ptr<Operation> Operations::find(const std::string& id) const {
  auto table = table_.lock();
  const auto found = table->by_id.find(id);
  return found == table->by_id.end() ? nullptr : found->second;
}

}  // namespace spore::gateway
