// Ranks of magnitudes within rows, by bins: they cover the 8 octaves below a row's largest
// magnitude evenly in the logarithm; smaller ones fall into the first. RANKED is log2 of the number
// of bins, 5 to 8.
// A row of the table: the number of elements in the bins before each one, then the largest key.
const uint RANK_BINS = 1u << RANKED;

uint rank_stride() { return RANK_BINS + 1; }

uint rank_bin(uint key, uint highest)
{
    int shift = 26 - int(RANKED);
    return uint(max(int(key >> shift) - int(highest >> shift) + int(RANK_BINS) - 1, 0));
}

// Rank r is kept with this probability: lowest + r slope.
float rank_chance(uint rank, float lowest, float slope) { return lowest + float(rank) * slope; }
