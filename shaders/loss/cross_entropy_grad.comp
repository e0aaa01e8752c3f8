// dx[r, v] = (exp(x[r, v] - log_sum[r]) - [v = label r]) g / count; 0 on rows that are not counted.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/cross_entropy_grad.h"
#include "row_walk.glsl"

BIND_T(0, x)
BIND_R(1, labels, int)
BIND_R(2, log_sum, float)
BIND_R(3, count, float)
BIND_R(4, g, float)
BIND_OUT(5, dx)

float shift, scale; // of the row
uint hit;           // its label's element
bool counts;

vec4 value(uint i, uint row)
{
    vec4 p = exp_exact(LOAD_ROW(x, i, row, shift) - shift);
    p -= vec4(equal(4 * i + uvec4(0, 1, 2, 3), uvec4(hit)));
    return counts ? p * scale : vec4(0.0);
}

void main()
{
    scale = g[0] / max(count[0], 1.0);
    EACH_ROW(row) {
        int label = labels[row];
        counts = label >= 0 && uint(label) < a.width;
        hit = counts ? row * a.width + uint(label) : 0xffffffffu;
        shift = log_sum[row];
        ROW_STORE(dx, row, value)
    }
}
