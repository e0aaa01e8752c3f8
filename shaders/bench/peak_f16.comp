// The rate of f16 arithmetic, two values at a time: 24 pairs, 8 steps a round, 4 operations a step.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#include "types.glsl"
#include "args.h"
#include "args/peak.h"
#define VALUE f16vec2
#define SUMS 24
#define STEP(v) (v * float16_t(a.factor) + float16_t(a.term))
#define FLOATS(v) float(v.x + v.y)
#include "peak.glsl"
