// counts[d, b] = how many keys of block b have digit d. keys i32 [n], counts u32 [DIGITS + 1, blocks].
// One invocation per block. Stable radix sort: count, scan, move; one such pass per digit.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/sort.h"
#include "digits.glsl"

BIND_TI(0, keys)
BIND_W(1, counts, uint)

void main()
{
    uint b = grid_item();
    if (b >= a.blocks) return;
    uint end = min((b + 1u) * a.block, a.count);
    uint total[DIGITS + 1u];
    [[unroll]] for (uint d = 0; d <= DIGITS; d++) total[d] = 0u;
    for (uint i = b * a.block; i < end; i += 4u) {
        uvec4 key = uvec4(LOAD4I(keys, i >> 2));
        [[unroll]] for (uint j = 0; j < 4u; j++) {
            uint digit = i + j < end ? digit_of(key[j]) : DIGITS + 1u;
            [[unroll]] for (uint d = 0; d <= DIGITS; d++) total[d] += digit == d ? 1u : 0u;
        }
    }
    [[unroll]] for (uint d = 0; d <= DIGITS; d++) counts[d * a.blocks + b] = total[d];
}
