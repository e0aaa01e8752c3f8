// y[slot] = x[slot / CHOICES] op(w[expert of slot]): qn_expert_matmul.
// Groups of 128: (column tiles of 64, slots / TM + E row tiles), TM = 8 ROWS. [scattermoe]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/expert_matmul.h"

layout(constant_id = 1) const uint ROWS = 8;            // of the tile per invocation: 4 or 8
layout(constant_id = 2) const bool TRANSPOSE_B = false; // w is [E, n, k]
layout(constant_id = 3) const bool ALIGNED = true;      // rows of x, w and y are whole vec4s
layout(constant_id = 4) const uint CHOICES = 1;         // slots that share a row of x
const bool TRANSPOSE_A = false;

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(5, b_in)
#include "matmul/store.glsl"
BIND_RESULT(4, y)

#include "matmul/load_any.glsl"
#include "matmul/tiled.glsl"
#include "experts/tile.glsl"
shared uint expert;
shared uint slots[TM];
#define TILE_ROW(i) (slots[i] / CHOICES)
#include "matmul/tiled_rows.glsl"

void main()
{
    uint lane = gl_LocalInvocationID.x, tile = a.first_tile + gl_WorkGroupID.y;
    if (lane == 0) expert = a.experts;
    barrier();
    for (uint e = lane; e < a.experts; e += SIZE)
        if (first_tile(e) <= tile && tile < first_tile(e + 1)) expert = e;
    barrier();
    uint e = expert;
    if (e == a.experts) return;
    uint first = OFFSET(e) + (tile - first_tile(e)) * TM, end = OFFSET(e + 1);
    if (first >= end) return;

    if (lane < TM) slots[lane] = SLOT(min(first + lane, end - 1));
    barrier();
    uint w0 = e * a.b_batch;
    a_last = a.x_last;
    b_last = w0 + a.b_batch - 1;
    tile_begin(gl_WorkGroupID.x * 64, 0, w0);
    tile_product();

    uint n0 = gl_WorkGroupID.x * 64 + lane % 16 * 4;
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        uint row = lane / 16 * ROWS + i;
        if (first + row < end && n0 < a.n) write4(slots[row] * a.n + n0, acc[i], a.n - n0);
    }
}
