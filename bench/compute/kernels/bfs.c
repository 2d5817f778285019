// A sparse graph: breadth-first searches with a queue, from several starts, over adjacency lists in one array.
#include "kernel.h"

enum { kNodes = 120000, kEdgesPerNode = 6, kStarts = 10 };

static int32_t begin[kNodes + 1], target[kNodes * kEdgesPerNode], depth[kNodes], queue[kNodes];

double run(void) {
  uint64_t random = 17;
  int32_t count = 0;
  for (int i = 0; i < kNodes; i++) {
    begin[i] = count;
    const int edges = (int)(next_random(&random) >> 33) % (kEdgesPerNode + 1);
    for (int e = 0; e < edges; e++) {
      // Mostly near, sometimes anywhere, as in a road network with motorways.
      const uint64_t r = next_random(&random) >> 20;
      target[count++] = (int32_t)(r % 16 ? (i + (int32_t)(r / 16 % 2001) - 1000 + kNodes) % kNodes : r / 16 % kNodes);
    }
  }
  begin[kNodes] = count;
  double checksum = 0;
  for (int s = 0; s < kStarts; s++) {
    for (int i = 0; i < kNodes; i++) depth[i] = -1;
    int32_t head = 0, tail = 0;
    const int32_t start = (int32_t)((next_random(&random) >> 33) % kNodes);
    depth[start] = 0;
    queue[tail++] = start;
    while (head < tail) {
      const int32_t node = queue[head++];
      for (int32_t e = begin[node]; e < begin[node + 1]; e++) {
        const int32_t other = target[e];
        if (depth[other] < 0) {
          depth[other] = depth[node] + 1;
          queue[tail++] = other;
        }
      }
    }
    checksum += tail + 1e-3 * depth[queue[tail - 1]];
  }
  return checksum;
}
