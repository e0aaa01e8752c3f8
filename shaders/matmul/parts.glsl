// Part p of an operand's block: the first term, and the first row (column) of the tile.
uint part_term(uint p, uint width, bool by_columns)
{
    return by_columns ? p / (width / 4) : p % 4 * 4;
}

uint part_place(uint p, uint width, bool by_columns)
{
    return by_columns ? p % (width / 4) * 4 : p / 4;
}
