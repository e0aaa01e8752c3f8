// g[i] = sum of la over the tokens 0 .. i of a chunk, as the sum of two numbers; behind the text's
// end the last sum.
// One invocation per pair and chunk.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "grid.glsl"
#include "args.h"
#include "args/synapse.h"
#include "synapse/synapse.glsl"

BIND_T(0, la)
BIND_W(1, g, float)

void main()
{
    uint item = grid_item();
    if (item >= a.pairs * a.chunks) return;
    uint pair = item / a.chunks, c = item % a.chunks, n = chunk_tokens(c);
    uint to = CHUNK_AT(pair, c);
    precise float sum = 0.0, rest = 0.0;
    // Not unrolled: compilers' copies of the body lose what `precise` asks for.
    for (uint t = 0; t < CHUNK; t++) {
        float x = LOAD1(la, synapse_row(a.first_pair + pair, c * CHUNK + min(t, n - 1u)));
        x = t < n ? x : 0.0;
        precise float next = sum + x, back = next - sum;
        precise float lost = (sum - (next - back)) + (x - back);
        rest += lost;
        sum = next;
        g[to + t] = sum;
        g[to + CHUNK + t] = rest;
    }
}
