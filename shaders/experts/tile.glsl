// The sorted slots of the expert products, and which of them a tile has.
//
//   SLOT(p)     order[p], the slot at position p
//   OFFSET(e)   offsets[e]: expert e owns positions OFFSET(e) .. OFFSET(e + 1) - 1
//
// Counted over all experts, e owns the tiles from OFFSET(e) / TM + e up to the next one's: always
// enough for its slots, at most one more than needed, and known without a sum over other experts.
// The grid has slots / TM + E tiles. Needs TM.
#include "integers.glsl"
BIND_TI(2, order)
BIND_TI(3, offsets)
#define SLOT(p) uint(LOAD4I(order, (p) >> 2)[(p) & 3u])
#define OFFSET(e) uint(LOAD4I(offsets, (e) >> 2)[(e) & 3u])

uint first_tile(uint e)
{
    return OFFSET(e) / TM + e;
}
