// y[slot] = x[slot / CHOICES] op(w[expert of slot]): qn_expert_matmul. For CPU drivers.
// Groups: (column tiles of 4 GROUP, slots / TM + E row tiles). [scattermoe]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/expert_matmul.h"

layout(constant_id = 1) const uint TM = 16;
layout(constant_id = 2) const bool TRANSPOSE_B = false; // w is [E, n, k]
layout(constant_id = 3) const bool ALIGNED = true;      // rows of x, w and y are whole vec4s
layout(constant_id = 4) const uint CHOICES = 1;         // slots that share a row of x
const bool TRANSPOSE_A = false;

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(5, b_in)
#include "experts/tile.glsl"
#include "matmul/store.glsl"
BIND_RESULT(4, y)

#include "matmul/load_any.glsl"
#include "matmul/flat.glsl"
uint slots[ROW_LOADS]; // slots[i / GROUP] of lane i % GROUP: the slot of row i
#define TILE_ROW(i, g) (slots[g] / CHOICES)
#include "matmul/flat_rows.glsl"

void main()
{
    uint lane = gl_SubgroupInvocationID, tile = a.first_tile + gl_WorkGroupID.y;
    uint n0 = (gl_WorkGroupID.x * GROUP + lane) * 4;

    uint before = 0; // experts 1.. whose tiles start at or before this one
    for (uint e = 1; e < a.experts; e += GROUP)
        before += uint(e + lane < a.experts && first_tile(min(e + lane, a.experts)) <= tile);
    uint expert = subgroupAdd(before);
    uint first = OFFSET(expert) + (tile - first_tile(expert)) * TM;
    uint end = OFFSET(expert + 1);
    if (first >= end) return;

    [[unroll]] for (uint g = 0; g < ROW_LOADS; g++)
        slots[g] = SLOT(min(first + (g * GROUP + lane) % TM, end - 1));
    uint w0 = expert * a.b_batch;
    a_last = a.x_last;
    b_last = w0 + a.b_batch - 1;
    tile_begin(n0, 0, w0);
    tile_product();

    [[unroll]] for (uint i = 0; i < TM; i++) {
        uint slot = subgroupShuffle(slots[i / GROUP], i % GROUP);
        if (first + i < end && n0 < a.n) write4(slot * a.n + n0, acc[i], a.n - n0);
    }
}
