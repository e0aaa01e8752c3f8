// dw[e] = sum over the slots of expert e of x[slot / X_SLOTS]^T y[slot / Y_SLOTS]: qn_expert_outer.
// For CPU drivers. Groups: (column tiles of 4 GROUP, row tiles of TM, experts). [scattermoe]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/expert_outer.h"

layout(constant_id = 1) const uint TM = 16;
layout(constant_id = 2) const bool ALIGNED = true; // rows of x, y and dw are whole vec4s
layout(constant_id = 3) const uint X_SLOTS = 1;    // slots that share a row of x
layout(constant_id = 4) const uint Y_SLOTS = 1;    // and a row of y
layout(constant_id = 5) const bool ADD = false;    // a later pass over the slots: add to dw
const bool TRANSPOSE_A = true, TRANSPOSE_B = false;

BIND_T(0, x)
BIND_T(1, y)
#include "experts/tile.glsl"
#include "matmul/store.glsl"
BIND_RESULT(4, dw)

#include "matmul/load_any.glsl"
#include "matmul/flat.glsl"
DEFINE_LOAD_ANY(any_x, LOAD4, x)
DEFINE_LOAD_ANY(any_y, LOAD4, y)

// Lanes hold the slots of a round's terms, lane t % GROUP of slots[t / GROUP] that of term t.
const uint SLOT_LOADS = (UNROLL + GROUP - 1) / GROUP;
uint slots[SLOT_LOADS];

// Of the round whose first term is order[p]. Read a round ahead, as addresses wait for them.
void read_slots(uint p, uint end)
{
    [[unroll]] for (uint g = 0; g < SLOT_LOADS; g++)
        slots[g] = SLOT(min(p + g * GROUP + gl_SubgroupInvocationID, max(end, 1) - 1));
}

uint slot_of(uint t)
{
    return subgroupShuffle(slots[min(t, UNROLL - 1) / GROUP], min(t, UNROLL - 1) % GROUP);
}

void main()
{
    uint lane = gl_SubgroupInvocationID, e = a.first_expert + gl_WorkGroupID.z;
    uint m0 = gl_WorkGroupID.y * TM, n0 = (gl_WorkGroupID.x * GROUP + lane) * 4;
    uint y_column = min(n0, (a.n - 1) & ~3u);
    uint end = OFFSET(e + 1), first = min(OFFSET(e) + a.first, end);
    end = min(end, first + a.count);

    tile_clear();
    read_slots(first, end);
    for (uint p = first; p < end; p += UNROLL) {
        [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
            // Part q of the round holds four columns of term q / (TM / 4): a few terms per load.
            uint part = g * GROUP + lane, t0 = g * GROUP / (TM / 4), t = part / (TM / 4);
            uint slot = slot_of(t0);
            [[unroll]] for (uint d = 1; d < GROUP / (TM / 4); d++)
                slot = t == t0 + d ? slot_of(t0 + d) : slot;
            uint column = min(m0 + part % (TM / 4) * 4, (a.m - 1) & ~3u);
            uint at = slot / X_SLOTS * a.m + column;
            vec4 v = ALIGNED ? LOAD4(x, at / 4) : any_x(at, a.x_last);
            a_part[g] = mix(vec4(0.0), v, bvec4(p + t < end));
        }
        [[unroll]] for (uint t = 0; t < UNROLL; t++) {
            uint at = slot_of(t) / Y_SLOTS * a.n + y_column;
            b_part[t] = ALIGNED ? LOAD4(y, at / 4) : any_y(at, a.y_last);
        }
        read_slots(p + UNROLL, end);
        tile_multiply();
    }

    [[unroll]] for (uint i = 0; i < TM; i++) {
        if (m0 + i >= a.m || n0 >= a.n) continue;
        uint at = (e * a.m + m0 + i) * a.n + n0, count = a.n - n0;
        vec4 v = acc[i];
        if (ADD) v += read4(at, count);
        write4(at, v, count);
    }
}
