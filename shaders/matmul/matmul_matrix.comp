// c[z] = act(op(a[z]) op(b[z]) + bias) by cooperative matrices: factors rounded to f16, f32 sums.
// Groups of four subgroups: (column tiles of 64, row tiles of 64, batches); each subgroup owns a
// quarter of the tile, 2 x 2 fragments.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_basic : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/matmul.h"

layout(constant_id = 1) const uint FRAGMENT_M = 16;
layout(constant_id = 2) const bool TRANSPOSE_A = false; // a is [k, m]
layout(constant_id = 3) const bool TRANSPOSE_B = false; // b is [n, k]
layout(constant_id = 4) const bool TRANSPOSE_C = false; // c is written as [n, m]
layout(constant_id = 5) const bool ALIGNED = true;      // rows of a, b and c are whole vec4s
layout(constant_id = 6) const bool BIAS = false;
layout(constant_id = 7) const uint ACTIVATION = 0;
layout(constant_id = 8) const bool ADD = false; // a later pass over k: add to c
layout(constant_id = 9) const uint FRAGMENT_N = 16;
layout(constant_id = 10) const uint FRAGMENT_K = 16;
#include "matmul/matrix.glsl"

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_T(2, bias)
#include "matmul/store.glsl"
BIND_RESULT(3, c)

// Blocks of 16 terms by 64 rows (columns), by term, in f16; a row is padded by eight.
const uint SIZE = 128;
const uint BLOCK = 16;
const uint TM = 64;
const uint A_PARTS = TM * BLOCK / 4;
const uint A_LOADS = A_PARTS / SIZE;
const uint B_LOADS = 64 * BLOCK / 4 / SIZE;
const uint HALF_ROW = 72;
const uint SUM_ROW = 68;
shared float16_t a_block[BLOCK * HALF_ROW];
shared float16_t b_block[BLOCK * HALF_ROW];
shared float sums[32 * SUM_ROW]; // half of the tile on its way out
vec4 a_next[A_LOADS], b_next[B_LOADS];

#include "matmul/load_any.glsl"
#include "matmul/parts.glsl"
MATRIX_SUM acc[4];

void tile_put()
{
    uint lane = gl_LocalInvocationID.x;
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint p = g * SIZE + lane;
        uint t = part_term(p, TM, TRANSPOSE_A), i = part_place(p, TM, TRANSPOSE_A);
        [[unroll]] for (uint j = 0; j < 4; j++)
            a_block[TRANSPOSE_A ? t * HALF_ROW + i + j : (t + j) * HALF_ROW + i] =
                float16_t(a_next[g][j]);
    }
    [[unroll]] for (uint g = 0; g < B_LOADS; g++) {
        uint p = g * SIZE + lane;
        uint t = part_term(p, 64, !TRANSPOSE_B), i = part_place(p, 64, !TRANSPOSE_B);
        [[unroll]] for (uint j = 0; j < 4; j++)
            b_block[TRANSPOSE_B ? (t + j) * HALF_ROW + i : t * HALF_ROW + i + j] =
                float16_t(b_next[g][j]);
    }
}

void tile_clear()
{
    [[unroll]] for (uint i = 0; i < 4; i++) acc[i] = MATRIX_SUM(0.0);
}

void tile_sum()
{
    uint m = gl_SubgroupID / 2 * 32, n = gl_SubgroupID % 2 * 32;
    MATRIX_A left[2];
    MATRIX_B right[2];
    [[unroll]] for (uint i = 0; i < 2; i++) {
        matrix_load_columns(left[i], a_block, m + i * FRAGMENT_M, HALF_ROW);
        matrix_load_rows(right[i], b_block, n + i * FRAGMENT_N, HALF_ROW);
    }
    [[unroll]] for (uint i = 0; i < 4; i++)
        acc[i] = matrix_multiply_add(left[i / 2], right[i % 2], acc[i]);
}

#define TILE_ROW(i) min(gl_WorkGroupID.y * TM + (i), TRANSPOSE_A ? (a.m - 1) & ~3u : a.m - 1)
#include "matmul/tiled_rows.glsl"
DEFINE_LOAD_ANY(any_bias, LOAD4, bias)

// Four sums of the stored half: of one row, or, where c is written transposed, of one column.
vec4 take(uint row, uint column)
{
    uint step = TRANSPOSE_C ? SUM_ROW : 1, at = row * SUM_ROW + column;
    return vec4(sums[at], sums[at + step], sums[at + 2 * step], sums[at + 3 * step]);
}

void main()
{
    uint z = gl_WorkGroupID.z, lane = gl_LocalInvocationID.x;
    uint a0 = a.a_first + z * a.a_batch, b0 = a.b_first + z * a.b_batch, c0 = z * a.c_batch;
    a_last = a0 + (TRANSPOSE_A ? (a.k - 1) * a.a_row + a.m : (a.m - 1) * a.a_row + a.k) - 1;
    b_last = b0 + (TRANSPOSE_B ? (a.n - 1) * a.b_row + a.k : (a.k - 1) * a.b_row + a.n) - 1;
    tile_begin(gl_WorkGroupID.x * 64, a0, b0);
    tile_product();

    for (uint part = 0; part < 2; part++) {
        if (gl_SubgroupID / 2 == part)
            [[unroll]] for (uint i = 0; i < 4; i++)
                matrix_store_rows(acc[i], sums,
                                  i / 2 * FRAGMENT_M * SUM_ROW + gl_SubgroupID % 2 * 32 +
                                      i % 2 * FRAGMENT_N,
                                  SUM_ROW);
        barrier();
        for (uint p = lane; p < 32 * 16; p += SIZE) {
            uint y = TRANSPOSE_C ? p / 64 * 4 : p / 16, x = TRANSPOSE_C ? p % 64 : p % 16 * 4;
            uint i = gl_WorkGroupID.y * TM + part * 32 + y, j = gl_WorkGroupID.x * 64 + x;
            if (i >= a.m || j >= a.n) continue;
            vec4 v = take(y, x);
            if (BIAS) v += ALIGNED ? LOAD4(bias, j / 4) : any_bias(j, a.n - 1);
            uint row = TRANSPOSE_C ? j : i, column = TRANSPOSE_C ? i : j;
            uint columns = TRANSPOSE_C ? a.m : a.n;
            uint at = c0 + row * columns + column, count = columns - column;
            if (ADD) v += read4(at, count);
            write4(at, activate(ACTIVATION, v), count);
        }
        barrier();
    }
}
