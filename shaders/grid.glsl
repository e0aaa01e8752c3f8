// For kernels in which an invocation owns one item (a row, a block): its number. After types.glsl.
#include "each.glsl"

uint grid_item() { return group_index() * GROUP + gl_LocalInvocationID.x; }
