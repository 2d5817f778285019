// A dense graph: the shortest paths between all pairs of nodes.
#include "kernel.h"

enum { kNodes = 420 };

static int32_t distance[kNodes][kNodes];

double run(void) {
  uint64_t random = 13;
  for (int i = 0; i < kNodes; i++) {
    for (int j = 0; j < kNodes; j++) {
      const uint64_t r = next_random(&random) >> 33;
      distance[i][j] = i == j ? 0 : r % 8 == 0 ? (int32_t)(1 + r / 8 % 1000) : 1000000;
    }
  }
  for (int k = 0; k < kNodes; k++) {
    for (int i = 0; i < kNodes; i++) {
      const int32_t to_k = distance[i][k];
      for (int j = 0; j < kNodes; j++) {
        const int32_t through = to_k + distance[k][j];
        if (through < distance[i][j]) distance[i][j] = through;
      }
    }
  }
  double checksum = 0;
  for (int i = 0; i < kNodes; i++) {
    for (int j = 0; j < kNodes; j++) checksum += distance[i][j];
  }
  return checksum;
}
