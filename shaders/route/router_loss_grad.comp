// d loss / d logits for the routing losses, times dloss. With coef from router_finish:
//   dz_e = p_e (coef_e - sum_f p_f coef_f + own),
//   own = -(log p_e + h) / N for MI (h the row's entropy), 0.2 lse / N for SWITCH.
// logits [N, E], coef [E], dloss -> dlogits [N, E]. An invocation owns a row.
// [moduleformer] section 6.2
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
BIND_T(1, coef)
BIND_R(2, dloss, float)
BIND_OUT(3, dlogits)

void main()
{
    uint row = grid_item();
    if (row >= a.rows) return;
    RowStats r;
    ROW_STATS(logits, row, r)
    vec4 sum = vec4(0.0);
    for (uint c = 0u; c < row_chunks(); c++)
        sum += exp_exact(ROW4(logits, row, c) - r.top - r.spread) * ROW4(coef, 0u, c) * row_mask(c);
    float mean = sum4(sum), n = float(a.rows), scale = dloss[0];
    for (uint c = 0u; c < row_chunks(); c++) {
        vec4 log_p = ROW4(logits, row, c) - r.top - r.spread, p = exp_exact(log_p);
        vec4 inner = ROW4(coef, 0u, c) - mean;
        if (KIND == MI) inner -= (log_p + (r.spread - r.mean)) / n;
        if (KIND == SWITCH) inner += 2.0 * Z_WEIGHT * (r.top + r.spread) / n;
        STORE_ROW4(dlogits, row, c, scale * p * inner)
    }
}
