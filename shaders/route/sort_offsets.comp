// offsets[e] = how many of the sorted keys are below e, for e in [0, buckets]. keys i32 [n], the
// left-out ones last as -1. One binary search per invocation.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/sort_offsets.h"

BIND_TI(0, keys)
BIND_W(1, offsets, int)

void main()
{
    uint e = grid_item();
    if (e > a.buckets) return;
    uint low = 0u, high = a.count;
    while (low < high) {
        uint middle = (low + high) / 2u;
        if (uint(LOAD4I(keys, middle >> 2)[middle & 3u]) < e) // -1 reads as the largest key
            low = middle + 1u;
        else
            high = middle;
    }
    offsets[e] = int(low);
}
