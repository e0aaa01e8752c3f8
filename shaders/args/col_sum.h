QN_ARGS_BEGIN(col_sum)
    u32 rows;  // of this window
    u32 width; // columns
    u32 block; // rows summed into one row of y
    u32 first; // row of y that the window's first block goes to
QN_ARGS_END(col_sum)
