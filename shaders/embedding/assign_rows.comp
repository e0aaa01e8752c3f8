// param[b, at + t, :] = x[b, t, :], words of any meaning; positions outside [0, S) are dropped.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/assign_rows.h"

BIND_R(0, at, int)
BIND_R(1, x, uint)
BIND_RW(2, param, uint)

void main()
{
    int start = at[0];
    EACH4(i, a.count) {
        [[unroll]] for (uint c = 0; c < 4; c++) {
            uint e = 4 * i + c;
            if (e < a.count) {
                uint b = e / a.batch, inside = e - b * a.batch, t = inside / a.width;
                int s = start + int(t);
                if (s >= 0 && uint(s) < a.stride / a.width) // beyond 2^31 the sum is negative
                    param[b * a.stride + uint(s) * a.width + inside - t * a.width] = x[e];
            }
        }
    }
}
