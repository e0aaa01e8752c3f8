// The blocks of a portable product whose operands are matrices with rows a.a_row and a.b_row
// elements apart, as given. Before including, define TILE_ROW(i): the row of a (where transposed,
// the column) that belongs to row i of the tile.
// Included after the bindings a_in and b_in, the constants and tiled.glsl.
DEFINE_LOAD_ANY(any_a, LOAD4, a_in)
DEFINE_LOAD_ANY(any_b, LOADX4, b_in)

uint a_at[A_LOADS], b_at[B_LOADS]; // where each part starts in the first block
uint a_last, b_last;               // the last elements of the operands

void tile_begin(uint n0, uint a0, uint b0)
{
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint p = min(g * SIZE + gl_LocalInvocationID.x, A_PARTS - 1);
        uint t = part_term(p, TM, TRANSPOSE_A), i = part_place(p, TM, TRANSPOSE_A);
        a_at[g] = a0 + (TRANSPOSE_A ? t * a.a_row + TILE_ROW(i) : TILE_ROW(i) * a.a_row + t);
    }
    [[unroll]] for (uint g = 0; g < B_LOADS; g++) {
        uint p = g * SIZE + gl_LocalInvocationID.x;
        uint t = part_term(p, 64, !TRANSPOSE_B), i = n0 + part_place(p, 64, !TRANSPOSE_B);
        b_at[g] = b0 + (TRANSPOSE_B ? min(i, a.n - 1) * a.b_row + t
                                    : t * a.b_row + min(i, (a.n - 1) & ~3u));
    }
}

// The parts of the block that starts at term k. What lies beyond the last term becomes zeros.
void tile_get(uint k)
{
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint p = min(g * SIZE + gl_LocalInvocationID.x, A_PARTS - 1);
        uint t = k + part_term(p, TM, TRANSPOSE_A), at = a_at[g] + k * (TRANSPOSE_A ? a.a_row : 1);
        a_next[g] = vec4(0.0);
        if (t >= a.k) continue;
        a_next[g] = ALIGNED ? LOAD4(a_in, at / 4) : any_a(at, a_last);
        if (!ALIGNED && !TRANSPOSE_A) a_next[g] = cut(a_next[g], t, a.k - 1);
    }
    [[unroll]] for (uint g = 0; g < B_LOADS; g++) {
        uint p = g * SIZE + gl_LocalInvocationID.x;
        uint t = k + part_term(p, 64, !TRANSPOSE_B), at = b_at[g] + k * (TRANSPOSE_B ? 1 : a.b_row);
        b_next[g] = vec4(0.0);
        if (t >= a.k) continue;
        b_next[g] = ALIGNED ? LOADX4(b_in, at / 4) : any_b(at, b_last);
        if (!ALIGNED && TRANSPOSE_B) b_next[g] = cut(b_next[g], t, a.k - 1);
    }
}

// acc: this invocation's part of the product.
void tile_product()
{
    tile_clear();
    tile_get(0);
    for (uint k = 0; k < a.k; k += BLOCK) {
        tile_put();
        barrier();
        if (k + BLOCK < a.k) tile_get(k + BLOCK);
        tile_sum();
        barrier();
    }
}
