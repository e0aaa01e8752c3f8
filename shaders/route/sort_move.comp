// Moves each key, and the position it had at first, to its place after this pass.
// keys, order i32 [n], start u32 [DIGITS + 1, blocks] -> moved_keys, moved_order i32 [n].
// One invocation per block walks it in order, which makes the pass stable.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/sort.h"
#include "digits.glsl"

BIND_TI(0, keys)
BIND_TI(1, order)
BIND_R(2, start, uint)
BIND_W(3, moved_keys, int)
BIND_W(4, moved_order, int)

void main()
{
    uint b = grid_item();
    if (b >= a.blocks) return;
    uint end = min((b + 1u) * a.block, a.count);
    uint next[DIGITS + 1u];
    [[unroll]] for (uint d = 0; d <= DIGITS; d++) next[d] = start[d * a.blocks + b];
    for (uint i = b * a.block; i < end; i += 4u) {
        ivec4 key = LOAD4I(keys, i >> 2), from = ivec4(i) + ivec4(0, 1, 2, 3);
        if (a.first == 0u) from = LOAD4I(order, i >> 2);
        [[unroll]] for (uint j = 0; j < 4u; j++) {
            uint digit = digit_of(uint(key[j])), at = 0u;
            [[unroll]] for (uint d = 0; d <= DIGITS; d++) {
                at = digit == d ? next[d] : at;
                next[d] += digit == d ? 1u : 0u;
            }
            if (i + j < end) {
                moved_keys[at] = digit == DIGITS ? -1 : key[j];
                moved_order[at] = digit == DIGITS ? -1 : from[j];
            }
        }
    }
}
