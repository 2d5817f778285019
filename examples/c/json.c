// A JSON transform (cpp/json.cc says which) as a plain C program with a JSON reader of its own.
//
// The reader takes what RFC 8259 says, up to kDepthMax levels deep. Memory is given back by the end of the program.
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kDepthMax = 64 };
static const double kCountMax = 1e9;

typedef enum { kNull, kBool, kNumber, kText, kList, kObject } Kind;
typedef struct Value {
  Kind kind;
  double number;
  char* text;           // of kText
  char* key;            // in an object
  struct Value* first;  // of kList and kObject
  struct Value* next;   // in the list or object
} Value;

static const char* at;  // in the input, which ends with a NUL
static const char* end;

static _Noreturn void fail(const char* why) {
  fprintf(stderr, "json: %s\n", why);
  exit(1);
}
static _Noreturn void fail_at(size_t order, const char* why) {
  fprintf(stderr, "json: order %zu %s\n", order, why);
  exit(1);
}
static _Noreturn void not_json(void) { fail("the input is not JSON"); }

static void* allocate(size_t size) {
  void* p = calloc(1, size);
  if (!p) fail("out of memory");
  return p;
}

static void skip_space(void) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
}
static bool take(char c) {
  skip_space();
  if (at == end || *at != c) return false;
  at++;
  return true;
}
static void take_word(const char* word) {
  const size_t length = strlen(word);
  if ((size_t)(end - at) < length || memcmp(at, word, length) != 0) not_json();
  at += length;
}

static unsigned hex4(void) {
  unsigned out = 0;
  if (end - at < 4) not_json();
  for (int i = 0; i < 4; i++) {
    const char c = *at++;
    const char *digits = "0123456789abcdef", *digit = c ? strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c) : NULL;
    if (!digit) not_json();
    out = out * 16 + (unsigned)(digit - digits);
  }
  return out;
}

static char* put_utf8(char* to, unsigned c) {
  if (c < 0x80) {
    *to++ = (char)c;
  } else if (c < 0x800) {
    *to++ = (char)(0xC0 | c >> 6);
    *to++ = (char)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (char)(0xE0 | c >> 12);
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  } else {
    *to++ = (char)(0xF0 | c >> 18);
    *to++ = (char)(0x80 | (c >> 12 & 63));
    *to++ = (char)(0x80 | (c >> 6 & 63));
    *to++ = (char)(0x80 | (c & 63));
  }
  return to;
}

static char* parse_text(void) {
  const char* close = at;  // a text never grows by being decoded
  while (close < end && *close != '"') close += *close == '\\' && close + 1 < end ? 2 : 1;
  if (close >= end) not_json();
  char *text = allocate((size_t)(close - at) + 1), *to = text;
  while (*at != '"') {
    if ((unsigned char)*at < 0x20) not_json();
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    at++;
    const char *from = "\"\\/bfnrt", *escaped = *at ? strchr(from, *at) : NULL;
    if (escaped) {
      *to++ = "\"\\/\b\f\n\r\t"[escaped - from];
      at++;
      continue;
    }
    if (*at++ != 'u') not_json();
    unsigned c = hex4();
    if (c == 0) fail("the input has a NUL in a text");
    if (c >= 0xD800 && c < 0xDC00) {
      take_word("\\u");
      const unsigned low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) not_json();
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    } else if (c >= 0xDC00 && c < 0xE000) {
      not_json();
    }
    to = put_utf8(to, c);
  }
  at++;
  return text;
}

static bool digits(void) {
  const char* begin = at;
  while (at < end && *at >= '0' && *at <= '9') at++;
  return at > begin;
}
static double parse_number(void) {
  const char* begin = at;
  if (*at == '-') at++;
  const bool zero = at < end && *at == '0';
  const char* whole = at;
  if (!digits() || (zero && at - whole > 1)) not_json();
  if (at < end && *at == '.' && (at++, !digits())) not_json();
  if (at < end && (*at == 'e' || *at == 'E')) {
    at++;
    if (at < end && (*at == '+' || *at == '-')) at++;
    if (!digits()) not_json();
  }
  const double number = strtod(begin, NULL);
  if (!isfinite(number)) not_json();
  return number;
}

static Value* parse(int depth) {
  if (depth > kDepthMax) fail("the input is nested too deeply");
  skip_space();
  if (at == end) not_json();
  Value* value = allocate(sizeof(Value));
  if (*at == '"') {
    at++;
    value->kind = kText;
    value->text = parse_text();
  } else if (*at == '-' || (*at >= '0' && *at <= '9')) {
    value->kind = kNumber;
    value->number = parse_number();
  } else if (*at == '[' || *at == '{') {
    value->kind = *at++ == '[' ? kList : kObject;
    const char close = value->kind == kList ? ']' : '}';
    Value** last = &value->first;
    if (take(close)) return value;
    do {
      char* key = NULL;
      if (value->kind == kObject) {
        if (!take('"')) not_json();
        key = parse_text();
        if (!take(':')) not_json();
      }
      *last = parse(depth + 1);
      (*last)->key = key;
      last = &(*last)->next;
    } while (take(','));
    if (!take(close)) not_json();
  } else if (*at == 't' || *at == 'f') {
    value->kind = kBool;
    take_word(*at == 't' ? "true" : "false");
  } else {
    take_word("null");
  }
  return value;
}

// NULL: there is none of that kind. Of several the last counts.
static const Value* field(const Value* object, const char* key, Kind kind) {
  const Value* found = NULL;
  if (object->kind != kObject) return NULL;
  for (const Value* v = object->first; v; v = v->next) {
    if (strcmp(v->key, key) == 0) found = v;
  }
  return found && found->kind == kind ? found : NULL;
}

typedef struct Entry {
  const char* name;
  unsigned long long orders, pieces;
  double total;
  struct Entry* articles;
  size_t article_count;
} Entry;

static Entry* find_or_add(Entry** entries, size_t* count, const char* name) {
  for (size_t i = 0; i < *count; i++) {
    if (strcmp((*entries)[i].name, name) == 0) return &(*entries)[i];
  }
  if ((*count & (*count - 1)) == 0) {  // full: 0, 1, 2, 4, ...
    *entries = realloc(*entries, (*count ? 2 * *count : 1) * sizeof(Entry));
    if (!*entries) fail("out of memory");
  }
  Entry* added = &(*entries)[(*count)++];
  *added = (Entry){.name = name};
  return added;
}

static int best_first(const void* a, const void* b) {
  const Entry *x = a, *y = b;
  if (x->total != y->total) return x->total < y->total ? 1 : -1;
  return strcmp(x->name, y->name);
}

static void print_text(const char* text) {
  putchar('"');
  for (const unsigned char* c = (const unsigned char*)text; *c; c++) {
    const char *from = "\"\\\b\f\n\r\t", *escaped = strchr(from, *c);
    if (escaped) {
      printf("\\%c", "\"\\bfnrt"[escaped - from]);
    } else if (*c < 0x20) {
      printf("\\u%04x", *c);
    } else {
      putchar(*c);
    }
  }
  putchar('"');
}

// Rounded to cents, without a last 0 of two decimals.
static void print_amount(double amount) {
  char text[400];
  const int length = snprintf(text, sizeof(text), "%.2f", floor(amount * 100 + 0.5) / 100);
  if (text[length - 1] == '0') text[length - 1] = '\0';
  fputs(text, stdout);
}

static char* read_input(size_t* size) {
  size_t capacity = 64 << 10;
  char* text = allocate(capacity);
  for (*size = 0;;) {
    const size_t count = fread(text + *size, 1, capacity - 1 - *size, stdin);
    if (count == 0) break;
    *size += count;
    if (*size == capacity - 1) {
      text = realloc(text, capacity *= 2);
      if (!text) fail("out of memory");
    }
  }
  text[*size] = '\0';
  return text;
}

int main(void) {
  size_t size;
  at = read_input(&size);
  end = at + size;
  const Value* orders = parse(0);
  skip_space();
  if (at != end) not_json();
  if (orders->kind != kList) fail("the input is not a list of orders");

  Entry* customers = NULL;
  size_t customer_count = 0, index = 0;
  for (const Value* order = orders->first; order; order = order->next, index++) {
    const Value *name = field(order, "customer", kText), *items = field(order, "items", kList);
    if (!name) fail_at(index, "has no customer");
    if (!items) fail_at(index, "has no list of items");
    Entry* customer = find_or_add(&customers, &customer_count, name->text);
    customer->orders++;
    for (const Value* item = items->first; item; item = item->next) {
      const Value *article = field(item, "article", kText), *price = field(item, "price", kNumber);
      const Value* count = field(item, "count", kNumber);
      if (!article || !price || !count || !(count->number >= 0 && count->number <= kCountMax) ||
          floor(count->number) != count->number) {
        fail_at(index, "has an item without article, price or count");
      }
      customer->pieces += (unsigned long long)count->number;
      customer->total += price->number * count->number;
      find_or_add(&customer->articles, &customer->article_count, article->text)->pieces +=
          (unsigned long long)count->number;
    }
  }
  if (customer_count) qsort(customers, customer_count, sizeof(Entry), best_first);

  double total = 0;
  fputs("{\n  \"customers\": [", stdout);
  for (size_t i = 0; i < customer_count; i++) {
    const Entry *customer = &customers[i], *favourite = customer->articles;
    for (size_t k = 1; k < customer->article_count; k++) {
      const Entry* article = &customer->articles[k];
      if (article->pieces > favourite->pieces ||
          (article->pieces == favourite->pieces && strcmp(article->name, favourite->name) < 0)) {
        favourite = article;
      }
    }
    fputs(i ? ",\n    {\n      \"customer\": " : "\n    {\n      \"customer\": ", stdout);
    print_text(customer->name);
    if (favourite) {
      fputs(",\n      \"favourite\": ", stdout);
      print_text(favourite->name);
    }
    printf(",\n      \"orders\": %llu,\n      \"pieces\": %llu,\n      \"total\": ", customer->orders,
           customer->pieces);
    print_amount(customer->total);
    fputs("\n    }", stdout);
    total += customer->total;
  }
  fputs(customer_count ? "\n  ],\n  \"total\": " : "],\n  \"total\": ", stdout);
  print_amount(total);
  fputs("\n}\n", stdout);
  return 0;
}
