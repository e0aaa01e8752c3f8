// dw[e] = sum over the slots of expert e of x[slot / X_SLOTS]^T y[slot / Y_SLOTS]: qn_expert_outer.
// Groups of 128: (column tiles of 64, row tiles of 8 ROWS, experts). [scattermoe]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/expert_outer.h"

layout(constant_id = 1) const uint ROWS = 8;       // of the tile per invocation: 4 or 8
layout(constant_id = 2) const bool ALIGNED = true; // rows of x, y and dw are whole vec4s
layout(constant_id = 3) const uint X_SLOTS = 1;    // slots that share a row of x
layout(constant_id = 4) const uint Y_SLOTS = 1;    // and a row of y
layout(constant_id = 5) const bool ADD = false;    // a later pass over the slots: add to dw
const bool TRANSPOSE_A = true, TRANSPOSE_B = false;

BIND_T(0, x)
BIND_T(1, y)
#include "matmul/store.glsl"
BIND_RESULT(4, dw)

#include "matmul/load_any.glsl"
#include "matmul/tiled.glsl"
#include "experts/tile.glsl"
DEFINE_LOAD_ANY(any_x, LOAD4, x)
DEFINE_LOAD_ANY(any_y, LOAD4, y)

// The parts of the block whose first term is order[p]; zeros from order[end] on.
void get(uint p, uint end, uint m0, uint n0)
{
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint part = min(g * SIZE + gl_LocalInvocationID.x, A_PARTS - 1);
        uint t = p + part_term(part, TM, true);
        uint column = min(m0 + part_place(part, TM, true), (a.m - 1) & ~3u);
        a_next[g] = vec4(0.0);
        if (t >= end) continue;
        uint at = SLOT(t) / X_SLOTS * a.m + column;
        a_next[g] = ALIGNED ? LOAD4(x, at / 4) : any_x(at, a.x_last);
    }
    [[unroll]] for (uint g = 0; g < B_LOADS; g++) {
        uint part = g * SIZE + gl_LocalInvocationID.x;
        uint t = p + part_term(part, 64, true);
        uint column = min(n0 + part_place(part, 64, true), (a.n - 1) & ~3u);
        b_next[g] = vec4(0.0);
        if (t >= end) continue;
        uint at = SLOT(t) / Y_SLOTS * a.n + column;
        b_next[g] = ALIGNED ? LOAD4(y, at / 4) : any_y(at, a.y_last);
    }
}

void main()
{
    uint lane = gl_LocalInvocationID.x, e = a.first_expert + gl_WorkGroupID.z;
    uint m0 = gl_WorkGroupID.y * TM, n0 = gl_WorkGroupID.x * 64;
    uint end = OFFSET(e + 1), first = min(OFFSET(e) + a.first, end);
    end = min(end, first + a.count);

    tile_clear();
    get(first, end, m0, n0);
    for (uint p = first; p < end; p += BLOCK) {
        tile_put();
        barrier();
        if (p + BLOCK < end) get(p + BLOCK, end, m0, n0);
        tile_sum();
        barrier();
    }

    m0 += lane / 16 * ROWS;
    n0 += lane % 16 * 4;
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        if (m0 + i >= a.m || n0 >= a.n) continue;
        uint at = (e * a.m + m0 + i) * a.n + n0, count = a.n - n0;
        vec4 v = acc[i];
        if (ADD) v += read4(at, count);
        write4(at, v, count);
    }
}
