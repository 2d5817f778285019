// Square roots and divisions in structures: planets around a sun, by a leapfrog step.
#include "kernel.h"

enum { kBodies = 8, kSteps = 120000 };

typedef struct {
  double x, y, z, vx, vy, vz, mass;
} Body;

static Body bodies[kBodies];

static double energy(void) {
  double sum = 0;
  for (int i = 0; i < kBodies; i++) {
    const Body* a = &bodies[i];
    sum += 0.5 * a->mass * (a->vx * a->vx + a->vy * a->vy + a->vz * a->vz);
    for (int j = i + 1; j < kBodies; j++) {
      const double dx = a->x - bodies[j].x, dy = a->y - bodies[j].y, dz = a->z - bodies[j].z;
      sum -= a->mass * bodies[j].mass / __builtin_sqrt(dx * dx + dy * dy + dz * dz);
    }
  }
  return sum;
}

static void advance(double dt) {
  for (int i = 0; i < kBodies; i++) {
    Body* a = &bodies[i];
    for (int j = i + 1; j < kBodies; j++) {
      Body* b = &bodies[j];
      const double dx = a->x - b->x, dy = a->y - b->y, dz = a->z - b->z;
      const double squared = dx * dx + dy * dy + dz * dz;
      const double pull = dt / (squared * __builtin_sqrt(squared));
      a->vx -= dx * b->mass * pull;
      a->vy -= dy * b->mass * pull;
      a->vz -= dz * b->mass * pull;
      b->vx += dx * a->mass * pull;
      b->vy += dy * a->mass * pull;
      b->vz += dz * a->mass * pull;
    }
  }
  for (int i = 0; i < kBodies; i++) {
    bodies[i].x += dt * bodies[i].vx;
    bodies[i].y += dt * bodies[i].vy;
    bodies[i].z += dt * bodies[i].vz;
  }
}

double run(void) {
  uint64_t random = 31;
  bodies[0] = (Body){0, 0, 0, 0, 0, 0, 40.0};
  for (int i = 1; i < kBodies; i++) {
    const double radius = 2.0 * i, speed = __builtin_sqrt(40.0 / radius);
    bodies[i] = (Body){radius, 0, 0.1 * random_unit(&random), 0, speed, 0, 0.01 + 0.01 * random_unit(&random)};
  }
  for (int step = 0; step < kSteps; step++) advance(0.002);
  return energy();
}
