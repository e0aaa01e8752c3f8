// Shared by the kernels of the counting sort.
QN_ARGS_BEGIN(sort)
    u32 count;   // n: keys
    u32 buckets; // keys outside [0, buckets) are left out
    u32 block;   // keys per block, a multiple of 4
    u32 blocks;
    u32 shift;   // of the pass's digit
    u32 first;   // 1: the first pass, whose order is 0, 1, 2, ...
QN_ARGS_END(sort)
