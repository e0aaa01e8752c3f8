// Octets: eight neighbouring invocations that share their work. Include after types.glsl.
//
//   PICK(v, u, direct)  the value v of invocation u of the octet; `direct` is an expression for the
//                       same value, used where no shuffle is to be had
//   octet_sum(v)        v[u] summed over the octet, for u = the invocation's own place in it
//
// SHUFFLE: 0, or the subgroup size when it is 8 or a multiple and subgroup lanes are neighbours.
// Without it sums go through shared memory with barriers, so octet_sum() needs uniform control flow.
layout(constant_id = 1) const uint SHUFFLE = 0;

uint lane8() { return gl_LocalInvocationID.x & 7u; }

shared float octet_memory[SHUFFLE != 0u ? 1u : GROUP * 9u];

#ifdef QN_FLAT
uint octet_lane(uint u) { return SHUFFLE == 8u ? u : (gl_SubgroupInvocationID & ~7u) + u; }
#define PICK(v, u, direct) (SHUFFLE != 0u ? subgroupShuffle(v, octet_lane(u)) : (direct))

// Halves, quarters, eighths: each invocation keeps the part that holds its own sum.
float octet_sum_shuffled(float v[8])
{
    uint lane = lane8();
    float a[4], b[2];
    [[unroll]] for (uint i = 0; i < 4; i++) {
        bool high = (lane & 4u) != 0u;
        float given = high ? v[i] : v[i + 4u];
        a[i] = (high ? v[i + 4u] : v[i]) + subgroupShuffleXor(given, 4u);
    }
    [[unroll]] for (uint i = 0; i < 2; i++) {
        bool high = (lane & 2u) != 0u;
        float given = high ? a[i] : a[i + 2u];
        b[i] = (high ? a[i + 2u] : a[i]) + subgroupShuffleXor(given, 2u);
    }
    bool high = (lane & 1u) != 0u;
    float given = high ? b[0] : b[1];
    return (high ? b[1] : b[0]) + subgroupShuffleXor(given, 1u);
}
#else
#define PICK(v, u, direct) (direct)
float octet_sum_shuffled(float v[8]) { return 0.0; } // SHUFFLE is 0
#endif

float octet_sum_shared(float v[8])
{
    uint t = gl_LocalInvocationID.x, first = t & ~7u;
    barrier(); // the last sums have been read
    [[unroll]] for (uint u = 0; u < 8; u++) octet_memory[t * 9u + u] = v[u];
    barrier();
    float s[8];
    [[unroll]] for (uint i = 0; i < 8; i++) s[i] = octet_memory[(first + i) * 9u + (t & 7u)];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

float octet_sum(float v[8])
{
    if (SHUFFLE != 0u) return octet_sum_shuffled(v);
    return octet_sum_shared(v);
}
