// Entries begin .. end-1 of the most likely tokens of each row of logits, one after the other: the
// largest logit behind the entry before; ties go to the lower token. Rows that want fewer entries
// (word 7 of `how`) get -1 and 0. A group per row.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/sample.h"

BIND_T(0, logits)
BIND_R(1, how, int)
BIND_R(2, total, float)
BIND_RW(3, top, int)
BIND_RW(4, chance, float)
#include "matmul/load_any.glsl"
DEFINE_LOAD_ANY(any_logits, LOAD4, logits)

const uint UNROLL = 4;
const uint NOBODY = 0xffffffffu;

void main()
{
    uint row = group_index(), lane = gl_LocalInvocationID.x;
    if (row >= a.count) return;
    uint base = row * a.vocab, last = base + a.vocab - 1;
    uint wanted = min(uint(max(how[row * SAMPLE_HOW + 7], 0)), a.vocab);
    float whole = total[row], before = uintBitsToFloat(0x7f800000u);
    uint taken = NOBODY; // the entry before: its token, and `before` its logit
    if (a.begin > 0 && a.begin < wanted) {
        taken = uint(top[row * SAMPLE_TOP + a.begin - 1]);
        before = LOAD1(logits, base + min(taken, a.vocab - 1));
    }
    for (uint k = a.begin; k < a.end; k++) {
        float best = uintBitsToFloat(0xff800000u);
        uint at = NOBODY;
        for (uint i0 = lane; k < wanted && i0 < a.stride / 4; i0 += GROUP * UNROLL)
            [[unroll]] for (uint u = 0, i = i0; u < UNROLL; u++, i += GROUP) {
                vec4 x = any_logits(base + 4 * i, last);
                [[unroll]] for (uint c = 0; c < 4; c++) {
                    uint e = 4 * i + c;
                    bool behind = x[c] < before || (x[c] == before && e > taken && taken != NOBODY);
                    bool better = behind && e < a.vocab && x[c] > best;
                    best = better ? x[c] : best;
                    at = better ? e : at;
                }
            }
        float most = group_max(best);
        at = group_min(best == most ? at : NOBODY);
        before = most;
        taken = at;
        if (lane == 0) {
            bool is = k < wanted && at != NOBODY;
            top[row * SAMPLE_TOP + k] = is ? int(at) : -1;
            chance[row * SAMPLE_TOP + k] = is ? most - whole : 0.0;
        }
    }
}
