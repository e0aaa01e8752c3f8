// Elementwise kernels: which vec4s an invocation owns, and stores that stop at the end. Include
// after types.glsl. The arguments of such a kernel begin with
//     u32 count; // elements in this window of the tensor
//     u32 first; // vec4s before the window
#ifdef QN_FLAT
const uint PER = 16; // vec4s per invocation: hides the cost of starting a group
#else
const uint PER = 1;
#endif

uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

// The first vec4 of this invocation; the next ones follow GROUP apart.
uint each_first() { return group_index() * (GROUP * PER) + gl_LocalInvocationID.x; }
#define EACH4(i, count)                                                                            \
    for (uint i = each_first(), qn_end = i + GROUP * PER; i < qn_end && 4 * i < (count); i += GROUP)

// An output written as vec4 (name) and, at edges, as float (name_1). CPU drivers write component by
// component anyway, each under its own mask.
#define BIND_OUT(b, name) BIND_W(b, name, vec4) BIND_W(b, name##_1, float)
#ifdef QN_FLAT
#define STORE4(name, i, value, count)                                                              \
    {                                                                                              \
        vec4 qn_v = value;                                                                         \
        [[unroll]] for (uint qn_c = 0; qn_c < 4; qn_c++)                                           \
            if (4 * (i) + qn_c < (count)) name##_1[4 * (i) + qn_c] = qn_v[qn_c];                   \
    }
#else
#define STORE4(name, i, value, count)                                                              \
    {                                                                                              \
        vec4 qn_v = value;                                                                         \
        if (4 * (i) + 4 <= (count))                                                                \
            name[i] = qn_v;                                                                        \
        else                                                                                       \
            for (uint qn_c = 0; 4 * (i) + qn_c < (count); qn_c++)                                  \
                name##_1[4 * (i) + qn_c] = qn_v[qn_c];                                             \
    }
#endif
