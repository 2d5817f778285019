// A JSON transform: a list of orders becomes a summary for each customer, the best one first.
//
//   [{"customer": "ada", "items": [{"article": "bolt", "price": 0.25, "count": 100}]}, ...]
//   -> {"customers": [{"customer": "ada", "orders": 1, "pieces": 100, "total": 25.0, "favourite": "bolt"}],
//   "total": 25.0}
//
// Amounts are rounded to cents; customers with the same total, and favourites of the same count, are ordered by name.
// An input that is no such list ends the call with exit code 1 and the reason in its log.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <spore.hpp>
#include <string>
#include <vector>

using nlohmann::json;

namespace {

constexpr double kCountMax = 1e9;

struct Summary {
  uint64_t orders = 0;
  uint64_t pieces = 0;
  double total = 0;
  std::map<std::string, uint64_t> by_article;
};

int fail(const std::string& why) {
  std::fprintf(stderr, "json: %s\n", why.c_str());
  return 1;
}

double in_cents(double amount) { return std::floor(amount * 100 + 0.5) / 100; }

// A whole number, as 3 or 3.0 or 3e0.
bool is_count(const json& value) {
  if (!value.is_number()) return false;
  const auto count = value.get<double>();
  return count >= 0 && count <= kCountMax && count == std::floor(count);
}

// What is wrong with the order, or nothing when it has been added.
std::string add(const json& order, std::map<std::string, Summary>& customers) {
  if (!order.is_object() || !order.contains("customer") || !order["customer"].is_string()) return "has no customer";
  if (!order.contains("items") || !order["items"].is_array()) return "has no list of items";
  Summary& summary = customers[order["customer"].get<std::string>()];
  ++summary.orders;
  for (const json& item : order["items"]) {
    if (!item.is_object() || !item.contains("article") || !item["article"].is_string() || !item.contains("price") ||
        !item["price"].is_number() || !item.contains("count") || !is_count(item["count"])) {
      return "has an item without article, price or count";
    }
    const auto count = static_cast<uint64_t>(item["count"].get<double>());
    summary.pieces += count;
    summary.total += item["price"].get<double>() * static_cast<double>(count);
    summary.by_article[item["article"].get<std::string>()] += count;
  }
  return {};
}

}  // namespace

SPORE_FUNCTION {
  const json orders = json::parse(spore::input(), nullptr, /*allow_exceptions=*/false);
  if (orders.is_discarded()) return fail("the input is not JSON");
  if (!orders.is_array()) return fail("the input is not a list of orders");
  std::map<std::string, Summary> customers;
  for (size_t i = 0; i < orders.size(); ++i) {
    const std::string wrong = add(orders[i], customers);
    if (!wrong.empty()) return fail("order " + std::to_string(i) + " " + wrong);
  }

  std::vector<std::pair<std::string, Summary>> sorted(customers.begin(), customers.end());
  std::ranges::stable_sort(sorted, [](const auto& a, const auto& b) { return a.second.total > b.second.total; });
  json result = {{"customers", json::array()}};
  double total = 0;
  for (const auto& [name, summary] : sorted) {
    const auto favourite =
        std::ranges::max_element(summary.by_article, [](const auto& a, const auto& b) { return a.second < b.second; });
    json customer = {
        {"customer", name}, {"orders", summary.orders}, {"pieces", summary.pieces}, {"total", in_cents(summary.total)}};
    if (favourite != summary.by_article.end()) customer["favourite"] = favourite->first;
    result["customers"].push_back(std::move(customer));
    total += summary.total;
  }
  result["total"] = in_cents(total);
  spore::write(result.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
  return 0;
}
