// What the guest and the model draw alike, from one seed: SplitMix64 (Steele, Lea, Flood 2014). C and C++.
#pragma once

#include <stdint.h>

static inline uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// One call's order.
struct order {
  uint64_t seed;
  uint32_t writer;  // of `writers`: it writes to each page whose number leaves that remainder
  uint32_t writers;
  uint32_t pages;  // a multiple of writers
  uint32_t steps;
  uint32_t ending;
};
enum { kEndReturn, kEndTrap, kEndSpin, kEndings };
// A step draws r: its kind is r % kKinds, its page and place within come from higher bits.
enum { kKinds = 16, kCopyBytes = 64 };
static inline uint32_t page_of(const struct order* order, uint64_t r) {
  return order->writer + order->writers * (uint32_t)((r >> 8) % (order->pages / order->writers));
}
static inline uint32_t place_of(uint64_t r) { return (uint32_t)((r >> 40) % ((4096 - kCopyBytes) / 8)) * 8; }
