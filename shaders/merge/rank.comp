// Ranked random masks: the bins of rank.glsl for every row (STEP 0 largest key, 1 counts, 2 sums
// before each bin); then the elements whose rank decides: by their bin (STEP 3), and where a bin holds
// both fates by counting the rank out (STEP 4), equal magnitudes in order of their index. Steps 0
// to 2: one invocation per row in the flat form, which spares it atomics, else one group; step 3:
// one invocation per list of reduce.comp; step 4: one group per element of the second list. [della]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/merge_rank.h"
layout(constant_id = 1) const uint STEP = 0;
layout(constant_id = 2) const uint ALIGNED = 1;
layout(constant_id = 3) const uint RANKED = 8;
#include "merge/merge.glsl"
#include "reduce.glsl"
#include "merge/rank.glsl"

BIND_X(0, x)
BIND_X(1, base)
BIND_RW(2, table, uint)
BIND_RW(3, masks, uint)
BIND_R(4, open, uint)
BIND_RW(5, doubtful, uint)

#define AT4(name, e) (ALIGNED == 1 ? LOADX4(name, (e) >> 2)                                        \
                                   : vec4(LOADX1(name, e), LOADX1(name, (e) + 1),                  \
                                          LOADX1(name, (e) + 2), LOADX1(name, (e) + 3)))

// Keys of elements c .. c + 3 of a row of this window; beyond its end 0xffffffff.
uvec4 row_keys(uint row, uint c)
{
    uint e = row * a.width + c;
    uvec4 key = keys_of(AT4(x, e) - AT4(base, e));
    return mix(uvec4(0xffffffffu), key, lessThan(c + uvec4(0, 1, 2, 3), uvec4(a.width)));
}

#ifdef QN_FLAT
uint my_row() { return group_index() * GROUP + gl_LocalInvocationID.x; }
const uint LANE = 0, LANES = 1;
uint row_max(uint m) { return m; }
#define COUNT_ONE(at) table[at]++
#else
uint my_row() { return group_index(); }
#define LANE gl_LocalInvocationID.x
#define LANES GROUP
uint row_max(uint m) { return ~group_min(~m); }
#define COUNT_ONE(at) atomicAdd(table[at], 1)
#endif

void bins()
{
    uint row = my_row(), at = row * rank_stride();
    if (row >= a.rows) return;
    if (STEP == 2) {
        if (LANE != 0) return;
        uint before = 0;
        for (uint b = 0; b < RANK_BINS; b++) {
            uint n = table[at + b];
            table[at + b] = before;
            before += n;
        }
        return;
    }
    uint most = STEP == 1 ? table[at + RANK_BINS] : 0;
    for (uint c = 4 * LANE; c < a.width; c += 4 * LANES) {
        uvec4 key = row_keys(row, c);
        [[unroll]] for (uint j = 0; j < 4; j++) {
            if (key[j] == 0xffffffffu) continue;
            if (STEP == 0) most = max(most, key[j]);
            if (STEP == 1) COUNT_ONE(at + rank_bin(key[j], most));
        }
    }
    if (STEP == 0) {
        most = row_max(most);
        if (LANE == 0) table[at + RANK_BINS] = most;
    }
}

uint key_of(uint e)
{
    return floatBitsToUint(LOADX1(x, e) - LOADX1(base, e)) & 0x7fffffffu;
}

float draw(uint g)
{
    uvec4 u = philox(uvec4(g >> 2, 0u, a.stream, a.model), uvec2(a.seed_low, a.seed_high)) >> 8;
    return float(u[g & 3u]) * (1.0 / 16777216.0);
}

void keep_element(uint g) { atomicOr(masks[a.mask + (g >> 5)], 1u << (g & 31u)); }

void by_bin()
{
    const uint SEGMENT = 4096; // of reduce.comp
    uint list = group_index() * GROUP + gl_LocalInvocationID.x;
    if (list >= a.items * GROUP) return;
    uint n = open[a.items * SEGMENT + list];
    for (uint i = 0; i < n; i++) {
        uint g = open[list * (SEGMENT / GROUP) + i], e = g - a.first, row = e / a.width;
        uint at = row * rank_stride(), bin = rank_bin(key_of(e), table[at + RANK_BINS]);
        uint from = table[at + bin], to = bin + 1 < RANK_BINS ? table[at + bin + 1] : a.width;
        float chance = draw(g);
        if (chance < rank_chance(from, a.lowest, a.slope))
            keep_element(g);
        else if (chance < rank_chance(to - 1, a.lowest, a.slope))
            doubtful[1 + atomicAdd(doubtful[0], 1)] = g;
    }
}

void count_out()
{
    uint item = group_index();
    if (item >= a.items) return;
    uint g = doubtful[1 + item], e = g - a.first, row = e / a.width, column = e - row * a.width;
    uint mine = key_of(e), below = 0;
    for (uint c = 4 * gl_LocalInvocationID.x; c < a.width; c += 4 * GROUP) {
        uvec4 key = row_keys(row, c);
        [[unroll]] for (uint j = 0; j < 4; j++)
            below += uint(key[j] < mine || (key[j] == mine && c + j < column));
    }
    uint rank = uint(group_sum(float(below))); // exact below 2^24
    if (gl_LocalInvocationID.x == 0 && draw(g) < rank_chance(rank, a.lowest, a.slope))
        keep_element(g);
}

void main()
{
    if (STEP < 3)
        bins();
    else if (STEP == 3)
        by_bin();
    else
        count_out();
}
