// Sums over segments of 4096 elements, the segments of a row one after the other; the host adds
// them up in double precision, so that the result depends on nothing but the tensor. Some modes
// write masks on their way, one bit for each element. d = x - base.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "args.h"
#include "args/merge_reduce.h"
layout(constant_id = 1) const uint MODE = 0;
const uint GRAM = 0;    // x.x, x.z, z.z, of the differences when HAS_BASE
const uint L1 = 1;      // sum |d|, sum |d| kept
const uint SQUARES = 2; // sum d^2 kept
const uint DRAW = 3;    // L1, and the mask drawn at random
const uint LOGSUM = 4;  // the largest m of base, sum exp(base - m), sum exp(base - m) (exp(d) - 1)
const uint DIVERGE = 5; // sum of p log(p / q), p and q the softmax of x and base plus 1e-8 each
const uint EQUAL = 6;   // keys equal to `low`
const uint SHARED = 7;  // |d| > epsilon: where the plane (models that differ) is above 1, and is 1
const uint MARK = 8;    // the mask of the keys that are kept
layout(constant_id = 2) const uint HAS_BASE = 1;
layout(constant_id = 3) const uint KEEP = 0;    // 0: all, 1: by key, 2: by mask
layout(constant_id = 4) const uint PLANE = 0;   // keys are those of the plane
layout(constant_id = 5) const uint ALIGNED = 1; // rows are whole vec4s
layout(constant_id = 6) const uint RANKED = 0;  // draws depend on ranks
layout(constant_id = 7) const uint LOW_BELOW = 0; // see kept_keys()
#include "merge/merge.glsl"
#include "reduce.glsl"

BIND_X(0, x)
BIND_X(1, z)
BIND_X(2, base)
BIND_T(3, plane)
BIND_RW(4, masks, uint)
BIND_R(5, table, uint) // DIVERGE: per row the shift of x and the log-sum of base
BIND_W(6, open, uint) // ranked: lists of elements, [segments, GROUP, SEGMENT / GROUP], their lengths
BIND_W(7, sums, float) // [segments, 3]

const uint SEGMENT = 4096;

#define AT4(name, e) (ALIGNED == 1 ? LOADX4(name, (e) >> 2)                                        \
                                   : vec4(LOADX1(name, e), LOADX1(name, (e) + 1),                  \
                                          LOADX1(name, (e) + 2), LOADX1(name, (e) + 3)))

float sum4(vec4 v) { return (v.x + v.y) + (v.z + v.w); }

// exp(d) - 1 and (1 + r) log(1 + r) - r: series where the direct form would cancel.
float expm1_near(float d)
{
    float p = d * (1.0 / 6.0 + d * (1.0 / 24.0 + d * (1.0 / 120.0 + d * (1.0 / 720.0))));
    return abs(d) < 0.125 ? d * (1.0 + d * (0.5 + p)) : exp_exact(d) - 1.0;
}

float excess(float r)
{
    float p = 1.0 / 30.0 + r * (-1.0 / 42.0 + r * (1.0 / 56.0 + r * (-1.0 / 72.0 + r / 90.0)));
    p = 0.5 + r * (-1.0 / 6.0 + r * (1.0 / 12.0 + r * (-1.0 / 20.0 + r * p)));
    return abs(r) < 0.125 ? r * r * p : (1.0 + r) * log_exact(1.0 + r) - r;
}

float divergence(float d, float b, float shift, float logsum)
{
    float q = exp_exact(b - logsum), floor_ = q + 1e-8;
    float delta = q * expm1_near(d - shift);
    return floor_ * excess(delta / floor_);
}

// Ranked: this invocation's list of elements that need their rank, and how many there are.
uint list_at = 0, listed = 0;

// Elements e .. e + 3 of the tensor: their bits of the mask; `open` takes what needs a rank.
uint draw4(vec4 d, uint e, bvec4 in_)
{
    uvec4 u = philox(uvec4(e >> 2, 0u, a.stream, a.model), uvec2(a.seed_low, a.seed_high)) >> 8;
    uint bits = 0;
    [[unroll]] for (uint j = 0; j < 4; j++) {
        if (!in_[j]) continue;
        if (RANKED == 0) {
            bits |= uint(u[j] < a.drawn) << j;
            continue;
        }
        // Certain below the probability of rank 0 and above that of the last one; else listed.
        float chance = float(u[j]) * (1.0 / 16777216.0);
        bool kept = chance < a.lowest;
        bits |= uint(kept) << j;
        if (chance < a.highest && !kept && d[j] != 0.0) open[list_at + listed++] = e + j;
    }
    return bits;
}

// Adds elements e .. e + 3 of this window to s; returns their bits of the mask that is written.
uint add4(uint e, uint end, uint word, uint row, inout vec4 s[3], float high)
{
    bvec4 in_ = lessThan(e + uvec4(0, 1, 2, 3), uvec4(end));
    uint g = a.first + e;
    vec4 v = vec4(0.0), b = vec4(0.0);
    if (!((MODE == MARK || MODE == EQUAL) && PLANE == 1)) v = AT4(x, e);
    if (HAS_BASE == 1) b = AT4(base, e);
    vec4 d = mix(vec4(0.0), v - b, in_);
    uvec4 key = PLANE == 1 ? keys_of(LOAD4(plane, e >> 2)) : keys_of(d);
    bvec4 keep = in_;
    if (KEEP == 1) {
        bvec4 k = kept_keys(key, g, a.low, a.low_index, LOW_BELOW == 1, a.high, a.high_index);
        keep = notEqual(uvec4(keep) & uvec4(k), uvec4(0));
    }
    if (KEEP == 2) keep = notEqual(uvec4(keep) & uvec4(bits4(word, g & 31u)), uvec4(0));
    uint bits = 0;
    if (MODE == GRAM) {
        vec4 f = mix(vec4(0.0), AT4(z, e) - b, in_);
        s[0] += d * d;
        s[1] += d * f;
        s[2] += f * f;
    } else if (MODE == DRAW) {
        bits = draw4(d, g, in_);
        s[0] += abs(d);
        s[1] += mix(vec4(0.0), abs(d), bits4(bits, 0u));
    } else if (MODE == L1) {
        s[0] += abs(d);
        s[1] += mix(vec4(0.0), abs(d), keep);
    } else if (MODE == SQUARES) {
        s[0] += mix(vec4(0.0), d * d, keep);
    } else if (MODE == EQUAL) {
        s[0] += vec4(uvec4(equal(key, uvec4(a.low))) & uvec4(in_));
    } else if (MODE == SHARED) {
        uvec4 hit = uvec4(greaterThan(abs(d), vec4(a.epsilon))) & uvec4(in_);
        vec4 models = LOAD4(plane, e >> 2);
        s[0] += vec4(hit & uvec4(greaterThan(models, vec4(1.0))));
        s[1] += vec4(hit & uvec4(equal(models, vec4(1.0))));
    } else if (MODE == MARK) {
        uvec4 k = uvec4(keep);
        bits = k.x | k.y << 1 | k.z << 2 | k.w << 3;
    } else if (MODE == LOGSUM) {
        [[unroll]] for (uint j = 0; j < 4; j++) {
            float t = in_[j] ? exp_exact(b[j] - high) : 0.0;
            s[0][j] += t;
            s[1][j] += in_[j] ? t * expm1_near(d[j]) : 0.0;
        }
    } else if (MODE == DIVERGE) {
        float shift = uintBitsToFloat(table[2 * row]), logsum = uintBitsToFloat(table[2 * row + 1]);
        [[unroll]] for (uint j = 0; j < 4; j++)
            s[0][j] += in_[j] ? divergence(d[j], b[j], shift, logsum) : 0.0;
    }
    return bits;
}

// The largest element of base in [start, end).
float highest(uint start, uint end)
{
    float m = -3.40282347e38;
    for (uint e = start + 4 * gl_LocalInvocationID.x; e < end; e += 4 * GROUP) {
        vec4 b = AT4(base, e);
        [[unroll]] for (uint j = 0; j < 4; j++) m = e + j < end ? max(m, b[j]) : m;
    }
    return group_max(m);
}

void main()
{
    uint segment = group_index();
    if (segment >= a.rows * a.parts) return;
    uint row = segment / a.parts, start = row * a.width + (segment - row * a.parts) * SEGMENT;
    uint end = min(start + SEGMENT, (row + 1) * a.width);
    float high = 0.0;
    if (MODE == LOGSUM) high = highest(start, end);
    list_at = segment * SEGMENT + gl_LocalInvocationID.x * (SEGMENT / GROUP);
    vec4 sum[3] = vec4[3](vec4(0.0), vec4(0.0), vec4(0.0));
    for (uint e = start + 32 * gl_LocalInvocationID.x; e < end; e += 32 * GROUP) {
        vec4 s[3] = vec4[3](vec4(0.0), vec4(0.0), vec4(0.0)); // two levels: less rounding
        uint at = a.mask + ((a.first + e) >> 5), word = 0, made = 0;
        if (KEEP == 2) word = masks[at];
        [[unroll]] for (uint k = 0; k < 8; k++)
            made |= add4(e + 4 * k, end, word, row, s, high) << 4 * k;
        if (MODE == DRAW || MODE == MARK) masks[at] = made;
        sum[0] += s[0];
        sum[1] += s[1];
        sum[2] += s[2];
    }
    if (RANKED == 1)
        open[a.parts * SEGMENT + segment * GROUP + gl_LocalInvocationID.x] = listed;
    if (MODE == MARK) return;
    vec2 t = group_sum(vec2(sum4(sum[0]), sum4(sum[1])));
    float u = group_sum(sum4(sum[2]));
    if (gl_LocalInvocationID.x == 0) {
        uint o = 3 * (a.segment + segment);
        sums[o] = MODE == LOGSUM ? high : t.x;
        sums[o + 1] = MODE == LOGSUM ? t.x : t.y;
        sums[o + 2] = MODE == LOGSUM ? t.y : u;
    }
}
