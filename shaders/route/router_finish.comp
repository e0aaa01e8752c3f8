// The partial sums of the rows and columns to the loss, and to coef [E], with which the gradient
// with respect to the logits is p (coef - sum_e p_e coef_e) plus a term of the row alone:
//   MI             P = mean p, loss = mean entropy + sum P log(P + eps),
//                  coef = (log(P + eps) + P / (P + eps)) / N
//   CONCENTRATION  loss = -sum P log(P + eps), coef = minus that of MI
//   SWITCH         loss = E sum (mass / sum mass) (users / sum users) + 0.1 mean lse^2,
//                  coef = E (users / sum users) / N
// rows [blocks], mass [blocks, E], users u32 [blocks, E] -> loss, coef [E]. One workgroup.
// [moduleformer] sections 6.2 and 9, [switch], [zloss]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "reduce.glsl"
#include "each.glsl"
#include "args.h"
#include "args/router_loss.h"
#include "rows.glsl"
#include "router_loss.glsl"

BIND_R(0, rows, float)
BIND_R(1, mass, float)
BIND_R(2, users, uint)
BIND_W(3, loss, float)
BIND_RW(4, coef, float)

void main()
{
    uint lane = gl_LocalInvocationID.x;
    float n = float(a.rows), entropy = 0.0; // entropy: of the rows, or the sum of squares
    if (KIND != CONCENTRATION)
        for (uint b = lane; b < a.blocks; b += GROUP) entropy += rows[b];
    entropy = group_sum(entropy) / n;

    float weight = 0.0, choices = 0.0, product = 0.0, marginal = 0.0;
    for (uint e = lane; e < a.experts; e += GROUP) {
        float sum = 0.0;
        uint count = 0u;
        for (uint b = 0u; b < a.blocks; b++) {
            sum += mass[b * a.experts + e];
            if (KIND == SWITCH) count += users[b * a.experts + e];
        }
        if (KIND == SWITCH) {
            weight += sum;
            choices += float(count);
            product += sum * float(count);
            coef[e] = float(count);
        } else {
            float p = sum / n, logarithm = log_exact(p + EPSILON);
            marginal += p * logarithm;
            float slope = (logarithm + p / (p + EPSILON)) / n;
            coef[e] = KIND == MI ? slope : -slope;
        }
    }
    if (KIND == SWITCH) {
        weight = max(group_sum(weight), NOTHING);
        choices = max(group_sum(choices), NOTHING);
        product = group_sum(product);
        for (uint e = lane; e < a.experts; e += GROUP)
            coef[e] = float(a.experts) * coef[e] / choices / n;
        if (lane == 0u)
            loss[0] = float(a.experts) * (product / weight / choices) + Z_WEIGHT * entropy;
    } else {
        marginal = group_sum(marginal);
        if (lane == 0u) loss[0] = KIND == MI ? entropy + marginal : -marginal;
    }
}
