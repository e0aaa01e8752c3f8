// probs = softmax(logits); the `choices` experts of each row and their probabilities.
// logits [N, E], seed i32 -> probs [N, E], gates [N, K], experts i32 [N, K]. [moduleformer]
//
// An invocation owns a row. The best experts are found by their logits, which order as the
// probabilities do but never fall together by rounding: choice s + 1 is the greatest one behind
// choice s in the total order (logit descending, index ascending), so no list of the taken ones
// is kept and every choice is a different, existing expert even where logits are NaN.
//
// The sampled choices are a race: expert e arrives after an exponentially distributed time of
// rate p_e + 1e-6, and the first ones to arrive win. That is drawing without replacement with
// these weights.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "math.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/route.h"
#include "rows.glsl"

BIND_T(0, logits)
BIND_R(1, seed, uint)
BIND_OUT(2, probs)
BIND_W(3, gates, float)
BIND_W(4, experts, int)

const int NOBODY = -1;

// Integers that compare as the floats do, -0 equal to 0, NaN beyond the infinities.
ivec4 rank_of(vec4 x)
{
    ivec4 bits = mix(floatBitsToInt(x), ivec4(0), equal(x, vec4(0.0)));
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

struct Softmax {
    float top, scale; // probability of z: exp(z - top) * scale
};

float probability(Softmax s, float z) { return exp_exact(z - s.top) * s.scale; }

Softmax softmax(uint row)
{
    Softmax s = Softmax(max4(ROW4(logits, row, 0u)), 1.0);
    for (uint c = 1u; c < row_chunks(); c++) s.top = max(s.top, max4(ROW4(logits, row, c)));
    vec4 sum = vec4(0.0);
    for (uint c = 0u; c < row_chunks(); c++)
        sum += exp_exact(ROW4(logits, row, c) - s.top) * row_mask(c);
    s.scale = 1.0 / sum4(sum);
    for (uint c = 0u; c < row_chunks(); c++)
        STORE_ROW4(probs, row, c, exp_exact(ROW4(logits, row, c) - s.top) * s.scale)
    return s;
}

// A place in the order of the best. Nobody is before START.
struct Best {
    int rank, expert;
    float z;
};
const Best START = Best(0x7fffffff, NOBODY, 0.0);

bool is_behind(Best b, int rank, int e)
{
    return rank < b.rank || (rank == b.rank && e > b.expert);
}

Best next_best(uint row, Best last)
{
    Best best = Best(0, NOBODY, 0.0);
    for (uint c = 0u; c < row_chunks(); c++) {
        vec4 z = ROW4(logits, row, c);
        ivec4 rank = rank_of(z);
        [[unroll]] for (uint j = 0; j < 4u; j++) {
            int e = int(4u * c + j);
            bool wins = e < int(a.experts) && is_behind(last, rank[j], e) &&
                        (best.expert == NOBODY || rank[j] > best.rank);
            best.rank = wins ? rank[j] : best.rank;
            best.expert = wins ? e : best.expert;
            best.z = wins ? z[j] : best.z;
        }
    }
    return best;
}

// -log(1 - x) for a uniform x, relatively exact where x is small and the arrival early.
float exponential(uint bits)
{
    float x = (float(bits) + 0.5) * 2.3283064e-10; // 2^-32
    return x <= 0.5 ? log1p_unit(x / (1.0 - x)) : -log_exact(1.0 - x);
}

struct Arrival {
    int time, expert; // the bits of a time >= 0 order as the time does
    float z;
};

// The first to arrive after `last`, other than the ones not behind `taken`.
Arrival next_arrival(uint row, Softmax s, Best taken, Arrival last)
{
    Arrival first = Arrival(0, NOBODY, 0.0);
    for (uint c = 0u; c < row_chunks(); c++) {
        vec4 z = ROW4(logits, row, c);
        ivec4 rank = rank_of(z);
        uvec4 bits = random4(seed[0], a.stream, row * row_chunks() + c);
        [[unroll]] for (uint j = 0; j < 4u; j++) {
            int e = int(4u * c + j);
            float weight = probability(s, z[j]) + 1e-6;
            int time = floatBitsToInt(exponential(bits[j]) / weight) & 0x7fffffff;
            bool wins = e < int(a.experts) && is_behind(taken, rank[j], e) &&
                        (time > last.time || (time == last.time && e > last.expert)) &&
                        (first.expert == NOBODY || time < first.time);
            first.time = wins ? time : first.time;
            first.expert = wins ? e : first.expert;
            first.z = wins ? z[j] : first.z;
        }
    }
    return first;
}

void choose(uint slot, Softmax s, int expert, float z)
{
    gates[slot] = probability(s, z);
    experts[slot] = expert;
}

void main()
{
    uint row = grid_item();
    if (row >= a.rows) return;
    Softmax s = softmax(row);
    uint slot = row * a.choices;
    Best best = START;
    for (uint i = a.sampled; i < a.choices; i++) {
        best = next_best(row, best);
        choose(slot++, s, best.expert, best.z);
    }
    Arrival arrival = Arrival(-1, NOBODY, 0.0);
    for (uint i = 0u; i < a.sampled; i++) {
        arrival = next_arrival(row, s, best, arrival);
        choose(slot++, s, arrival.expert, arrival.z);
    }
}
