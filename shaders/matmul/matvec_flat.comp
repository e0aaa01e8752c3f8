// c[z] = act(a[z] b[z] + bias) for the few rows of a that decoding has; b is [k, n]. For CPU
// drivers, where it is bound by the reading of b: each round reads a wide stripe of four rows.
// Groups: (stripes of 4 GROUP STRIPE columns, 1, batches). Where b is [n, k], matmul_flat with a
// low tile reads along b's rows already.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/matmul.h"

layout(constant_id = 1) const uint M = 1;      // rows of a and c, 1 to 4
layout(constant_id = 2) const uint STRIPE = 8; // vec4s of columns per lane
layout(constant_id = 3) const bool ALIGNED = true;
layout(constant_id = 4) const bool BIAS = false;
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool ADD = false; // a later pass over k: add to c

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(4, b_in)
BIND_T(2, bias)
#include "matmul/store.glsl"
BIND_RESULT(3, c)
#include "matmul/load_any.glsl"
DEFINE_LOAD_ANY(any_a, LOAD4, a_in)
DEFINE_LOAD_ANY(any_b, LOADX4, b_in)
DEFINE_LOAD_ANY(any_bias, LOAD4, bias)

void main()
{
    uint lane = gl_SubgroupInvocationID, z = gl_WorkGroupID.z;
    uint a0 = a.a_first + z * a.a_batch, b0 = a.b_first + z * a.b_batch, c0 = z * a.c_batch;
    uint b_last = b0 + (a.k - 1) * a.b_row + a.n - 1;
    uint n0 = (gl_WorkGroupID.x * GROUP * STRIPE + lane) * 4; // then every 4 GROUP columns

    vec4 acc[M * STRIPE];
    [[unroll]] for (uint i = 0; i < M * STRIPE; i++)
        acc[i] = vec4(0.0);
    for (uint k = 0; k < a.k; k += 4) {
        vec4 terms[M];
        [[unroll]] for (uint i = 0; i < M; i++) {
            uint at = a0 + i * a.a_row + k, end = a0 + i * a.a_row + a.k - 1;
            terms[i] = ALIGNED ? LOAD4(a_in, at / 4) : cut(any_a(at, end), at, end);
        }
        [[unroll]] for (uint s = 0; s < STRIPE; s++) {
            uint column = b0 + min(n0 + s * GROUP * 4, (a.n - 1) & ~3u);
            vec4 b[4];
            [[unroll]] for (uint t = 0; t < 4; t++) {
                uint at = column + min(k + t, a.k - 1) * a.b_row;
                b[t] = ALIGNED ? LOADX4(b_in, at / 4) : any_b(at, b_last);
            }
            [[unroll]] for (uint i = 0; i < M; i++) {
                vec4 x = terms[i];
                acc[i * STRIPE + s] += x.x * b[0] + x.y * b[1] + x.z * b[2] + x.w * b[3];
            }
        }
    }

    [[unroll]] for (uint j = 0; j < M * STRIPE; j++) {
        uint i = j / STRIPE, column = n0 + j % STRIPE * GROUP * 4;
        if (column >= a.n) continue;
        uint at = c0 + i * a.n + column, count = a.n - column;
        vec4 v = acc[j];
        if (BIAS) v += ALIGNED ? LOAD4(bias, column / 4) : any_bias(column, a.n - 1);
        if (ADD) v += read4(at, count);
        write4(at, activate(ACTIVATION, v), count);
    }
}
