// y[slot] = x[slot / CHOICES] w[expert of slot] for the few slots that decoding has: qn_expert_matmul.
// Bound by the reading of w [E, k, n], of which only the chosen experts' parts are touched; each
// element once, along its rows. Groups: (slabs of columns, slots in the order of their experts).
// Portable, of 128: a slab is 64 columns, 16 invocations across and 8 along k. Flat: 32 columns a
// lane. [scattermoe]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/expert_matmul.h"

layout(constant_id = 1) const bool ALIGNED = true; // rows of x and w are whole vec4s
layout(constant_id = 2) const uint CHOICES = 1;    // slots that share a row of x

BIND_T(0, a_in)
BIND_X(1, b_in)
BIND_S(5, b_in)
#include "integers.glsl"
BIND_TI(2, order)
BIND_TI(3, offsets)
BIND_W(4, y, float)
#include "matmul/load_any.glsl"
DEFINE_LOAD_ANY(any_a, LOAD4, a_in)
DEFINE_LOAD_ANY(any_b, LOADX4, b_in)

int offset_of(uint e) { return LOAD4I(offsets, e >> 2)[e & 3u]; }

// The expert of the slot in a place of the order: how many end at or before it. The slot's index in
// `order` is below the last offset, so this is below E.
uint count_ends(uint place, uint lane, uint lanes)
{
    uint ended = 0;
    for (uint e = lane; e < a.experts; e += lanes)
        ended += uint(offset_of(e + 1) <= int(place));
    return ended;
}

#ifdef QN_FLAT
const uint STRIPE = 8; // vec4s of columns per lane
#ifdef QN_BLOCKS       // a block of each row: its scale is read once
#define COLUMN(s) ((lane * STRIPE + (s)) * 4)
#else
#define COLUMN(s) (((s) * GROUP + lane) * 4)
#endif

void main()
{
    uint lane = gl_SubgroupInvocationID, place = a.first_tile + gl_WorkGroupID.y;
    if (int(place) >= offset_of(a.experts)) return;
    uint expert = subgroupAdd(count_ends(place, lane, GROUP));
    uint slot = uint(LOAD4I(order, place >> 2)[place & 3u]);
    uint a0 = slot / CHOICES * a.a_row, a_end = a0 + a.k - 1;
    uint b0 = expert * a.b_batch, b_last = b0 + a.b_batch - 1;
    uint n0 = gl_WorkGroupID.x * GROUP * STRIPE * 4;

    uint at[STRIPE];
    [[unroll]] for (uint s = 0; s < STRIPE; s++)
        at[s] = b0 + min(n0 + COLUMN(s), (a.n - 1) & ~3u);
    vec4 acc[STRIPE];
    [[unroll]] for (uint s = 0; s < STRIPE; s++) acc[s] = vec4(0.0);
    for (uint k = 0; k < a.k; k += 4) {
        vec4 x = ALIGNED ? LOAD4(a_in, (a0 + k) / 4) : cut(any_a(a0 + k, a_end), a0 + k, a_end);
        [[unroll]] for (uint t = 0; t < 4; t++) {
            uint row = min(k + t, a.k - 1) * a.b_row;
#ifdef QN_BLOCKS
            // The lane's block: rows are whole blocks.
            uint block = (at[0] + row) / 32;
            float xs = x[t] * QN_SCALE(b_in, block * 8);
#ifdef QN_Q8_0
            [[unroll]] for (uint s = 0; s < STRIPE; s++)
                acc[s] += xs * qn_unpack_q8(QN_WORD(b_in, block * 8 + s));
#else
            [[unroll]] for (uint s = 0; s < STRIPE; s += 2) {
                uint w = QN_WORD(b_in, block * 4 + s / 2);
                acc[s] += xs * qn_unpack_q4(w);
                acc[s + 1] += xs * qn_unpack_q4(w >> 16);
            }
#endif
#else
            [[unroll]] for (uint s = 0; s < STRIPE; s++)
                acc[s] += x[t] * (ALIGNED ? LOADX4(b_in, (at[s] + row) / 4) : any_b(at[s] + row, b_last));
#endif
        }
    }
    [[unroll]] for (uint s = 0; s < STRIPE; s++)
        [[unroll]] for (uint c = 0; c < 4; c++) {
            uint column = n0 + COLUMN(s) + c;
            if (column < a.n) y[slot * a.n + column] = acc[s][c];
        }
}
#else
const uint SIZE = 128;
shared vec4 partial[SIZE];
shared uint ended[SIZE];

void main()
{
    uint lane = gl_LocalInvocationID.x, place = a.first_tile + gl_WorkGroupID.y;
    if (int(place) >= offset_of(a.experts)) return;
    ended[lane] = count_ends(place, lane, SIZE);
    barrier();
    uint expert = 0;
    for (uint i = 0; i < min(SIZE, a.experts); i++) expert += ended[i];
    uint slot = uint(LOAD4I(order, place >> 2)[place & 3u]);
    uint a0 = slot / CHOICES * a.a_row, b0 = expert * a.b_batch, b_last = b0 + a.b_batch - 1;
    uint across = lane % 16, along = lane / 16;
    uint n0 = (gl_WorkGroupID.x * 16 + across) * 4, column = min(n0, (a.n - 1) & ~3u);
    vec4 acc = vec4(0.0);
    for (uint k = along; k < a.k; k += 8) {
        uint at = b0 + k * a.b_row + column;
        acc += LOAD1(a_in, a0 + k) * (ALIGNED ? LOADX4(b_in, at / 4) : any_b(at, b_last));
    }
    partial[lane] = acc;
    barrier();
    if (along > 0) return;
    for (uint s = 1; s < 8; s++) acc += partial[s * 16 + across];
    [[unroll]] for (uint c = 0; c < 4; c++)
        if (n0 + c < a.n) y[slot * a.n + n0 + c] = acc[c];
}
#endif
