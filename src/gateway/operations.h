// Requests that were answered before they were done (202): what became of them. The last `count_max` are remembered; of
// these only ended ones are forgotten. Any thread.
#pragma once

#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/guarded.h"

namespace spore::gateway {

class Operation {
 public:
  Operation(std::string id, std::string tenant, std::string what)
      : id_(std::move(id)), tenant_(std::move(tenant)), what_(std::move(what)) {}

  const std::string& id() const { return id_; }
  const std::string& tenant() const { return tenant_; }

  void progress(double share);  // 0 to 1
  void succeed(nlohmann::json result);
  void fail(nlohmann::json problem);
  bool ended() const;
  nlohmann::json describe() const;

 private:
  struct State {
    std::string status = "running";
    double share = 0;
    nlohmann::json result;
    nlohmann::json problem;
  };
  const std::string id_;
  const std::string tenant_;
  const std::string what_;
  Guarded<State> state_;
};

class Operations {
 public:
  explicit Operations(size_t count_max = 1'000) : count_max_(count_max) {}

  // Null when `count_max` operations are under way.
  std::shared_ptr<Operation> begin(std::string tenant, std::string what);
  std::shared_ptr<Operation> find(const std::string& id) const;

 private:
  struct Table {
    std::unordered_map<std::string, std::shared_ptr<Operation>> by_id;
    std::deque<std::string> order;  // oldest first
  };
  const size_t count_max_;
  Guarded<Table> table_;
};

}  // namespace spore::gateway
