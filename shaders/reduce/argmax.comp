// y[r] = index of the largest of x[r, :], the lowest on ties; 0 where nothing compares greater.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/argmax.h"
#include "row_walk.glsl"

BIND_T(0, x)
BIND_W(1, y, uint)

void main()
{
    const float lowest = uintBitsToFloat(0xff800000u); // -infinity, only compared
    const uint none = 0xffffffffu;
    EACH_ROW(row) {
        float best = lowest;
        uint at = none;
        EACH_IN_ROW(i, row) {
            vec4 v = LOAD_ROW(x, i, row, lowest);
            [[unroll]] for (uint c = 0; c < 4; c++) {
                bool better = v[c] > best;
                best = better ? v[c] : best;
                at = better ? 4 * i + c : at;
            }
        }
        float top = row_max(best);
        uint first = row_min(best == top ? at : none);
        if (row_leader()) y[row] = first == none ? 0 : first - row * a.width;
    }
}
