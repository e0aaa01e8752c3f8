QN_ARGS_BEGIN(row_reduce)
    u32 rows;  // of this window
    u32 width; // elements of a row
QN_ARGS_END(row_reduce)
