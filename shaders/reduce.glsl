// Reductions over a workgroup: by shared memory in the portable form, by the subgroup, which is the
// whole group, in the flat one. Include after types.glsl. In the portable form every invocation of
// the group must call them, and GROUP must be a power of two of at most 128.
#ifdef QN_FLAT
float group_sum(float x) { return subgroupAdd(x); }
vec2 group_sum(vec2 x) { return vec2(subgroupAdd(x.x), subgroupAdd(x.y)); }
float group_max(float x) { return subgroupMax(x); }
uint group_min(uint x) { return subgroupMin(x); }
#else
shared vec2 qn_tree[128];

vec2 group_sum(vec2 x)
{
    uint lane = gl_LocalInvocationID.x;
    barrier(); // the tree's last use is over
    qn_tree[lane] = x;
    for (uint n = GROUP / 2; n > 0; n /= 2) {
        barrier();
        if (lane < n) qn_tree[lane] += qn_tree[lane + n];
    }
    barrier();
    return qn_tree[0];
}

float group_sum(float x) { return group_sum(vec2(x, 0.0)).x; }

vec2 qn_group_max(vec2 x)
{
    uint lane = gl_LocalInvocationID.x;
    barrier();
    qn_tree[lane] = x;
    for (uint n = GROUP / 2; n > 0; n /= 2) {
        barrier();
        if (lane < n) qn_tree[lane] = max(qn_tree[lane], qn_tree[lane + n]);
    }
    barrier();
    return qn_tree[0];
}

float group_max(float x) { return qn_group_max(vec2(x)).x; }

shared uint qn_tree_uint[128];

uint group_min(uint x)
{
    uint lane = gl_LocalInvocationID.x;
    barrier();
    qn_tree_uint[lane] = x;
    for (uint n = GROUP / 2; n > 0; n /= 2) {
        barrier();
        if (lane < n) qn_tree_uint[lane] = min(qn_tree_uint[lane], qn_tree_uint[lane + n]);
    }
    barrier();
    return qn_tree_uint[0];
}
#endif
