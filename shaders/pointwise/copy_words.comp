// y = x, whatever the words mean; count is in words.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "each.glsl"
#include "args.h"
#include "args/copy_words.h"

BIND_R(0, x, uvec4)
BIND_R(0, x_1, uint)
BIND_W(1, y, uvec4)
BIND_W(1, y_1, uint)

void main()
{
    EACH4(i, a.count) {
        if (4 * i + 4 <= a.count)
            y[i] = x[i];
        else
            for (uint e = 4 * i; e < a.count; e++) y_1[e] = x_1[e];
    }
}
