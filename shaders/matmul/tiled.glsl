// The shared-memory tile of the portable products: 8 ROWS rows by 64 columns of the result per
// workgroup of 128, BLOCK terms at a time. Invocation (x, y) = (l % 16, l / 16) sums rows
// y ROWS.. by columns 4x.. in registers.
//
// A block of each operand lies in shared memory by term; an invocation brings its parts there, each
// a vec4: of rows of terms (four terms of row p / 4, spread) or of rows of columns (four columns of
// term p / (width / 4)). While a block is summed the next one is on its way in registers.
const uint SIZE = 128;
const uint BLOCK = 16;
const uint TM = 8 * ROWS;
const uint A_PARTS = TM * BLOCK / 4;
const uint A_LOADS = (A_PARTS + SIZE - 1) / SIZE;
const uint B_LOADS = 64 * BLOCK / 4 / SIZE;

shared vec4 a_block[BLOCK * 17]; // 16 vec4s and one of padding per term
shared vec4 b_block[BLOCK * 17];
vec4 a_next[A_LOADS], b_next[B_LOADS];
vec4 acc[ROWS];

#include "matmul/parts.glsl"

// The parts in a_next and b_next become the block to sum.
void tile_put()
{
    uint lane = gl_LocalInvocationID.x;
    [[unroll]] for (uint g = 0; g < A_LOADS; g++) {
        uint p = g * SIZE + lane;
        uint t = part_term(p, TM, TRANSPOSE_A), i = part_place(p, TM, TRANSPOSE_A);
        if (p >= A_PARTS) continue;
        if (TRANSPOSE_A)
            a_block[t * 17 + i / 4] = a_next[g];
        else
            [[unroll]] for (uint j = 0; j < 4; j++)
                a_block[(t + j) * 17 + i / 4][i % 4] = a_next[g][j];
    }
    [[unroll]] for (uint g = 0; g < B_LOADS; g++) {
        uint p = g * SIZE + lane;
        uint t = part_term(p, 64, !TRANSPOSE_B), i = part_place(p, 64, !TRANSPOSE_B);
        if (!TRANSPOSE_B)
            b_block[t * 17 + i / 4] = b_next[g];
        else
            [[unroll]] for (uint j = 0; j < 4; j++)
                b_block[(t + j) * 17 + i / 4][i % 4] = b_next[g][j];
    }
}

void tile_clear()
{
    [[unroll]] for (uint i = 0; i < ROWS; i++)
        acc[i] = vec4(0.0);
}

void tile_sum()
{
    uint x = gl_LocalInvocationID.x % 16, y = gl_LocalInvocationID.x / 16;
    [[unroll]] for (uint t = 0; t < BLOCK; t++) {
        vec4 b = b_block[t * 17 + x];
        [[unroll]] for (uint i = 0; i < ROWS; i += 4) {
            vec4 r = a_block[t * 17 + (y * ROWS + i) / 4];
            [[unroll]] for (uint j = 0; j < 4; j++)
                acc[i + j] += r[j] * b;
        }
    }
}
