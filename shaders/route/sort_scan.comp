// start[i] = counts[0] + ... + counts[i - 1]. u32 [count]. One workgroup, which goes over tiles of
// four values per invocation and carries the sum.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "args.h"
#include "args/sort_scan.h"

BIND_TI(0, counts)
BIND_W(1, start, uint)

#ifdef QN_FLAT
// Sum over the lanes up to and including this one.
uint inclusive_sum(uint x) { return subgroupInclusiveAdd(x); }
uint last_of(uint x) { return subgroupShuffle(x, GROUP - 1u); }
#else
shared uint partial[GROUP];

uint inclusive_sum(uint x)
{
    uint lane = gl_LocalInvocationID.x;
    partial[lane] = x;
    barrier();
    for (uint step = 1u; step < GROUP; step *= 2u) {
        uint other = lane >= step ? partial[lane - step] : 0u;
        barrier();
        x += other;
        partial[lane] = x;
        barrier();
    }
    return x;
}

// Of the values last given to inclusive_sum(); all of them have been read before the next call.
uint last_of(uint x)
{
    uint last = partial[GROUP - 1u];
    barrier();
    return last;
}
#endif

void main()
{
    uint carry = 0u;
    for (uint tile = 0u; tile < a.count; tile += 4u * GROUP) {
        uint i = tile + 4u * gl_LocalInvocationID.x;
        uvec4 x = i < a.count ? uvec4(LOAD4I(counts, i >> 2)) : uvec4(0u);
        [[unroll]] for (uint j = 0; j < 4u; j++) x[j] = i + j < a.count ? x[j] : 0u;
        uint own = x.x + x.y + x.z + x.w, through = inclusive_sum(own);
        uint at = carry + through - own;
        [[unroll]] for (uint j = 0; j < 4u; j++) {
            if (i + j < a.count) start[i + j] = at;
            at += x[j];
        }
        carry += last_of(through);
    }
}
