// Gradient of causal_conv.comp to w, partial sums over blocks of rows:
//   partial[block][j] = sum over the block's rows of dy[b, t] E[b, t + j]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/causal_conv.h"
#include "convolution/causal_conv.glsl"

layout(constant_id = 3) const bool HEAD = false; // the rows t < W-1, which reach what came before

BIND_T(0, x)
BIND_T(1, start)
BIND_T(2, dy)
BIND_OUT(3, partial)

vec4 extended(uint b, uint e, uint c)
{
    vec4 v = CONV_LOAD4(x, b * a.tokens + max(e, W - 1u) - (W - 1u), c);
    if (!HEAD) return v;
    vec4 before = vec4(0.0);
    if (a.given != 0u) before = CONV_LOAD4(start, b * (W - 1u) + min(e, W - 2u), c);
    return e < W - 1u ? before : v;
}

void main()
{
    uint c = conv_channel();
    vec4 sum[W];
    [[unroll]] for (uint j = 0; j < W; j++) sum[j] = vec4(0.0);
    EACH_CONV_ROW(b, t) {
        vec4 d = CONV_LOAD4(dy, b * a.tokens + t, c);
        [[unroll]] for (uint j = 0; j < W; j++) sum[j] += d * extended(b, t + j, c);
    }
    [[unroll]] for (uint j = 0; j < W; j++)
        CONV_STORE4(partial, (a.to + gl_WorkGroupID.y) * W + j, c, sum[j])
}
