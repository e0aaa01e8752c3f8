// c[z] = act(a[z] op(b[z]) + bias) for the few rows of a that decoding has: bound by the reading of
// b, every element of which is read once, by vec4s along its rows.
// Groups of 128: (slabs of columns, 1, batches). b [k, n]: a slab is 64 columns, 16 invocations
// across and 8 along k. b [n, k]: a slab is 16 columns, 32 invocations along k and 4 rows of b for
// each of 4.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/matmul.h"

layout(constant_id = 1) const uint M = 1; // rows of a and c, 1 to 4
layout(constant_id = 2) const bool TRANSPOSE_B = false; // b is [n, k]
layout(constant_id = 3) const bool ALIGNED = true;
layout(constant_id = 4) const bool BIAS = false;
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool ADD = false; // a later pass over k: add to c

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(4, b_in)
BIND_T(2, bias)
BIND_RW(3, c, float)
#include "matmul/load_any.glsl"
DEFINE_LOAD_ANY(any_a, LOAD4, a_in)
DEFINE_LOAD_ANY(any_b, LOADX4, b_in)

const uint SIZE = 128;
shared vec4 partial[4 * SIZE];

// [k, n]: each invocation owns four columns and every eighth term; sums over the eight.
void sum_columns(uint a0, uint b0, uint lane)
{
    uint across = lane % 16, along = lane / 16;
    uint b_last = b0 + (a.k - 1) * a.b_row + a.n - 1;
    uint column = min((gl_WorkGroupID.x * 16 + across) * 4, (a.n - 1) & ~3u);
    vec4 acc[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (uint k = along; k < a.k; k += 8) {
        uint at = b0 + k * a.b_row + column;
        vec4 b = ALIGNED ? LOADX4(b_in, at / 4) : any_b(at, b_last);
        [[unroll]] for (uint i = 0; i < M; i++)
            acc[i] += LOAD1(a_in, a0 + i * a.a_row + k) * b;
    }
    [[unroll]] for (uint i = 0; i < M; i++)
        partial[i * SIZE + lane] = acc[i];
    barrier();
    if (along > 0) return;
    [[unroll]] for (uint i = 0; i < M; i++)
        for (uint s = 1; s < 8; s++)
            partial[i * SIZE + across] += partial[i * SIZE + s * 16 + across];
}

// [n, k]: each invocation owns four rows of b and every 32nd vec4 of their terms.
void sum_rows(uint a0, uint b0, uint lane)
{
    uint along = lane % 32, n0 = gl_WorkGroupID.x * 16 + lane / 32 * 4;
    vec4 acc[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0));
    for (uint k = along * 4; k < a.k; k += 128) {
        vec4 x[M];
        [[unroll]] for (uint i = 0; i < M; i++) {
            uint at = a0 + i * a.a_row + k, end = a0 + i * a.a_row + a.k - 1;
            x[i] = ALIGNED ? LOAD4(a_in, at / 4) : cut(any_a(at, end), at, end);
        }
        [[unroll]] for (uint j = 0; j < 4; j++) {
            uint row = b0 + min(n0 + j, a.n - 1) * a.b_row, at = row + k, end = row + a.k - 1;
            vec4 b = ALIGNED ? LOADX4(b_in, at / 4) : cut(any_b(at, end), at, end);
            [[unroll]] for (uint i = 0; i < M; i++)
                acc[i][j] += dot(x[i], b);
        }
    }
    [[unroll]] for (uint i = 0; i < M; i++)
        partial[i * SIZE + lane] = acc[i];
    barrier();
    if (along > 0) return;
    [[unroll]] for (uint i = 0; i < M; i++)
        for (uint s = 1; s < 32; s++)
            partial[i * SIZE + lane] += partial[i * SIZE + lane + s];
}

void main()
{
    uint lane = gl_LocalInvocationID.x, z = gl_WorkGroupID.z;
    uint a0 = a.a_first + z * a.a_batch, b0 = a.b_first + z * a.b_batch;
    if (TRANSPOSE_B)
        sum_rows(a0, b0, lane);
    else
        sum_columns(a0, b0, lane);

    // The first invocation along k of each has the sums of four columns.
    bool owner = TRANSPOSE_B ? lane % 32 == 0 : lane < 16;
    uint column = gl_WorkGroupID.x * (TRANSPOSE_B ? 16 : 64) + (TRANSPOSE_B ? lane / 32 : lane) * 4;
    if (!owner) return;
    [[unroll]] for (uint i = 0; i < M; i++)
        [[unroll]] for (uint j = 0; j < 4; j++) {
            if (column + j >= a.n) continue;
            uint at = z * a.c_batch + i * a.n + column + j;
            float v = partial[i * SIZE + lane][j];
            if (BIAS) v += LOAD1(bias, column + j);
            if (ADD) v += c[at];
            c[at] = activate(ACTIVATION, v);
        }
}
