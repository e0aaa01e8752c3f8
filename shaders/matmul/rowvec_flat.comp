// c[z] = act(a[z] b[z]' + bias) for the few rows of a that decoding has, b [n, k] with whole blocks of
// 32 in a row. For CPU drivers, where it is bound by the reading of b: the lanes share a row of b,
// each reads its parts of ROWS rows, and the sums over the lanes come last.
// Groups: (ROWS columns of c, 1, batches).
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/matmul.h"

layout(constant_id = 1) const uint M = 1;    // rows of a and c, 1 to 4
layout(constant_id = 2) const uint ROWS = 8; // rows of b
layout(constant_id = 3) const bool ALIGNED = true;
layout(constant_id = 4) const bool BIAS = false;
layout(constant_id = 5) const uint ACTIVATION = 0;
layout(constant_id = 6) const bool ADD = false; // a later pass over k: add to c

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(4, b_in)
BIND_T(2, bias)
BIND_RW(3, c, float)

#ifdef QN_BLOCKS
const uint PART = 32; // terms of a lane in a round: a block
#else
const uint PART = 8;
#endif

void main()
{
    uint lane = gl_SubgroupInvocationID, z = gl_WorkGroupID.z, n0 = gl_WorkGroupID.x * ROWS;
    uint a0 = a.a_first + z * a.a_batch, b0 = a.b_first + z * a.b_batch, c0 = z * a.c_batch;
    uint row[ROWS];
    [[unroll]] for (uint r = 0; r < ROWS; r++) row[r] = b0 + min(n0 + r, a.n - 1) * a.b_row;

    float acc[M * ROWS];
    [[unroll]] for (uint i = 0; i < M * ROWS; i++) acc[i] = 0.0;
    uint rounds = (a.k + GROUP * PART - 1) / (GROUP * PART);
    for (uint round = 0; round < rounds; round++) {
        uint k = (round * GROUP + lane) * PART;
        bool in_row = k < a.k;
        k = in_row ? k : 0; // reads something, adds nothing
        vec4 x[M * (PART / 4)];
        [[unroll]] for (uint i = 0; i < M; i++)
            [[unroll]] for (uint p = 0; p < PART / 4; p++)
                x[i * (PART / 4) + p] =
                    mix(vec4(0.0), LOAD4(a_in, (a0 + i * a.a_row + k) / 4 + p), bvec4(in_row));
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            vec4 sum[M];
            [[unroll]] for (uint i = 0; i < M; i++) sum[i] = vec4(0.0);
#ifdef QN_BLOCKS
            uint block = (row[r] + k) / 32;
            float d = QN_SCALE(b_in, block * 8);
#ifdef QN_Q8_0
            [[unroll]] for (uint p = 0; p < 8; p++) {
                vec4 q = qn_unpack_q8(QN_WORD(b_in, block * 8 + p));
                [[unroll]] for (uint i = 0; i < M; i++) sum[i] += q * x[i * 8 + p];
            }
#else
            [[unroll]] for (uint p = 0; p < 8; p += 2) {
                uint w = QN_WORD(b_in, block * 4 + p / 2);
                vec4 q = qn_unpack_q4(w), q2 = qn_unpack_q4(w >> 16);
                [[unroll]] for (uint i = 0; i < M; i++)
                    sum[i] += q * x[i * 8 + p] + q2 * x[i * 8 + p + 1];
            }
#endif
#else
            const float d = 1.0;
            [[unroll]] for (uint p = 0; p < 2; p++) {
                vec4 q = LOADX4(b_in, (row[r] + k) / 4 + p);
                [[unroll]] for (uint i = 0; i < M; i++) sum[i] += q * x[i * 2 + p];
            }
#endif
            [[unroll]] for (uint i = 0; i < M; i++)
                acc[i * ROWS + r] += d * ((sum[i].x + sum[i].y) + (sum[i].z + sum[i].w));
        }
    }

    [[unroll]] for (uint i = 0; i < M; i++)
        [[unroll]] for (uint r = 0; r < ROWS; r++) {
            float v = subgroupAdd(acc[i * ROWS + r]);
            if (lane == r % GROUP && n0 + r < a.n) {
                uint at = c0 + i * a.n + n0 + r;
                if (BIAS) v += LOAD1(bias, n0 + r);
                if (ADD) v += c[at];
                c[at] = activate(ACTIVATION, v);
            }
        }
}
