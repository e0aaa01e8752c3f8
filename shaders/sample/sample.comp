// Chooses a token of each row of changed logits: see qn_sample() in graph/include/quoin/ops.h.
// A group per row. What is left out is everything below a cut, found digit by digit: the largest key
// (the bits of a logit, ordered like the logits) such that the keys from it on weigh enough.
// The draw is a race: the token with the largest logit / T + g, g a Gumbel number of its own,
// wins with probability softmax(logits / T), whatever has been left out.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "math.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/sample.h"

BIND_T(0, logits)
BIND_T(1, changed)
BIND_R(2, how, int)
BIND_W(3, token, int)
BIND_W(4, logprob, float)
BIND_W(5, total, float)
#include "matmul/load_any.glsl"
DEFINE_LOAD_ANY(any_logits, LOAD4, logits)

const float NONE = -3.40282347e38; // below every logit that counts
const uint UNROLL = 4;             // vec4s of a round

// The vec4s of the row, UNROLL in a round; those beyond the end repeat the last one's place.
#define EACH_VEC4(i)                                                                               \
    for (uint qn_i = gl_LocalInvocationID.x; qn_i < a.stride / 4; qn_i += GROUP * UNROLL)          \
        [[unroll]] for (uint qn_u = 0, i = qn_i; qn_u < UNROLL; qn_u++, i += GROUP)

uint row;

vec4 changed4(uint i)
{
    vec4 x = LOAD4(changed, (row * a.stride >> 2) + min(i, a.stride / 4 - 1));
    bvec4 counts = lessThanEqual(abs(x), vec4(-NONE)); // neither infinite nor NaN
    return i < a.stride / 4 ? mix(vec4(2.0 * NONE), x, counts) : vec4(2.0 * NONE);
}

float max4(vec4 v) { return max(max(v.x, v.y), max(v.z, v.w)); }

uint key_of(float x)
{
    uint bits = floatBitsToUint(x);
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The largest key t such that the logits whose keys are at least t and at least `from` weigh `goal`
// or more; 0 when all of them weigh less. MASS: a logit weighs exp(logit - top), otherwise 1.
uint find_cut(float goal, bool mass, float top, uint from)
{
    uint cut = 0;
    for (int shift = 30; shift >= 0; shift -= 3) {
        vec4 low = vec4(0.0), high = vec4(0.0); // weights from digit 0, 1, 2, 3 and 4, ... on
        EACH_VEC4(i) {
            vec4 x = changed4(i);
            [[unroll]] for (uint c = 0; c < 4; c++) {
                uint key = key_of(x[c]);
                float w = mass ? exp_exact(x[c] - top) : 1.0;
                w = x[c] >= NONE && key >= from ? w : 0.0;
                uint above = key >= cut ? min((key - cut) >> shift, 7u) : 0u;
                w = key >= cut ? w : 0.0;
                low += mix(vec4(0.0), vec4(w), greaterThanEqual(uvec4(above), uvec4(0, 1, 2, 3)));
                high += mix(vec4(0.0), vec4(w), greaterThanEqual(uvec4(above), uvec4(4, 5, 6, 7)));
            }
        }
        vec2 w01 = group_sum(low.xy), w23 = group_sum(low.zw);
        vec2 w45 = group_sum(high.xy), w67 = group_sum(high.zw);
        uint digit = w67.y >= goal ? 7u : w67.x >= goal ? 6u : w45.y >= goal ? 5u
                   : w45.x >= goal ? 4u : w23.y >= goal ? 3u : w23.x >= goal ? 2u
                   : w01.y >= goal ? 1u : 0u;
        cut += digit << shift;
    }
    return cut;
}

float mass_from(float top, uint from)
{
    float sum = 0.0;
    EACH_VEC4(i) {
        vec4 x = changed4(i);
        [[unroll]] for (uint c = 0; c < 4; c++)
            sum += x[c] >= NONE && key_of(x[c]) >= from ? exp_exact(x[c] - top) : 0.0;
    }
    return group_sum(sum);
}

// log of the sum of exp(logit) over the row as given.
float log_total()
{
    uint base = row * a.vocab, last = base + a.vocab - 1;
    float top = 2.0 * NONE, sum = 0.0;
    EACH_VEC4(i) {
        vec4 x = any_logits(base + 4 * i, last);
        [[unroll]] for (uint c = 0; c < 4; c++)
            top = max(top, 4 * i + c < a.vocab ? x[c] : top);
    }
    top = group_max(top);
    EACH_VEC4(i) {
        vec4 x = any_logits(base + 4 * i, last);
        [[unroll]] for (uint c = 0; c < 4; c++)
            sum += 4 * i + c < a.vocab ? exp_exact(x[c] - top) : 0.0;
    }
    return top + log_exact(group_sum(sum));
}

void main()
{
    row = group_index();
    if (row >= a.count) return;
    float t = intBitsToFloat(how[row * SAMPLE_HOW]), top_p = intBitsToFloat(how[row * SAMPLE_HOW + 1]);
    float min_p = intBitsToFloat(how[row * SAMPLE_HOW + 2]);
    int top_k = how[row * SAMPLE_HOW + 3];
    uvec2 seed = uvec2(how[row * SAMPLE_HOW + 4], how[row * SAMPLE_HOW + 5]);
    uint place = uint(how[row * SAMPLE_HOW + 6]);

    float top = 2.0 * NONE;
    EACH_VEC4(i) top = max(top, max4(changed4(i)));
    top = group_max(top);
    uint cut = 0;
    bool draws = t > 0.0;
    if (draws && top_k > 0 && uint(top_k) < a.vocab) cut = find_cut(float(top_k), false, top, 0);
    if (draws && top_p < 1.0) cut = max(cut, find_cut(max(top_p * mass_from(top, cut), 1e-20), true, top, cut));

    float best = 2.0 * NONE;
    uint at = 0xffffffffu;
    EACH_VEC4(i) {
        vec4 x = changed4(i), score = x;
        if (draws) {
            vec4 u = uniform_open(philox(uvec4(i, 0u, place, 0u), seed));
            [[unroll]] for (uint c = 0; c < 4; c++) {
                bool out_of_it = x[c] < NONE || key_of(x[c]) < cut || exp_exact(x[c] - top) < min_p;
                score[c] = out_of_it ? 2.0 * NONE : (x[c] - top) / t - log_exact(-log_exact(u[c]));
            }
        }
        [[unroll]] for (uint c = 0; c < 4; c++) {
            bool better = score[c] > best;
            best = better ? score[c] : best;
            at = better ? 4 * i + c : at;
        }
    }
    float winner = group_max(best);
    at = group_min(best == winner ? at : 0xffffffffu);
    float whole = log_total();
    if (gl_LocalInvocationID.x != 0) return;
    bool found = at < a.vocab && top >= NONE;
    token[row] = found ? int(at) : -1;
    uint e = row * a.vocab + (found ? at : 0);
    logprob[row] = found ? LOAD1(logits, e) - whole : 0.0;
    total[row] = whole;
}
