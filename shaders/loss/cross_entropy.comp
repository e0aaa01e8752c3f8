// loss[r] = log(sum_v exp(x[r, v])) - x[r, label r], log_sum[r] its first term, counted[r] = 1.
// Rows whose label lies outside [0, V) are not counted: zeros.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "math.glsl"
#include "args.h"
#include "args/cross_entropy.h"
#include "row_walk.glsl"

BIND_T(0, x)
BIND_R(1, labels, int)
BIND_W(2, loss, float)
BIND_W(3, log_sum, float)
BIND_W(4, counted, float)

#include "softmax.glsl"

void main()
{
    EACH_ROW(row) {
        int label = labels[row];
        bool counts = label >= 0 && uint(label) < a.width;
        vec2 t = vec2(0.0, 1.0);
        float at_label = 0.0;
        if (counts) { // the same for the whole group
            t = row_softmax(row);
            at_label = LOAD1(x, row * a.width + uint(label));
        }
        float log_ = log_exact(t.y);
        if (row_leader()) {
            loss[row] = counts ? log_ - (at_label - t.x) : 0.0;
            log_sum[row] = t.x + log_;
            counted[row] = counts ? 1.0 : 0.0;
        }
    }
}
