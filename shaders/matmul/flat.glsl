// The register tile of the flat products: TM rows (a power of two; a multiple of 4 where a or c is
// transposed) by 4 GROUP columns of c per subgroup, lane l holding columns 4l..4l+3 of the tile,
// UNROLL terms of the sums per round.
//
// A round reads both operands as vec4s. Those of a are spread over the lanes, each read once, and
// handed round by subgroupShuffle with constant lanes; part p is a_part[p / GROUP] of lane
// p % GROUP.
//   a given [m, k]: part p holds terms 4u..4u+3 of row i, p = u TM + i
//   a given [k, m]: part p holds rows 4r..4r+3 of term t, p = t TM/4 + r
// Those of b are the lane's own:
//   b given [k, n]: b_part[t] holds the four columns of term t
//   b given [n, k]: b_part[4u + j] holds terms 4u..4u+3 of column j
#define UNROLL 8
const uint A_PARTS = TM * (UNROLL / 4);
const uint A_LOADS = (A_PARTS + GROUP - 1) / GROUP;
const uint ROW_LOADS = (TM + GROUP - 1) / GROUP; // subgroups of lanes that hold something per row

vec4 a_part[A_LOADS];
vec4 b_part[UNROLL];
vec4 acc[TM]; // acc[i]: row i, the lane's four columns

void tile_clear()
{
    [[unroll]] for (uint i = 0; i < TM; i++)
        acc[i] = vec4(0.0);
}

// a's value of row i and term t of this round, from the lane that holds it.
float a_value(uint i, uint t)
{
    uint p = TRANSPOSE_A ? t * (TM / 4) + i / 4 : (t / 4) * TM + i;
    return subgroupShuffle(a_part[p / GROUP][TRANSPOSE_A ? i % 4 : t % 4], p % GROUP);
}

vec4 b_value(uint t)
{
    if (!TRANSPOSE_B) return b_part[t];
    uint u = t & ~3u, j = t & 3u;
    return vec4(b_part[u][j], b_part[u + 1][j], b_part[u + 2][j], b_part[u + 3][j]);
}

// The round's products are summed first: the accumulators, which a loop carries masked from one
// round to the next, are then touched once per four terms.
void tile_multiply()
{
    [[unroll]] for (uint u = 0; u < UNROLL; u += 4) {
        vec4 b0 = b_value(u), b1 = b_value(u + 1), b2 = b_value(u + 2), b3 = b_value(u + 3);
        [[unroll]] for (uint i = 0; i < TM; i++) {
            vec4 sum = a_value(i, u) * b0;
            sum += a_value(i, u + 1) * b1;
            sum += a_value(i, u + 2) * b2;
            sum += a_value(i, u + 3) * b3;
            acc[i] += sum;
        }
    }
}
