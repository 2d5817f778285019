// A JSON transform (cpp/json.cc says which) with a JSON reader of its own.
import { input, print } from "../../sdk/assemblyscript/spore";

const COUNT_MAX: f64 = 1e9;
const DEPTH_MAX: i32 = 64;

enum Kind { Null, Bool, Number, Text, List, Object }

class Value {
  number: f64 = 0;
  text: string = "";
  list: Value[] = [];
  fields: Map<string, Value> = new Map();
  constructor(public kind: Kind) {}

  // The field of that kind, or null.
  field(key: string, kind: Kind): Value | null {
    if (this.kind != Kind.Object || !this.fields.has(key)) return null;
    const found = this.fields.get(key);
    return found.kind == kind ? found : null;
  }
}

// What RFC 8259 says, up to DEPTH_MAX levels deep. null: the text is no JSON.
class Reader {
  at: i32 = 0;
  failed: bool = false;  // by text(), whose "" may be a text
  constructor(public input: string) {}

  peek(): i32 {
    return this.at < this.input.length ? this.input.charCodeAt(this.at) : -1;
  }
  skipSpace(): void {
    while (this.peek() == 0x20 || this.peek() == 0x09 || this.peek() == 0x0a || this.peek() == 0x0d) this.at++;
  }
  take(c: i32): bool {
    this.skipSpace();
    if (this.peek() != c) return false;
    this.at++;
    return true;
  }
  word(word: string, kind: Kind): Value | null {
    if (!this.input.substr(this.at, word.length).includes(word)) return null;
    this.at += word.length;
    return new Value(kind);
  }

  value(depth: i32): Value | null {
    if (depth > DEPTH_MAX) return null;
    this.skipSpace();
    switch (this.peek()) {
      case 0x6e: return this.word("null", Kind.Null);
      case 0x74: return this.word("true", Kind.Bool);
      case 0x66: return this.word("false", Kind.Bool);
      case 0x22: {
        const value = new Value(Kind.Text);
        value.text = this.text();
        return this.failed ? null : value;
      }
      case 0x5b: return this.items(depth);
      case 0x7b: return this.members(depth);
      default: return this.numeral();
    }
  }

  items(depth: i32): Value | null {
    const out = new Value(Kind.List);
    this.at++;
    if (this.take(0x5d)) return out;
    do {
      const value = this.value(depth + 1);
      if (value === null) return null;
      out.list.push(value);
    } while (this.take(0x2c));
    return this.take(0x5d) ? out : null;
  }

  members(depth: i32): Value | null {
    const out = new Value(Kind.Object);
    this.at++;
    if (this.take(0x7d)) return out;
    do {
      this.skipSpace();
      const key = this.text();
      if (this.failed || !this.take(0x3a)) return null;
      const value = this.value(depth + 1);
      if (value === null) return null;
      out.fields.set(key, value);
    } while (this.take(0x2c));
    return this.take(0x7d) ? out : null;
  }

  digits(): i32 {
    const begin = this.at;
    while (this.peek() >= 0x30 && this.peek() <= 0x39) this.at++;
    return this.at - begin;
  }
  numeral(): Value | null {
    const begin = this.at;
    if (this.peek() == 0x2d) this.at++;
    const zero = this.peek() == 0x30;
    const whole = this.digits();
    if (whole == 0 || (zero && whole > 1)) return null;
    if (this.peek() == 0x2e) {
      this.at++;
      if (this.digits() == 0) return null;
    }
    if (this.peek() == 0x65 || this.peek() == 0x45) {
      this.at++;
      if (this.peek() == 0x2b || this.peek() == 0x2d) this.at++;
      if (this.digits() == 0) return null;
    }
    const out = new Value(Kind.Number);
    out.number = F64.parseFloat(this.input.substring(begin, this.at));
    return isFinite(out.number) ? out : null;
  }

  fail(): string {
    this.failed = true;
    return "";
  }
  text(): string {
    if (this.peek() != 0x22) return this.fail();
    this.at++;
    let out = "";
    let begin = this.at;  // of what is not yet in `out`
    while (this.peek() >= 0x20) {  // not the end, nor a control character
      const c = this.peek();
      if (c != 0x22 && c != 0x5c) {
        this.at++;
        continue;
      }
      out += this.input.substring(begin, this.at++);
      if (c == 0x22) return out;
      const escaped = this.peek();
      this.at++;
      if (escaped == 0x75) {
        let unit = 0;
        for (let i = 0; i < 4; i++, this.at++) {
          const digit = this.peek();
          const low = digit | 0x20;
          if (digit >= 0x30 && digit <= 0x39) unit = unit * 16 + digit - 0x30;
          else if (low >= 0x61 && low <= 0x66) unit = unit * 16 + low - 0x57;
          else return this.fail();
        }
        out += String.fromCharCode(unit);
      } else {
        const from = "\"\\/bfnrt";
        const which = from.indexOf(String.fromCharCode(escaped));
        if (escaped < 0 || which < 0) return this.fail();
        out += "\"\\/\b\f\n\r\t".charAt(which);
      }
      begin = this.at;
    }
    return this.fail();
  }
}

class Summary {
  orders: u64 = 0;
  pieces: u64 = 0;
  total: f64 = 0;
  articles: Map<string, u64> = new Map();
  constructor(public name: string) {}
}

// By code points, as UTF-8 is ordered; `<` compares UTF-16.
function compare(a: string, b: string): i32 {
  let i = 0;
  while (i < a.length && i < b.length && a.charCodeAt(i) == b.charCodeAt(i)) i++;
  const x = i < a.length ? a.codePointAt(i) : -1;
  const y = i < b.length ? b.codePointAt(i) : -1;
  return x - y;
}

// What is wrong with the order, or "" when it has been added.
function add(order: Value, customers: Map<string, Summary>): string {
  const name = order.field("customer", Kind.Text);
  if (name === null) return "has no customer";
  const items = order.field("items", Kind.List);
  if (items === null) return "has no list of items";
  if (!customers.has(name.text)) customers.set(name.text, new Summary(name.text));
  const summary = customers.get(name.text);
  summary.orders++;
  for (let i = 0; i < items.list.length; i++) {
    const article = items.list[i].field("article", Kind.Text);
    const price = items.list[i].field("price", Kind.Number);
    const count = items.list[i].field("count", Kind.Number);
    if (
      article === null || price === null || count === null || count.number < 0 || count.number > COUNT_MAX ||
      count.number != Math.floor(count.number)
    ) return "has an item without article, price or count";
    const pieces = <u64>count.number;
    summary.pieces += pieces;
    summary.total += price.number * count.number;
    const before = summary.articles.has(article.text) ? summary.articles.get(article.text) : 0;
    summary.articles.set(article.text, before + pieces);
  }
  return "";
}

function quoted(text: string): string {
  const from = "\"\\\b\f\n\r\t";
  let out = "\"";
  for (let i = 0; i < text.length; i++) {
    const which = from.indexOf(text.charAt(i));
    const c = text.charCodeAt(i);
    if (which >= 0) out += "\\" + "\"\\bfnrt".charAt(which);
    else if (c < 0x20) out += "\\u00" + (c < 16 ? "0" : "") + c.toString(16);
    else out += text.charAt(i);
  }
  return out + "\"";
}

// Rounded to cents, with at least one decimal.
function amount(value: f64): string {
  return (Math.floor(value * 100 + 0.5) / 100).toString();
}

function fail(why: string): i32 {
  console.error("json: " + why);
  return 1;
}

export function spore_call(): i32 {
  const bytes = input();
  const reader = new Reader(String.UTF8.decodeUnsafe(bytes.dataStart, bytes.length));
  const orders = reader.value(0);
  reader.skipSpace();
  if (orders === null || reader.peek() >= 0) return fail("the input is not JSON");
  if (orders.kind != Kind.List) return fail("the input is not a list of orders");
  const customers = new Map<string, Summary>();
  for (let i = 0; i < orders.list.length; i++) {
    const wrong = add(orders.list[i], customers);
    if (wrong.length > 0) return fail("order " + i.toString() + " " + wrong);
  }

  const sorted = customers.values();
  sorted.sort((a, b) => (a.total != b.total ? (a.total > b.total ? -1 : 1) : compare(a.name, b.name)));
  let total: f64 = 0;
  let list = "";
  for (let i = 0; i < sorted.length; i++) {
    const summary = sorted[i];
    list += (i > 0 ? ",\n" : "\n") + "    {\n      \"customer\": " + quoted(summary.name);
    const articles = summary.articles.keys();
    let favourite = "";
    let most: u64 = 0;
    for (let k = 0; k < articles.length; k++) {
      const count = summary.articles.get(articles[k]);
      if (k == 0 || count > most || (count == most && compare(articles[k], favourite) < 0)) {
        favourite = articles[k];
        most = count;
      }
    }
    if (articles.length > 0) list += ",\n      \"favourite\": " + quoted(favourite);
    list += ",\n      \"orders\": " + summary.orders.toString() + ",\n      \"pieces\": " + summary.pieces.toString();
    list += ",\n      \"total\": " + amount(summary.total) + "\n    }";
    total += summary.total;
  }
  print("{\n  \"customers\": [" + list + (sorted.length > 0 ? "\n  " : "") + "],\n  \"total\": " + amount(total) + "\n}\n");
  return 0;
}
