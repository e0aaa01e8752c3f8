// Rows of ROW_WIDTH values read and written four at a time, whatever the width. After types.glsl,
// each.glsl and the arguments.
#ifndef ROW_WIDTH
#define ROW_WIDTH a.experts
#endif
layout(constant_id = 1) const uint ALIGNED = 1; // the width is a multiple of four

uint row_chunks() { return (ROW_WIDTH + 3u) >> 2; }

// Values 4c .. 4c+3 of a row of a 't' binding; those behind the row's end repeat its last one.
#define ROW4(name, row, c)                                                                         \
    (ALIGNED != 0u ? LOAD4(name, (row) * (ROW_WIDTH >> 2) + (c))                                   \
                   : vec4(ROW1(name, row, 4u * (c)), ROW1(name, row, 4u * (c) + 1u),               \
                          ROW1(name, row, 4u * (c) + 2u), ROW1(name, row, 4u * (c) + 3u)))
#define ROW1(name, row, e) LOAD1(name, (row) * ROW_WIDTH + min(e, ROW_WIDTH - 1u))

// Writes the existing ones of values 4c .. 4c+3 of a row of a BIND_OUT binding.
#define STORE_ROW4(name, row, c, value)                                                            \
    {                                                                                              \
        vec4 qn_w = value;                                                                         \
        if (ALIGNED != 0u)                                                                         \
            name[(row) * (ROW_WIDTH >> 2) + (c)] = qn_w;                                           \
        else                                                                                       \
            [[unroll]] for (uint qn_j = 0; qn_j < 4u; qn_j++)                                      \
                if (4u * (c) + qn_j < ROW_WIDTH)                                                   \
                    name##_1[(row) * ROW_WIDTH + 4u * (c) + qn_j] = qn_w[qn_j];                    \
    }

// 1 for the columns of chunk c that exist, else 0.
vec4 row_mask(uint c)
{
    return vec4(lessThan(uvec4(4u * c) + uvec4(0u, 1u, 2u, 3u), uvec4(ROW_WIDTH)));
}

float sum4(vec4 x) { return (x.x + x.y) + (x.z + x.w); }
float max4(vec4 x) { return max(max(x.x, x.y), max(x.z, x.w)); }
