// out[n] = residual[n] + sum_s gates[n, s] y[n K + s], in slot order.
// y [N*K, C], gates [N, K], residual [N, C] -> [N, C]. A group takes rows a stride of all groups apart.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/combine.h"
#define ROW_WIDTH a.width
#include "rows.glsl"

layout(constant_id = 2) const uint CHOICES = 1; // K

BIND_T(0, y)
BIND_T(1, gates)
BIND_T(2, residual)
BIND_OUT(3, result)

void main()
{
    for (uint n = group_index(); n < a.rows; n += gl_NumWorkGroups.x * gl_NumWorkGroups.y) {
        float gate[CHOICES];
        [[unroll]] for (uint s = 0u; s < CHOICES; s++)
            gate[s] = a.gated != 0u ? LOAD1(gates, n * CHOICES + s) : 1.0;
        for (uint c = gl_LocalInvocationID.x; c < row_chunks(); c += GROUP) {
            vec4 sum = a.residual != 0u ? ROW4(residual, n, c) : vec4(0.0);
            [[unroll]] for (uint s = 0u; s < CHOICES; s++)
                sum += gate[s] * ROW4(y, n * CHOICES + s, c);
            STORE_ROW4(result, n, c, sum)
        }
    }
}
