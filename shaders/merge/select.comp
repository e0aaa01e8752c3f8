// How many keys fall into each of 256 bins of 2^shift keys, the first of which starts at low, and
// how many lie below: one pass of the search for the k-th magnitude. Keys: |x - base|, |x|, or the
// plane. Every invocation of the flat form counts for itself, 257 counters each; a group of the
// portable form counts in shared memory and adds to one set of them.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_select.h"
layout(constant_id = 1) const uint HAS_BASE = 1;
layout(constant_id = 2) const uint PLANE = 0;
#include "merge/merge.glsl"

BIND_X(0, x)
BIND_X(1, base)
BIND_T(2, plane)
BIND_RW(3, bins, uint)

const uint BINS = 256;

uvec4 key4(uint i)
{
    if (PLANE == 1) return keys_of(LOAD4(plane, i));
    return keys_of(HAS_BASE == 1 ? LOADX4(x, i) - LOADX4(base, i) : LOADX4(x, i));
}

#ifdef QN_FLAT
#define COUNT_ONE(b) bins[own + (b)]++
#else
shared uint counts[BINS];
#define COUNT_ONE(b) atomicAdd(counts[b], 1)
#endif

void main()
{
    uint run = a.run * GROUP, first = group_index() * run + gl_LocalInvocationID.x;
    uint end = min((group_index() + 1) * run, (a.count + 3) / 4);
#ifdef QN_FLAT
    uint own = (group_index() * GROUP + gl_LocalInvocationID.x) * (BINS + 1);
#else
    for (uint b = gl_LocalInvocationID.x; b < BINS; b += GROUP) counts[b] = 0;
    barrier();
#endif
    uvec4 below = uvec4(0);
    for (uint i = first; i < end; i += GROUP) {
        uvec4 key = key4(i), offset = key - a.low, bin = offset >> a.shift;
        uvec4 in_ = uvec4(lessThan(4 * i + uvec4(0, 1, 2, 3), uvec4(a.count)));
        below += in_ & uvec4(lessThan(key, uvec4(a.low)));
        bvec4 hit = notEqual(in_ & uvec4(greaterThanEqual(key, uvec4(a.low))) &
                             uvec4(lessThan(bin, uvec4(BINS))), uvec4(0));
        [[unroll]] for (uint j = 0; j < 4; j++)
            if (hit[j]) COUNT_ONE(bin[j]);
    }
    uint total = below.x + below.y + below.z + below.w;
#ifdef QN_FLAT
    bins[own + BINS] += total;
#else
    barrier();
    for (uint b = gl_LocalInvocationID.x; b < BINS; b += GROUP)
        if (counts[b] > 0) atomicAdd(bins[b], counts[b]);
    if (total > 0) atomicAdd(bins[BINS], total);
#endif
}
