// Ranks of magnitudes within rows, by bins: the top bins of a row cover the 32 octaves below its
// largest magnitude evenly in the logarithm. RANKED is log2 of the number of bins, 5 to 10.
// A row of the table: the number of elements in the bins before each one, then the largest key.
const uint RANK_BINS = 1u << RANKED;

uint rank_stride() { return RANK_BINS + 1; }

uint rank_bin(uint key, uint highest)
{
    int shift = 28 - int(RANKED);
    return uint(max(int(key >> shift) - int(highest >> shift) + int(RANK_BINS) - 1, 0));
}

// Rank r is kept with this probability: lowest + r slope.
float rank_chance(uint rank, float lowest, float slope) { return lowest + float(rank) * slope; }
