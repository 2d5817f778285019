// A JSON transform (cpp/json.cc says which).
const countMax = 1e9;

function fail(why) {
  throw new Error(`json: ${why}`);
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function isItem(item) {
  return isObject(item) && typeof item.article === "string" && Number.isFinite(item.price) &&
    Number.isInteger(item.count) && item.count >= 0 && item.count <= countMax;
}

// By code points, as UTF-8 is ordered; `<` compares UTF-16.
function compare(a, b) {
  let i = 0;
  while (i < a.length && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  return (a.codePointAt(i) ?? -1) - (b.codePointAt(i) ?? -1);
}

// Rounded to cents, with at least one decimal.
function amount(value) {
  const cents = Math.floor(value * 100 + 0.5) / 100;
  return Number.isInteger(cents) ? `${cents}.0` : `${cents}`;
}

let orders;
try {
  orders = JSON.parse(Spore.input());
} catch {
  fail("the input is not JSON");
}
if (!Array.isArray(orders)) fail("the input is not a list of orders");
const customers = new Map();
for (const [index, order] of orders.entries()) {
  if (!isObject(order) || typeof order.customer !== "string") fail(`order ${index} has no customer`);
  if (!Array.isArray(order.items)) fail(`order ${index} has no list of items`);
  const summary = customers.get(order.customer) ?? { orders: 0, pieces: 0, total: 0, articles: new Map() };
  customers.set(order.customer, summary);
  summary.orders++;
  for (const item of order.items) {
    if (!isItem(item)) fail(`order ${index} has an item without article, price or count`);
    summary.pieces += item.count;
    summary.total += item.price * item.count;
    summary.articles.set(item.article, (summary.articles.get(item.article) ?? 0) + item.count);
  }
}

let total = 0;
const lines = [];
const sorted = [...customers].sort(([a, m], [b, n]) => n.total - m.total || compare(a, b));
for (const [name, summary] of sorted) {
  const [favourite] = [...summary.articles].sort(([a, m], [b, n]) => n - m || compare(a, b));
  const fields = [`"customer": ${JSON.stringify(name)}`];
  if (favourite) fields.push(`"favourite": ${JSON.stringify(favourite[0])}`);
  fields.push(`"orders": ${summary.orders}`, `"pieces": ${summary.pieces}`, `"total": ${amount(summary.total)}`);
  lines.push(`    {\n      ${fields.join(",\n      ")}\n    }`);
  total += summary.total;
}
const list = lines.length ? `[\n${lines.join(",\n")}\n  ]` : "[]";
print(`{\n  "customers": ${list},\n  "total": ${amount(total)}\n}`);
