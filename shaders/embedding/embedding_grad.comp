// dtable[v, :] = sum of dy[p, :] over the positions p whose id is v, in order of position. order
// and offsets are the sorted ids. With PART, only positions in [from, to) are summed, and added to
// what is there unless from is 0.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "args.h"
#include "args/embedding_grad.h"

layout(constant_id = 1) const uint ODD = 0;  // the width is not a multiple of four
layout(constant_id = 2) const uint PART = 0; // dy is bound in parts
#ifdef QN_FLAT
const uint COLUMNS = 4; // vec4s per invocation, GROUP apart
#else
const uint COLUMNS = 1;
#endif

BIND_R(0, order, uint)
BIND_R(1, offsets, uint)
BIND_T(2, dy)
BIND_RW(3, dtable, vec4)
BIND_RW(3, dtable_1, float)

// The first k of [low, high) with order[k] >= position; high when there is none.
uint find(uint low, uint high, uint position)
{
    while (low < high) {
        uint middle = (low + high) / 2;
        if (order[middle] < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

// Groups are spread over columns (x) and rows of the table (y).
void main()
{
    uint first = gl_WorkGroupID.x * GROUP * COLUMNS + gl_LocalInvocationID.x;
    uint columns = ODD == 1 ? a.width : a.width / 4;
    if (first >= columns) return;
    for (uint v = gl_WorkGroupID.y; v < a.rows; v += gl_NumWorkGroups.y) {
        uint k = offsets[a.first + v], end = offsets[a.first + v + 1];
        if (PART == 1) {
            k = find(k, end, a.from);
            end = find(k, end, a.to);
        }
        vec4 s[COLUMNS];
        [[unroll]] for (uint j = 0; j < COLUMNS; j++) s[j] = vec4(0.0);
        if (PART == 1 && a.from > 0)
            [[unroll]] for (uint j = 0; j < COLUMNS; j++) {
                uint c = first + j * GROUP;
                if (c < columns)
                    s[j] = ODD == 1 ? vec4(dtable_1[v * columns + c]) : dtable[v * columns + c];
            }
        for (; k < end; k++) {
            uint row = (order[k] - a.from) * columns;
            [[unroll]] for (uint j = 0; j < COLUMNS; j++) {
                uint c = row + min(first + j * GROUP, columns - 1);
                s[j] += ODD == 1 ? vec4(LOAD1(dy, c)) : LOAD4(dy, c);
            }
        }
        [[unroll]] for (uint j = 0; j < COLUMNS; j++) {
            uint c = first + j * GROUP;
            if (c < columns) {
                if (ODD == 1)
                    dtable_1[v * columns + c] = s[j].x;
                else
                    dtable[v * columns + c] = s[j];
            }
        }
    }
}
