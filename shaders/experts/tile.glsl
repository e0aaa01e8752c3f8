// Which rows a tile of an expert product has. Expert e owns order[offsets[e] .. offsets[e+1]) and,
// counted from 0 over all experts, the tiles from offsets[e] / TM + e up to the next expert's:
// always enough for its slots, one more than needed at most, and never a sum over other experts.
// The grid has slots / TM + E tiles. Needs TM and the binding `offsets`.
uint first_tile(uint e)
{
    return uint(offsets[e]) / TM + e;
}
