// Rows of a causal convolution. E, the extended text of a batch row, is W-1 rows that came before,
// then the T rows of x. Lanes hold four channels each, the grid's y counts blocks of rows.
// Include after args/causal_conv.h.
layout(constant_id = 1) const bool QUADS = true; // C is a multiple of four
layout(constant_id = 2) const uint W = 4;        // taps

uint conv_channel() { return (gl_WorkGroupID.x * GROUP + gl_LocalInvocationID.x) * 4u; }

// Channels c .. c+3 of row `row`; beyond C they are 0 or those of the last quad.
#define CONV_LOAD4(name, row, c)                                                                   \
    (QUADS ? LOAD4(name, ((row) * a.channels + min(c, a.channels - 4u)) >> 2)                      \
           : vec4(CONV_LOAD1(name, row, c), CONV_LOAD1(name, row, (c) + 1u),                       \
                  CONV_LOAD1(name, row, (c) + 2u), CONV_LOAD1(name, row, (c) + 3u)))
#define CONV_LOAD1(name, row, c)                                                                   \
    ((c) < a.channels ? LOAD1(name, (row) * a.channels + (c)) : 0.0)
#define CONV_STORE4(name, row, c, x)                                                               \
    {                                                                                              \
        uint qn_b = (row) * a.channels;                                                            \
        vec4 qn_x = x;                                                                             \
        if (QUADS) {                                                                               \
            if ((c) < a.channels) name[(qn_b + (c)) >> 2] = qn_x;                                  \
        } else {                                                                                   \
            [[unroll]] for (uint qn_p = 0; qn_p < 4u; qn_p++)                                      \
                if ((c) + qn_p < a.channels) name##_1[qn_b + (c) + qn_p] = qn_x[qn_p];             \
        }                                                                                          \
    }

// The items of this group: item i is row a.first + i % a.count of batch row i / a.count.
#define EACH_CONV_ROW(b, e)                                                                        \
    for (uint qn_i = gl_WorkGroupID.y * a.block, qn_end = min(qn_i + a.block, a.batch * a.count),  \
              b = qn_i / a.count, e = a.first + qn_i % a.count;                                    \
         qn_i < qn_end; qn_i++, e++, b += e == a.first + a.count ? 1u : 0u,                        \
              e = e == a.first + a.count ? a.first : e)
