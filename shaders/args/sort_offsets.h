QN_ARGS_BEGIN(sort_offsets)
    u32 count;   // n
    u32 buckets;
QN_ARGS_END(sort_offsets)
