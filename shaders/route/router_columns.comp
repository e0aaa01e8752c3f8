// Column sums over blocks of rows: mass[b, e] = sum of p over the rows n of block b, and
// users[b, e] = how many choices of these rows are e with a gate above 0 (SWITCH only).
// probs [N, E], gates [N, K], experts i32 [N, K] -> mass [blocks, E], users u32 [blocks, E].
// An invocation owns four columns of a block.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/router_loss.h"
#include "rows.glsl"
#include "router_loss.glsl"

BIND_T(0, probs)
BIND_T(1, gates)
BIND_TI(2, experts)
BIND_OUT(3, mass)
BIND_W(4, users, uint)

void main()
{
    uint item = grid_item(), b = item / row_chunks(), c = item % row_chunks();
    if (b >= a.blocks) return;
    uint first = b * a.block, end = min(first + a.block, a.rows);
    vec4 sum = vec4(0.0);
    for (uint row = first; row < end; row++) sum += ROW4(probs, row, c);
    uvec4 count = uvec4(0u), column = uvec4(4u * c) + uvec4(0u, 1u, 2u, 3u);
    if (KIND == SWITCH) {
        uint last = end * a.choices; // a block is a multiple of four rows, so its slots are too
        for (uint i = first * a.choices; i < last; i += 4u) {
            uvec4 e = uvec4(LOAD4I(experts, i >> 2));
            vec4 gate = LOAD4(gates, i >> 2);
            [[unroll]] for (uint j = 0; j < 4u; j++)
                count += uvec4(equal(uvec4(e[j]), column)) * uint(i + j < last && gate[j] > 0.0);
        }
    }
    STORE_ROW4(mass, b, c, sum)
    [[unroll]] for (uint j = 0; j < 4u; j++) {
        uint e = 4u * c + j;
        if (KIND == SWITCH && e < a.experts) users[b * a.experts + e] = count[j];
    }
}
