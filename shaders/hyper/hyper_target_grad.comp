// Gradient of the generated weights from that of the target networks' outputs. [hypertab]
// x [n, d], view_columns i32 [V, m], generated [V, P], dlogits [V, n, C] -> parts [S, V, P], whose sum
// over S is the gradient. An octet owns one view and one slice of the rows, walked in blocks of 8 R.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/hyper_target_grad.h"
#include "octet.glsl"

BIND_R(0, x, float)
BIND_R(1, view_columns, int)
BIND_R(2, generated, float)
BIND_R(3, dlogits, float)
BIND_RW(4, parts, float)

uint octet_index() { return (gl_WorkGroupID.x * GROUP + gl_LocalInvocationID.x) / 8u; }
uint view = 0, at = 0, block = 0;
bool mine = false;
uint row_of(uint r);
#define GEN(i) generated[view * a.count + (i)]
#define COLUMN(i) min(uint(view_columns[view * a.chosen + (i)]), a.columns - 1u)
#define X_AT(c, r) x[row_of(r) * a.columns + (c)]
#define PART(i, sum)                                                                               \
    if (mine) parts[at + (i)] = (block > 0u ? parts[at + (i)] : 0.0) + (sum)
#include "target.glsl"

uint first_row(uint r)
{
    uint slice = octet_index() / a.views;
    return ((slice * a.blocks + block) * R + r) * 8u + lane8();
}
uint row_of(uint r) { return min(first_row(r), a.rows - 1u); }

void main()
{
    uint octet = octet_index();
    mine = octet < a.slices * a.views;
    view = octet % a.views;
    at = min(octet, a.slices * a.views - 1u) * a.count;
    do {
        target_forward(a.chosen);
        [[unroll]] for (uint r = 0; r < R; r++) {
            bool inside = mine && first_row(r) < a.rows;
            uint from = (view * a.rows + row_of(r)) * C;
            [[unroll]] for (uint o = 0; o < C; o++) unit[o * R + r] = inside ? dlogits[from + o] : 0.0;
        }
        target_backward(a.chosen);
        block++;
    } while (block < a.blocks);
}
