// Indirect calls: a generic sort (heap sort after quick sort's partitions, as in a library) that is given its
// comparison as a function, used with three orders on the same records.
#include "kernel.h"

enum { kRecords = 60000 };

typedef struct {
  uint32_t id;
  float weight;
  uint64_t key;
} Record;

typedef int (*Compare)(const void* a, const void* b);

static Record records[kRecords];

static int by_key(const void* a, const void* b) {
  const uint64_t x = ((const Record*)a)->key, y = ((const Record*)b)->key;
  return (x > y) - (x < y);
}
static int by_weight(const void* a, const void* b) {
  const float x = ((const Record*)a)->weight, y = ((const Record*)b)->weight;
  return (x > y) - (x < y);
}
static int by_id_backwards(const void* a, const void* b) {
  const uint32_t x = ((const Record*)a)->id, y = ((const Record*)b)->id;
  return (y > x) - (y < x);
}

// Kept in memory, so that no compiler sees through the calls.
static Compare volatile orders[3] = {by_key, by_weight, by_id_backwards};

static void exchange(Record* a, Record* b) {
  const Record kept = *a;
  *a = *b;
  *b = kept;
}

static void sift_down(Record* base, uint32_t root, uint32_t count, Compare compare) {
  for (;;) {
    uint32_t child = 2 * root + 1;
    if (child >= count) return;
    if (child + 1 < count && compare(&base[child], &base[child + 1]) < 0) child++;
    if (compare(&base[root], &base[child]) >= 0) return;
    exchange(&base[root], &base[child]);
    root = child;
  }
}

static void heap_sort(Record* base, uint32_t count, Compare compare) {
  for (uint32_t i = count / 2; i-- > 0;) sift_down(base, i, count, compare);
  for (uint32_t end = count; end-- > 1;) {
    exchange(&base[0], &base[end]);
    sift_down(base, 0, end, compare);
  }
}

static void sort(Record* base, uint32_t count, Compare compare, int depth) {
  while (count > 24) {
    if (depth-- == 0) {
      heap_sort(base, count, compare);
      return;
    }
    Record *low = &base[0], *middle = &base[count / 2], *high = &base[count - 1];
    if (compare(middle, low) < 0) exchange(middle, low);
    if (compare(high, middle) < 0) exchange(high, middle);
    if (compare(middle, low) < 0) exchange(middle, low);
    const Record pivot = *middle;
    uint32_t i = 0, j = count - 1;
    for (;;) {
      while (compare(&base[i], &pivot) < 0) i++;
      while (compare(&pivot, &base[j]) < 0) j--;
      if (i >= j) break;
      exchange(&base[i++], &base[j--]);
    }
    const uint32_t left = j + 1;
    if (left < count - left) {
      sort(base, left, compare, depth);
      base += left;
      count -= left;
    } else {
      sort(base + left, count - left, compare, depth);
      count = left;
    }
  }
  for (uint32_t i = 1; i < count; i++) {
    for (uint32_t j = i; j > 0 && compare(&base[j], &base[j - 1]) < 0; j--) exchange(&base[j], &base[j - 1]);
  }
}

double run(void) {
  uint64_t random = 23;
  for (uint32_t i = 0; i < kRecords; i++) {
    records[i].id = i;
    records[i].weight = (float)random_unit(&random) + (float)(next_random(&random) >> 63);
    records[i].key = next_random(&random);
  }
  uint64_t hash = 0;
  for (int order = 0; order < 3; order++) {
    sort(records, kRecords, orders[order], 32);
    for (uint32_t i = 0; i < kRecords; i += 7)
      hash = hash * 31 + (order == 1 ? (uint64_t)(records[i].weight * 16777216.0f) : records[i].key);
  }
  return as_checksum(hash);
}
