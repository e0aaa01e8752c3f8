// param[b, at + t, :] = x[b, t, :], words of any meaning; positions outside [0, S) are dropped. EACH:
// param[at[b] + t, :] = x[b, t, :], the same with all rows of param in one line.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/assign_rows.h"

layout(constant_id = 1) const bool EACH = false;

BIND_R(0, at, int)
BIND_R(1, x, uint)
BIND_RW(2, param, uint)

void main()
{
    int start = EACH ? 0 : at[0];
    EACH4(i, a.count) {
        [[unroll]] for (uint c = 0; c < 4; c++) {
            uint e = 4 * i + c;
            if (e < a.count) {
                uint b = e / a.batch, inside = e - b * a.batch, t = inside / a.width;
                int s = (EACH ? at[b] : start) + int(t);
                if (s >= 0 && uint(s) < a.stride / a.width) // beyond 2^31 the sum is negative
                    param[(EACH ? 0 : b * a.stride) + uint(s) * a.width + inside - t * a.width] = x[e];
            }
        }
    }
}
