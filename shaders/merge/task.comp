// y = B + lambda sum_m k_m w_m d_m / V over the task vectors d_m = scale_m (x_m - B), thinned out by
// threshold or mask. With SIGNS a model counts (k_m) where its s_m d_m has the sign of their sum.
// More models than bindings: PHASE 1 sums s_m d_m into the state, PHASE 2 adds up the two sums under
// the elected sign; the last of these dispatches writes y. [ties] [dare] [della]
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/merge_task.h"
layout(constant_id = 1) const uint OUT = 0;
layout(constant_id = 2) const uint COUNT = 1;  // models
layout(constant_id = 3) const uint SIGNS = 0;
layout(constant_id = 4) const uint DIVIDE = 0; // by V = sum k_m w_m: 1: 0 counts as 1, 2: at least 1e-6
layout(constant_id = 5) const uint PHASE = 0;  // 0: all at once
layout(constant_id = 6) const uint PLACE = 0;  // bit 0: first dispatch of its phase, bit 1: last
layout(constant_id = 7) const uint THIN = 0;   // bit 0: some model has a threshold, bit 1: a mask
#include "merge/merge.glsl"

struct task_model {
    float sign_weight, weight, scale;
    uint kind; // 0 all, 1 by threshold, 2 by mask
    uint low, low_index, low_below, high, high_index;
    uint mask; // first word
};

BIND_X(0, base)
BIND_X(1, x0)
BIND_X(2, x1)
BIND_X(3, x2)
BIND_X(4, x3)
BIND_X(5, x4)
BIND_X(6, x5)
BIND_X(7, x6)
BIND_R(8, model, task_model)
BIND_R(9, masks, uint)
BIND_RW(10, state, vec4) // planes S, D, V of a window
BIND_STORED(11, y)

vec4 thinned(uint m, vec4 d, uint i)
{
    bvec4 keep = bvec4(true);
    uint e = a.first + 4 * i;
    if ((THIN & 1) == 1 && model[m].kind == 1)
        keep = kept_keys(keys_of(d), e, model[m].low, model[m].low_index, model[m].low_below == 1,
                         model[m].high, model[m].high_index);
    if ((THIN & 2) == 2 && model[m].kind == 2)
        keep = bits4(masks[model[m].mask + (e >> 5)], e & 31u);
    return THIN == 0 ? d : mix(vec4(0.0), model[m].scale * d, keep);
}

vec4 agrees(vec4 e, vec4 elected)
{
    if (SIGNS == 0) return vec4(1.0);
    return mix(vec4(lessThan(e, vec4(0.0))), vec4(greaterThan(e, vec4(0.0))),
               greaterThanEqual(elected, vec4(0.0)));
}

#define TAKE(m)                                                                                    \
    vec4 d##m = vec4(0.0);                                                                         \
    if (COUNT > m) d##m = thinned(m, LOADX4(x##m, i) - b, i);                                      \
    if (SIGNS == 1 && COUNT > m) s += model[m].sign_weight * d##m;
#define GIVE(m)                                                                                    \
    if (COUNT > m) {                                                                               \
        vec4 k = agrees(model[m].sign_weight * d##m, s);                                           \
        sum += k * (model[m].weight * d##m);                                                       \
        if (DIVIDE > 0) v += k * model[m].weight;                                                  \
    }

void main()
{
    bool first = (PLACE & 1) == 1, last = (PLACE & 2) == 2;
    EACH4(i, a.count) {
        vec4 b = LOADX4(base, i), s = vec4(0.0), sum = vec4(0.0), v = vec4(0.0);
        TAKE(0) TAKE(1) TAKE(2) TAKE(3) TAKE(4) TAKE(5) TAKE(6)
        if (PHASE == 1) {
            state[i] = first ? s : state[i] + s;
            continue;
        }
        if (PHASE == 2) s = state[i];
        if (PHASE == 2 && !first) {
            sum = state[a.plane + i];
            v = state[2 * a.plane + i];
        }
        GIVE(0) GIVE(1) GIVE(2) GIVE(3) GIVE(4) GIVE(5) GIVE(6)
        if (PHASE == 2 && !last) {
            state[a.plane + i] = sum;
            state[2 * a.plane + i] = v;
            continue;
        }
        if (DIVIDE == 1) sum /= mix(v, vec4(1.0), equal(v, vec4(0.0)));
        if (DIVIDE == 2) sum /= max(v, vec4(1e-6));
        STORE4(y, i, b + a.lambda * sum)
    }
}
