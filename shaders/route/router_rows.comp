// partial[b] = sum over the rows of block b of the entropy of softmax(z) (MI) or of the squared
// logsumexp (SWITCH). logits [N, E] -> [blocks]. An invocation owns a block.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/router_loss.h"
#include "rows.glsl"
#include "router_loss.glsl"

BIND_T(0, logits)
BIND_W(1, partial, float)

void main()
{
    uint b = grid_item();
    if (b >= a.blocks) return;
    uint end = min((b + 1u) * a.block, a.rows);
    float total = 0.0;
    for (uint row = b * a.block; row < end; row++) {
        RowStats r;
        ROW_STATS(logits, row, r)
        float lse = r.top + r.spread;
        total += KIND == MI ? r.spread - r.mean : lse * lse;
    }
    partial[b] = total;
}
