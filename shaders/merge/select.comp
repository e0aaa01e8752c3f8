// One pass of the search for the k-th magnitude. MODE 0: how many keys lie below each of eight
// thresholds, [groups, 8]. MODE 1: the keys within [low, high), by invocation: first how many, then
// as many as there is room for. Keys: |x - base|, |x|, or the plane. Comparisons instead of a
// histogram, as CPU drivers do those eight at a time and scattered counters one by one.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_select.h"
layout(constant_id = 1) const uint HAS_BASE = 1;
layout(constant_id = 2) const uint PLANE = 0;
layout(constant_id = 3) const uint MODE = 0;
#include "merge/merge.glsl"
#include "reduce.glsl"

BIND_X(0, x)
BIND_X(1, base)
BIND_T(2, plane)
BIND_W(3, found, uint)

uvec4 key4(uint i)
{
    if (PLANE == 1) return keys_of(LOAD4(plane, i));
    return keys_of(HAS_BASE == 1 ? LOADX4(x, i) - LOADX4(base, i) : LOADX4(x, i));
}

// 1 where key < t; both below 2^31.
uint below(uvec4 key, uint t)
{
    uvec4 b = (key - t) >> 31;
    return (b.x + b.y) + (b.z + b.w);
}

void count(uint first, uint end)
{
    uint n0 = 0, n1 = 0, n2 = 0, n3 = 0, n4 = 0, n5 = 0, n6 = 0, n7 = 0;
    for (uint i = first; i < end; i += GROUP) {
        uvec4 key = key4(i);
        bvec4 in_ = lessThan(4 * i + uvec4(0, 1, 2, 3), uvec4(a.count));
        key = mix(uvec4(0x7fffffffu), key, in_); // below no threshold
        n0 += below(key, a.t0);
        n1 += below(key, a.t1);
        n2 += below(key, a.t2);
        n3 += below(key, a.t3);
        n4 += below(key, a.t4);
        n5 += below(key, a.t5);
        n6 += below(key, a.t6);
        n7 += below(key, a.t7);
    }
    uint at = 8 * (a.first + group_index());
    vec2 s0 = group_sum(vec2(n0, n1)), s1 = group_sum(vec2(n2, n3)); // exact below 2^24
    vec2 s2 = group_sum(vec2(n4, n5)), s3 = group_sum(vec2(n6, n7));
    if (gl_LocalInvocationID.x != 0) return;
    found[at] = uint(s0.x);
    found[at + 1] = uint(s0.y);
    found[at + 2] = uint(s1.x);
    found[at + 3] = uint(s1.y);
    found[at + 4] = uint(s2.x);
    found[at + 5] = uint(s2.y);
    found[at + 6] = uint(s3.x);
    found[at + 7] = uint(s3.y);
}

void hand_out(uint first, uint end)
{
    uint at = ((a.first + group_index()) * GROUP + gl_LocalInvocationID.x) * (a.room + 1), n = 0;
    for (uint i = first; i < end; i += GROUP) {
        uvec4 key = key4(i);
        uvec4 in_ = uvec4(lessThan(4 * i + uvec4(0, 1, 2, 3), uvec4(a.count)));
        bvec4 hit = notEqual(in_ & uvec4(lessThan(key - a.low, uvec4(a.high - a.low))), uvec4(0));
        [[unroll]] for (uint j = 0; j < 4; j++) {
            if (!hit[j]) continue;
            n++;
            if (n <= a.room) found[at + n] = key[j];
        }
    }
    found[at] = n;
}

void main()
{
    uint run = a.run * GROUP, first = group_index() * run + gl_LocalInvocationID.x;
    uint end = min((group_index() + 1) * run, (a.count + 3) / 4);
    if (MODE == 0)
        count(first, end);
    else
        hand_out(first, end);
}
