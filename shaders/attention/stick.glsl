// Which keys a query row of stick-breaking attention sees, and where rows lie.
// Include after args/stickbreaking.h and a binding `int used[]`.

// Keys that exist for a pair.
uint stick_keys(uint pair)
{
    if ((a.flags & STICK_USED) == 0u) return a.keys;
    uint b = (a.flags & STICK_EACH) == 0u ? 0u : pair / a.heads;
    return uint(clamp(used[(a.flags & STICK_BLOCK) == 0u ? b : 2u * b], 0, int(a.keys)));
}

// Row i of the block sees keys 0 .. visible-1 of the n that exist: the queries are the last
// positions.
uint stick_visible(uint i, uint n)
{
    int t = int((a.first_row + i) / a.slots);
    int current = (a.flags & STICK_SKIP) == 0u ? 1 : 0;
    return uint(max(int(n) - int(a.tokens) + t + current, 0));
}

// And of these not those before this one.
uint stick_oldest(uint visible)
{
    return a.window == 0u ? 0u : max(visible, a.window) - a.window;
}

// Planes hold values for keys below the extent, the same for all rows of an aligned tile of rows:
// what its last row sees, in whole quads.
uint stick_extent(uint i, uint tile, uint n)
{
    uint last = min(i / tile * tile + tile, a.rows) - 1u;
    return (stick_visible(last, n) + 3u) & ~3u;
}

// First row of the block that sees key j; a.rows or more when none does.
uint stick_first(uint j, uint n)
{
    int current = (a.flags & STICK_SKIP) == 0u ? 1 : 0;
    int t = max(int(j) + 1 - current + int(a.tokens) - int(n), 0);
    return uint(max(t * int(a.slots) - int(a.first_row), 0));
}

// First element of a query row and of a key row in [.., H * D], head included.
uint stick_query_base(uint pair, uint i)
{
    uint b = pair / a.heads, h = pair % a.heads;
    return ((b * a.tokens * a.slots + a.first_row + i) * a.heads + h) * a.width;
}

uint stick_key_base(uint pair, uint j)
{
    uint b = pair / a.heads, h = pair % a.heads;
    if ((a.flags & STICK_BLOCK) != 0u) b = uint(clamp(used[2u * b + 1u], 0, int(a.blocks) - 1));
    return ((b * a.keys + j) * a.heads + h) * a.width;
}

// Columns d .. d+3 of the row that starts at `base`; columns beyond the head are 0, or, where QUADS
// (the width is a multiple of four), those of the last quad: they reach no result.
#define STICK_LOAD4(name, base, d)                                                                 \
    (QUADS ? LOAD4(name, ((base) + min(d, a.width - 4u)) >> 2)                                     \
           : vec4(STICK_LOAD1(name, base, d), STICK_LOAD1(name, base, (d) + 1u),                   \
                  STICK_LOAD1(name, base, (d) + 2u), STICK_LOAD1(name, base, (d) + 3u)))
#define STICK_LOAD1(name, base, d) ((d) < a.width ? LOAD1(name, (base) + (d)) : 0.0)

// Stores columns d .. d+3 of x to the row that starts at `base`, as far as the head is wide.
#define STICK_STORE4(name, base, d, x)                                                             \
    {                                                                                              \
        uint stick_d = d;                                                                          \
        vec4 stick_x = x;                                                                          \
        [[unroll]] for (uint part = 0; part < 4; part++)                                           \
            if (stick_d + part < a.width) name[(base) + stick_d + part] = stick_x[part];           \
    }

#ifdef QN_FLAT
// Planes of weights and of slopes hold 2^30 times their values: a weight halves with each key, and
// products with weights near 2^-126 would be subnormal, which costs CPUs a hundred cycles each. The
// scale of the products takes it back.
const float STICK_LIFT = 1073741824.0;

// The four products of one lane's vec4 with b0..b3, summed before they reach an accumulator: those
// are carried round the loop under its mask, and single products would be spilled until then.
vec4 stick_four(vec4 x, uint lane, vec4 b0, vec4 b1, vec4 b2, vec4 b3)
{
    vec4 s = subgroupShuffle(x.x, lane) * b0;
    s += subgroupShuffle(x.y, lane) * b1;
    s += subgroupShuffle(x.z, lane) * b2;
    s += subgroupShuffle(x.w, lane) * b3;
    return s;
}
#endif
