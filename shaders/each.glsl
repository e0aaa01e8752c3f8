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

// An output, written as vec4 (name) or, where the end cuts a vec4, as float (name_1).
#define BIND_OUT(b, name) BIND_W(b, name, vec4) BIND_W(b, name##_1, float)

// name[i] = value(i) for all of this invocation's vec4s. At most one of them is cut off by the end;
// it is kept out of the loop, as CPU drivers pay for both sides of a branch.
#define EACH_STORE(name, count, value)                                                             \
    {                                                                                              \
        uint i = each_first(), qn_end = i + GROUP * PER;                                           \
        for (; i < qn_end && 4 * i + 4 <= (count); i += GROUP) name[i] = value(i);                 \
        if (i < qn_end && 4 * i < (count)) {                                                       \
            vec4 qn_v = value(i);                                                                  \
            [[unroll]] for (uint qn_c = 0; qn_c < 4; qn_c++)                                       \
                if (4 * i + qn_c < (count)) name##_1[4 * i + qn_c] = qn_v[qn_c];                   \
        }                                                                                          \
    }
