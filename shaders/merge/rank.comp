// Ranked random masks: the bins of rank.glsl for every row (STEP 0 largest key, 1 counts, 2 sums
// before each bin), and the elements whose fate the bins leave open (STEP 3): their rank is counted
// out, equal magnitudes in order of their index. One invocation per row in steps 0 to 2 of the flat
// form, which spares it atomics; else one group per row, and per open element in step 3. [della]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/merge_rank.h"
layout(constant_id = 1) const uint STEP = 0;
layout(constant_id = 2) const uint ALIGNED = 1;
layout(constant_id = 3) const uint RANKED = 10;
#include "merge/merge.glsl"
#include "reduce.glsl"
#include "merge/rank.glsl"

BIND_X(0, x)
BIND_X(1, base)
BIND_RW(2, table, uint)
BIND_RW(3, masks, uint)
BIND_R(4, open, uint)

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

void count_out()
{
    uint item = group_index();
    if (item >= open[0]) return;
    uint g = open[1 + item], e = g - a.first, row = e / a.width, column = e - row * a.width;
    uint mine = row_keys(row, column & ~3u)[column & 3u];
    uint below = 0;
    for (uint c = 4 * gl_LocalInvocationID.x; c < a.width; c += 4 * GROUP) {
        uvec4 key = row_keys(row, c);
        [[unroll]] for (uint j = 0; j < 4; j++)
            below += uint(key[j] < mine || (key[j] == mine && c + j < column));
    }
    uint rank = uint(group_sum(float(below))); // exact below 2^24
    uvec4 u = philox(uvec4(g >> 2, 0u, a.stream, a.model), uvec2(a.seed_low, a.seed_high)) >> 8;
    float chance = float(u[g & 3u]) * (1.0 / 16777216.0);
    if (gl_LocalInvocationID.x == 0 && chance < rank_chance(rank, a.lowest, a.slope))
        atomicOr(masks[a.mask + (g >> 5)], 1u << (g & 31u));
}

void main()
{
    if (STEP < 3)
        bins();
    else
        count_out();
}
