// write4(i, v, count): v to elements i..i+3 of the result, of which `count` belong to the row.
// BIND_RESULT(b, name) binds it. Rows are whole vec4s when ALIGNED; ADD adds to what is there.
#define BIND_RESULT(b, name)                                                                       \
    layout(set = 0, binding = b, std430) buffer name##_block { float name[]; };                    \
    layout(set = 0, binding = b, std430) buffer name##4_block { vec4 name##4[]; };                 \
    vec4 read4(uint i, uint count)                                                                 \
    {                                                                                              \
        if (ALIGNED) return name##4[i / 4];                                                        \
        vec4 v = vec4(0.0);                                                                        \
        [[unroll]] for (uint j = 0; j < 4; j++)                                                    \
            if (j < count) v[j] = name[i + j];                                                     \
        return v;                                                                                  \
    }                                                                                              \
    void write4(uint i, vec4 v, uint count)                                                        \
    {                                                                                              \
        if (ALIGNED) {                                                                             \
            name##4[i / 4] = v;                                                                    \
            return;                                                                                \
        }                                                                                          \
        [[unroll]] for (uint j = 0; j < 4; j++)                                                    \
            if (j < count) name[i + j] = v[j];                                                     \
    }
