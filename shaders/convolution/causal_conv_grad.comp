// Gradient of causal_conv.comp to E: dE[b, e] = sum_j w[j] dy[b, e - j] over rows of dy that exist,
// and, where e >= T, the gradient of end row e - T. Its rows e < W-1 belong to the start rows.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/causal_conv.h"
#include "convolution/causal_conv.glsl"

BIND_T(0, w)
BIND_T(1, dy)
BIND_T(2, dend)
BIND_OUT(3, dx)
BIND_OUT(4, dstart)

void main()
{
    uint c = conv_channel();
    EACH_CONV_ROW(b, e) {
        vec4 sum = vec4(0.0);
        [[unroll]] for (uint j = 0; j < W; j++) {
            uint t = clamp(int(e) - int(j), 0, int(a.tokens) - 1);
            vec4 part = CONV_LOAD4(w, j, c) * CONV_LOAD4(dy, b * a.tokens + t, c);
            sum += t + j == e ? part : vec4(0.0);
        }
        if (a.given != 0u) {
            uint end = max(e, a.tokens) - a.tokens;
            vec4 part = CONV_LOAD4(dend, b * (W - 1u) + min(end, W - 2u), c);
            sum += e >= a.tokens ? part : vec4(0.0);
        }
        if (e >= W - 1u)
            CONV_STORE4(dx, b * a.tokens + e - (W - 1u), c, sum)
        else
            CONV_STORE4(dstart, b * (W - 1u) + e, c, sum)
    }
}
