// The rate of f32 multiplications and additions: 24 sums, 8 steps a round, 2 operations a step.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/peak.h"
#define VALUE float
#define SUMS 24
#define STEP(v) (v * a.factor + a.term)
#define FLOATS(v) (v)
#include "peak.glsl"
