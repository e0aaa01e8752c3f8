QN_ARGS_BEGIN(cross_entropy)
    u32 rows;  // of this window
    u32 width; // elements of a row
QN_ARGS_END(cross_entropy)
