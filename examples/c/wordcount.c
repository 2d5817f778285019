// Counts the words of a text on standard input: a plain C program, which knows nothing of Spore.
//
// A word is a run of the letters A to Z, small or capital. Prints how many there are, how many different ones, and the
// ten most frequent.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kWordBytesMax = 64, kTop = 10 };

typedef struct {
  char* word;  // NULL: free
  unsigned long count;
} Entry;

static Entry* entries;
static size_t capacity = 1024, used;

static size_t find(const char* word) {
  size_t hash = 2166136261u;
  for (const char* c = word; *c; c++) hash = (hash ^ (unsigned char)*c) * 16777619u;
  size_t at = hash & (capacity - 1);
  while (entries[at].word && strcmp(entries[at].word, word) != 0) at = (at + 1) & (capacity - 1);
  return at;
}

static void out_of_memory(void) {
  fputs("out of memory\n", stderr);
  exit(1);
}

static void grow(void) {
  Entry* old = entries;
  const size_t old_capacity = capacity;
  capacity *= 2;
  entries = calloc(capacity, sizeof(Entry));
  if (!entries) out_of_memory();
  for (size_t i = 0; i < old_capacity; i++) {
    if (old[i].word) entries[find(old[i].word)] = old[i];
  }
  free(old);
}

static void add(const char* word) {
  if (2 * used >= capacity) grow();
  Entry* entry = &entries[find(word)];
  if (!entry->word) {
    entry->word = strdup(word);
    if (!entry->word) out_of_memory();
    used++;
  }
  entry->count++;
}

static int by_count(const void* a, const void* b) {
  const Entry *x = a, *y = b;
  if (!x->word || !y->word) return (x->word == NULL) - (y->word == NULL);
  if (x->count != y->count) return x->count < y->count ? 1 : -1;
  return strcmp(x->word, y->word);
}

int main(void) {
  entries = calloc(capacity, sizeof(Entry));
  if (!entries) out_of_memory();
  unsigned long words = 0;
  char word[kWordBytesMax + 1];
  size_t length = 0;
  int c;
  do {
    c = getchar();
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
    if (c >= 'a' && c <= 'z') {
      if (length < kWordBytesMax) word[length++] = (char)c;
    } else if (length > 0) {
      word[length] = '\0';
      add(word);
      words++;
      length = 0;
    }
  } while (c != EOF);
  qsort(entries, capacity, sizeof(Entry), by_count);
  printf("%lu words, %zu different\n", words, used);
  for (size_t i = 0; i < kTop && i < used; i++) printf("%lu %s\n", entries[i].count, entries[i].word);
  return 0;
}
