// Addresses of the operands of a flat product: a and b are matrices whose rows lie a.a_row and
// a.b_row elements apart, as given. Before including, define TILE_ROW(i, g): the row of a (where
// transposed, the column) that belongs to row i of the tile; g = i / GROUP.
// Included after the bindings a_in and b_in, the constants and flat.glsl.
DEFINE_LOAD_ANY(any_a, LOAD4, a_in)
DEFINE_LOAD_ANY(any_b, LOADX4, b_in)

// Of each part: where it starts in the first round, and where its last one starts or, in unaligned
// rows of terms, the last term. Parts beyond that have left the sum. Counted in vec4s when ALIGNED.
uint a_at[A_LOADS], a_end[A_LOADS], b_at[UNROLL], b_end[4];
uint a_last, b_last; // the last elements of the operands

const uint UNIT = ALIGNED ? 4 : 1;

// n0: the lane's first column. a0, b0: the first elements of the operands.
void tile_begin(uint n0, uint a0, uint b0)
{
    uint a_row[ROW_LOADS]; // repeats where a round reads more than one part of each row
    if (!TRANSPOSE_A)
        [[unroll]] for (uint g = 0; g < ROW_LOADS; g++)
            a_row[g] = a0 + TILE_ROW((g * GROUP + gl_SubgroupInvocationID) % TM, g) * a.a_row;
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint p = g * GROUP + gl_SubgroupInvocationID;
        if (TRANSPOSE_A) {
            uint column = a0 + TILE_ROW(p % (TM / 4) * 4, 0);
            a_at[g] = (column + p / (TM / 4) * a.a_row) / UNIT;
            a_end[g] = (column + (a.k - 1) * a.a_row) / UNIT;
        } else {
            uint row = a_row[g % ROW_LOADS];
            a_at[g] = (row + p / TM * 4) / UNIT;
            a_end[g] = (row + a.k - 1) / UNIT;
        }
    }
    [[unroll]] for (uint t = 0; t < UNROLL; t++) {
        if (TRANSPOSE_B) {
            uint row = b0 + min(n0 + t % 4, a.n - 1) * a.b_row;
            b_at[t] = (row + (t & ~3u)) / UNIT;
            b_end[t % 4] = (row + a.k - 1) / UNIT;
        } else {
            uint column = b0 + min(n0, (a.n - 1) & ~3u);
            b_at[t] = (column + t * a.b_row) / UNIT;
            b_end[t % 4] = (column + (a.k - 1) * a.b_row) / UNIT;
        }
    }
}

vec4 read_a(uint i, uint end)
{
    vec4 v = ALIGNED ? LOAD4(a_in, min(i, end)) : any_a(min(i, end), a_last);
    return ALIGNED || TRANSPOSE_A ? mix(vec4(0.0), v, bvec4(i <= end)) : cut(v, i, end);
}

// What a part of b holds beyond the end meets zeros of a; it only has to be finite.
vec4 read_b(uint i, uint end)
{
    vec4 v = ALIGNED ? LOADX4(b_in, min(i, end)) : any_b(min(i, end), b_last);
    return ALIGNED || !TRANSPOSE_B ? v : cut(v, i, end);
}

// acc: the tile of the product.
void tile_product()
{
    uint a_step = UNROLL / UNIT * (TRANSPOSE_A ? a.a_row : 1);
    uint b_step = UNROLL / UNIT * (TRANSPOSE_B ? 1 : a.b_row);
    uint rounds = (a.k + UNROLL - 1) / UNROLL;
    tile_clear();
    for (uint r = 0; r < rounds; r++) {
        [[unroll]] for (uint g = 0; g < A_LOADS; g++)
            a_part[g] = read_a(a_at[g] + r * a_step, a_end[g]);
        [[unroll]] for (uint t = 0; t < UNROLL; t++)
            b_part[t] = read_b(b_at[t] + r * b_step, b_end[t % 4]);
        tile_multiply();
    }
}
