QN_ARGS_BEGIN(sum_blocks)
    u32 count; // elements of this window
    u32 first; // element of y that the window's first block goes to
QN_ARGS_END(sum_blocks)
