// dz = p (dp - sum_e p_e dp_e) with dp = dprobs + dgates at the chosen experts.
// probs [N, E], experts i32 [N, K], dgates [N, K], dprobs [N, E] -> dlogits [N, E].
// An invocation owns a row; the experts of a row differ, so the chosen places are simply rewritten.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/route_grad.h"
#include "rows.glsl"

BIND_T(0, probs)
BIND_R(1, experts, uint)
BIND_R(2, dgates, float)
BIND_T(3, dprobs)
BIND_OUT(4, dlogits)

float dprob(uint row, uint e) { return a.has_probs != 0u ? ROW1(dprobs, row, e) : 0.0; }

void main()
{
    uint row = grid_item();
    if (row >= a.rows) return;
    uint slot = row * a.choices, slots = a.has_gates != 0u ? a.choices : 0u;

    float mean = 0.0;
    if (a.has_probs != 0u) {
        vec4 sum = vec4(0.0);
        for (uint c = 0u; c < row_chunks(); c++)
            sum += ROW4(probs, row, c) * ROW4(dprobs, row, c) * row_mask(c);
        mean = sum4(sum);
    }
    for (uint s = 0u; s < slots; s++) mean += ROW1(probs, row, experts[slot + s]) * dgates[slot + s];

    for (uint c = 0u; c < row_chunks(); c++) {
        vec4 dp = vec4(-mean);
        if (a.has_probs != 0u) dp += ROW4(dprobs, row, c);
        STORE_ROW4(dlogits, row, c, ROW4(probs, row, c) * dp)
    }
    for (uint s = 0u; s < slots; s++) {
        uint e = experts[slot + s];
        if (e >= a.experts) continue;
        float dp = dgates[slot + s] + dprob(row, e) - mean;
        dlogits_1[row * a.experts + e] = ROW1(probs, row, e) * dp;
    }
}
