// A JSON transform (cpp/json.cc says which) with a JSON reader of its own, in the standard library alone.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::process::exit;

const COUNT_MAX: f64 = 1e9;
const DEPTH_MAX: u32 = 64;

enum Value {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

/// What RFC 8259 says, up to DEPTH_MAX levels deep. None: the text is no JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }
    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }
    fn take(&mut self, c: u8) -> bool {
        self.skip_space();
        let found = c == self.peek();
        self.at += found as usize;
        found
    }
    fn word(&mut self, word: &str, value: Value) -> Option<Value> {
        let found = self.text[self.at..].starts_with(word);
        self.at += word.len();
        found.then_some(value)
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        match self.peek() {
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool),
            b'f' => self.word("false", Value::Bool),
            b'"' => self.string().map(Value::Text),
            b'[' => self.list(depth),
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut out = Vec::new();
        if self.take(b']') {
            return Some(Value::List(out));
        }
        loop {
            out.push(self.value(depth + 1)?);
            if !self.take(b',') {
                return self.take(b']').then_some(Value::List(out));
            }
        }
    }

    fn object(&mut self, depth: u32) -> Option<Value> {
        self.at += 1;
        let mut out = BTreeMap::new();
        if self.take(b'}') {
            return Some(Value::Object(out));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            if !self.take(b':') {
                return None;
            }
            out.insert(key, self.value(depth + 1)?);
            if !self.take(b',') {
                return self.take(b'}').then_some(Value::Object(out));
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }
    fn number(&mut self) -> Option<Value> {
        let begin = self.at;
        self.at += (self.peek() == b'-') as usize;
        let whole = self.at;
        let zero = self.peek() == b'0';
        self.digits()?;
        if zero && self.at - whole > 1 {
            return None;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            self.at += matches!(self.peek(), b'+' | b'-') as usize;
            self.digits()?;
        }
        let number: f64 = self.text[begin..self.at].parse().ok()?;
        number.is_finite().then_some(Value::Number(number))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.bytes().all(|c| c.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }
    fn string(&mut self) -> Option<String> {
        if self.peek() != b'"' {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let c = self.text[self.at..].chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => return Some(out),
                '\\' => out.push(self.escaped()?),
                c if c < ' ' => return None,
                c => out.push(c),
            }
        }
    }
    fn escaped(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += 1;
        Some(match c {
            b'"' | b'\\' | b'/' => c as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                if !(0xD800..0xDC00).contains(&high) {
                    return char::from_u32(high);
                }
                if !self.text[self.at..].starts_with("\\u") {
                    return None;
                }
                self.at += 2;
                let low = self.hex4()?;
                if !(0xDC00..0xE000).contains(&low) {
                    return None;
                }
                return char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
            }
            _ => return None,
        })
    }
}

fn parse(text: &str) -> Option<Value> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.skip_space();
    (reader.at == text.len()).then_some(value)
}

impl Value {
    fn field(&self, key: &str) -> &Value {
        match self {
            Value::Object(fields) => fields.get(key).unwrap_or(&Value::Null),
            _ => &Value::Null,
        }
    }
}

#[derive(Default)]
struct Summary {
    orders: u64,
    pieces: u64,
    total: f64,
    articles: BTreeMap<String, u64>,
}

fn add(order: &Value, customers: &mut BTreeMap<String, Summary>) -> Result<(), &'static str> {
    let name = match order.field("customer") {
        Value::Text(name) => name,
        _ => return Err("has no customer"),
    };
    let items = match order.field("items") {
        Value::List(items) => items,
        _ => return Err("has no list of items"),
    };
    let summary = customers.entry(name.clone()).or_default();
    summary.orders += 1;
    for item in items {
        match (item.field("article"), item.field("price"), item.field("count")) {
            (Value::Text(article), Value::Number(price), Value::Number(count))
                if (0.0..=COUNT_MAX).contains(count) && count.floor() == *count =>
            {
                summary.pieces += *count as u64;
                summary.total += price * count;
                *summary.articles.entry(article.clone()).or_default() += *count as u64;
            }
            _ => return Err("has an item without article, price or count"),
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{8}' => out += "\\b",
            '\u{c}' => out += "\\f",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32).unwrap(),
            c => out.push(c),
        }
    }
    out + "\""
}

/// Rounded to cents, with at least one decimal.
fn amount(value: f64) -> String {
    let cents = (value * 100.0 + 0.5).floor() / 100.0;
    if cents == cents.floor() { format!("{cents}.0") } else { format!("{cents}") }
}

fn fail(why: &str) -> ! {
    eprintln!("json: {why}");
    exit(1)
}

fn main() -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let orders = match String::from_utf8(bytes).ok().and_then(|text| parse(&text)) {
        Some(Value::List(orders)) => orders,
        Some(_) => fail("the input is not a list of orders"),
        None => fail("the input is not JSON"),
    };
    let mut customers = BTreeMap::new();
    for (index, order) in orders.iter().enumerate() {
        if let Err(wrong) = add(order, &mut customers) {
            fail(&format!("order {index} {wrong}"));
        }
    }

    let mut sorted: Vec<_> = customers.into_iter().collect();
    sorted.sort_by(|a, b| b.1.total.total_cmp(&a.1.total)); // stable: by name where totals are the same
    let mut total = 0.0;
    let mut list = Vec::new();
    for (name, summary) in &sorted {
        let mut fields = vec![format!("\"customer\": {}", quoted(name))];
        // The first of the largest: max_by_key alone takes the last.
        if let Some((article, _)) = summary.articles.iter().rev().max_by_key(|entry| entry.1) {
            fields.push(format!("\"favourite\": {}", quoted(article)));
        }
        fields.push(format!("\"orders\": {}", summary.orders));
        fields.push(format!("\"pieces\": {}", summary.pieces));
        fields.push(format!("\"total\": {}", amount(summary.total)));
        list.push(format!("    {{\n      {}\n    }}", fields.join(",\n      ")));
        total += summary.total;
    }
    let list = if list.is_empty() { "[]".to_string() } else { format!("[\n{}\n  ]", list.join(",\n")) };
    writeln!(io::stdout().lock(), "{{\n  \"customers\": {list},\n  \"total\": {}\n}}", amount(total))
}
