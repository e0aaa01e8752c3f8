// dtable[v, :] = sum of dy[p, :] over the positions p whose id is v, in order of position. order
// and offsets are the sorted ids; dtable holds zeros, and rows that no id names are left alone.
// With PART, only positions in [from, to) are summed, and added to what is there.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "integers.glsl"
#include "args.h"
#include "args/embedding_grad.h"

layout(constant_id = 1) const uint ODD = 0;  // the width is not a multiple of four
layout(constant_id = 2) const uint PART = 0; // dy is bound in parts
#ifdef QN_FLAT
const uint COLUMNS = 4; // vec4s per invocation, GROUP apart
#else
const uint COLUMNS = 1;
#endif

BIND_TI(0, ids)
BIND_TI(1, order)
BIND_TI(2, offsets)
BIND_T(3, dy)
BIND_RW(4, dtable, vec4)
BIND_RW(4, dtable_1, float)

#define INT1(name, i) LOAD4I(name, (i) >> 2)[(i) & 3u]

uint columns, first; // in units of what one load gives; this invocation's first one

vec4 load(uint c) { return ODD == 1 ? vec4(LOAD1(dy, c)) : LOAD4(dy, c); }

// Sums the entries [k, end) of order that belong to this part into row v of the window.
void sum_run(uint k, uint end, uint v)
{
    vec4 s[COLUMNS];
    [[unroll]] for (uint j = 0; j < COLUMNS; j++) {
        uint c = v * columns + min(first + j * GROUP, columns - 1);
        s[j] = vec4(0.0);
        if (PART == 1) s[j] = ODD == 1 ? vec4(dtable_1[c]) : dtable[c];
    }
    for (; k < end; k++) {
        uint p = uint(INT1(order, k));
        if (PART == 1 && p >= a.to) break;
        uint row = (p - a.from) * columns;
        [[unroll]] for (uint j = 0; j < COLUMNS; j++)
            s[j] += load(row + min(first + j * GROUP, columns - 1));
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

// Groups are spread over columns (x) and entries of order (y): the first entry of each id, or of
// its share of this part, does the work.
void main()
{
    columns = ODD == 1 ? a.width : a.width / 4;
    first = gl_WorkGroupID.x * GROUP * COLUMNS + gl_LocalInvocationID.x;
    if (first >= columns) return;
    for (uint k = gl_WorkGroupID.y; k < a.count; k += gl_NumWorkGroups.y) {
        int p = INT1(order, k);
        if (p < 0) break; // what is left is outside the table
        if (PART == 1 && (uint(p) < a.from || uint(p) >= a.to)) continue;
        uint id = uint(INT1(ids, uint(p))), start = uint(INT1(offsets, id)), v = id - a.first;
        bool leads = k == start || (PART == 1 && uint(INT1(order, k - 1)) < a.from);
        if (leads && v < a.rows) sum_run(k, uint(INT1(offsets, id + 1)), v);
    }
}
