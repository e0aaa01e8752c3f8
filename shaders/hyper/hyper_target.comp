// Outputs of every view's target network on every row. [hypertab]
// x [n, d], view_columns i32 [V, m], generated [V, P] -> logits [V, n, C].
// Group (x, y): the next GROUP * R rows, view y.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/hyper_target.h"
#include "octet.glsl"

BIND_R(0, x, float)
BIND_R(1, view_columns, int)
BIND_R(2, generated, float)
BIND_W(3, logits, float)

uint row_of(uint r);
#define GEN(i) generated[gl_WorkGroupID.y * a.count + (i)]
#define COLUMN(i)                                                                                  \
    min(uint(view_columns[gl_WorkGroupID.y * a.chosen + (i)]), a.columns - 1u)
#define X_AT(c, r) x[row_of(r) * a.columns + (c)]
#define PART(i, sum)
#include "target.glsl"

uint first_row() { return gl_WorkGroupID.x * GROUP * R + gl_LocalInvocationID.x; }
uint row_of(uint r) { return min(first_row() + r * GROUP, a.rows - 1u); }

void main()
{
    target_forward(a.chosen);
    [[unroll]] for (uint r = 0; r < R; r++) {
        uint row = first_row() + r * GROUP;
        if (row < a.rows)
            [[unroll]] for (uint o = 0; o < C; o++)
                logits[(gl_WorkGroupID.y * a.rows + row) * C + o] = unit[o * R + r];
    }
}
