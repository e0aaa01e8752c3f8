// y[b, t] = sum_j w[j] E[b, t + j]; the last rows of E.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/causal_conv.h"
#include "convolution/causal_conv.glsl"

layout(constant_id = 3) const uint MODE = 0;
const uint BODY = 0; // y of rows t that reach rows of x alone
const uint HEAD = 1; // y of the rows t < W-1
const uint TAIL = 2; // row t is row T + t of E itself

BIND_T(0, x)
BIND_T(1, w)
BIND_T(2, start)
BIND_OUT(3, y)

vec4 extended(uint b, uint e, uint c)
{
    vec4 v = CONV_LOAD4(x, b * a.tokens + max(e, W - 1u) - (W - 1u), c);
    if (MODE == BODY) return v;
    vec4 before = vec4(0.0);
    if (a.given != 0u) before = CONV_LOAD4(start, b * (W - 1u) + min(e, W - 2u), c);
    return e < W - 1u ? before : v;
}

void main()
{
    uint c = conv_channel();
    EACH_CONV_ROW(b, t) {
        vec4 sum = vec4(0.0);
        if (MODE == TAIL) {
            sum = extended(b, a.tokens + t, c);
            CONV_STORE4(y, b * (W - 1u) + t, c, sum)
        } else {
            [[unroll]] for (uint j = 0; j < W; j++)
                sum += CONV_LOAD4(w, j, c) * extended(b, t + j, c);
            CONV_STORE4(y, b * a.tokens + t, c, sum)
        }
    }
}
