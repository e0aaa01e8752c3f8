// c[z] = act(op(a[z]) op(b[z]) + bias) for every batch z: qn_matmul.
// Groups of 128: (column tiles of 64, row tiles of 8 ROWS, batches).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/matmul.h"

layout(constant_id = 1) const uint ROWS = 8;            // of the tile per invocation: 4 or 8
layout(constant_id = 2) const bool TRANSPOSE_A = false; // a is [k, m]
layout(constant_id = 3) const bool TRANSPOSE_B = false; // b is [n, k]
layout(constant_id = 4) const bool TRANSPOSE_C = false; // c is written as [n, m]
layout(constant_id = 5) const bool ALIGNED = true;      // rows of a, b and c are whole vec4s
layout(constant_id = 6) const bool BIAS = false;
layout(constant_id = 7) const uint ACTIVATION = 0;
layout(constant_id = 8) const bool ADD = false; // a later pass over k: add to c

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(4, b_in)
BIND_T(2, bias)
#include "matmul/store.glsl"
BIND_RESULT(3, c)

#include "matmul/load_any.glsl"
#include "matmul/tiled.glsl"
#define TILE_ROW(i) min(gl_WorkGroupID.y * TM + (i), TRANSPOSE_A ? (a.m - 1) & ~3u : a.m - 1)
#include "matmul/tiled_rows.glsl"
DEFINE_LOAD_ANY(any_bias, LOAD4, bias)

void main()
{
    uint z = gl_WorkGroupID.z, x = gl_LocalInvocationID.x % 16, y = gl_LocalInvocationID.x / 16;
    uint a0 = a.a_first + z * a.a_batch, b0 = a.b_first + z * a.b_batch, c0 = z * a.c_batch;
    a_last = a0 + (TRANSPOSE_A ? (a.k - 1) * a.a_row + a.m : (a.m - 1) * a.a_row + a.k) - 1;
    b_last = b0 + (TRANSPOSE_B ? (a.n - 1) * a.b_row + a.k : (a.k - 1) * a.b_row + a.n) - 1;
    tile_begin(gl_WorkGroupID.x * 64, a0, b0);
    tile_product();

    uint m0 = gl_WorkGroupID.y * TM + y * ROWS, n0 = gl_WorkGroupID.x * 64 + x * 4;
    vec4 shift = vec4(0.0);
    if (BIAS && n0 < a.n) shift = ALIGNED ? LOAD4(bias, n0 / 4) : any_bias(n0, a.n - 1);
    [[unroll]] for (uint i = 0; i < ROWS; i++) {
        // Transposed, each four rows of the tile give a vec4 of each of the four columns.
        uint q = i & ~3u, j = i & 3u;
        vec4 v = TRANSPOSE_C ? vec4(acc[q][j], acc[q + 1][j], acc[q + 2][j], acc[q + 3][j])
                             : acc[i] + shift;
        uint row = TRANSPOSE_C ? n0 + j : m0 + i, rows = TRANSPOSE_C ? a.n : a.m;
        uint column = TRANSPOSE_C ? m0 + q : n0, columns = TRANSPOSE_C ? a.m : a.n;
        if (row >= rows || column >= columns) continue;
        uint at = c0 + row * columns + column, count = columns - column;
        if (ADD) v += read4(at, count);
        write4(at, activate(ACTIVATION, v), count);
    }
}
