// y[r, :] = table[ids[r], :], zeros for ids outside the table. Of a table bound in windows each
// dispatch writes the rows whose ids lie in its window.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "reduce.glsl"
#include "args.h"
#include "args/embedding.h"
#include "row_walk.glsl"

BIND_R(0, ids, uint)
BIND_T(1, table)
BIND_OUT(2, y)

uint from; // the row's first element in the table's window
bool known;

vec4 value(uint i, uint row)
{
    vec4 v;
    if (ODD == 1)
        [[unroll]] for (uint c = 0; c < 4; c++)
            v[c] = LOAD1(table, from + column_of(4 * i + c, row));
    else
        v = LOAD4(table, from / 4 + i - row * (a.width / 4));
    return known ? v : vec4(0.0);
}

void main()
{
    EACH_ROW(row) {
        uint id = ids[row], at = id - a.first;
        known = id < a.total;
        from = known ? at * a.width : 0;
        if (known ? at < a.count : a.first == 0) ROW_STORE(y, row, value)
    }
}
