// Normalised rows. With m the mean (0 but for LAYER) and d = x - m:
//   LAYER, RMS   y = d r w (+ b), r = 1 / sqrt(mean(d^2) + epsilon)
//   UNIT         y = x r, r = 1 / max(|x|, epsilon)
// stats[row] = (m, r); for UNIT m is 1 where |x| counted and 0 where epsilon did.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/norm.h"
#include "row_walk.glsl"

layout(constant_id = 3) const uint KIND = 0;
layout(constant_id = 4) const uint BIAS = 0;
const uint LAYER = 0;
const uint RMS = 1;
const uint UNIT = 2;

BIND_T(0, x)
BIND_T(1, w)
BIND_T(2, b)
BIND_OUT(3, y)
BIND_W(4, stats, vec2)

float mean, r; // of the row

vec4 value(uint i, uint row)
{
    vec4 v = (LOAD_ROW(x, i, row, mean) - mean) * r;
    if (KIND != UNIT) v *= LOAD_COLUMN(w, i, row);
    if (BIAS == 1) v += LOAD_COLUMN(b, i, row);
    return v;
}

void main()
{
    EACH_ROW(row) {
        mean = 0.0;
        if (KIND == LAYER) {
            vec4 s = vec4(0.0);
            EACH_IN_ROW(i, row) s += LOAD_ROW(x, i, row, 0.0);
            mean = row_sum(sum4(s)) / float(a.width);
        }
        vec4 q = vec4(0.0);
        EACH_IN_ROW(i, row) {
            vec4 d = LOAD_ROW(x, i, row, mean) - mean;
            q += d * d;
        }
        float square = row_sum(sum4(q));
        r = 1.0 / (KIND == UNIT ? max(sqrt(square), a.epsilon)
                                : sqrt(square / float(a.width) + a.epsilon));
        ROW_STORE(y, row, value)
        if (KIND == UNIT) mean = sqrt(square) > a.epsilon ? 1.0 : 0.0;
        if (row_leader()) stats[row] = vec2(mean, r);
    }
}
