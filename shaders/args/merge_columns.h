QN_ARGS_BEGIN(merge_columns)
    u32 rows;  // of this window
    u32 width; // columns
    u32 block; // rows summed by one invocation
    u32 first; // number of the window's first block
QN_ARGS_END(merge_columns)
