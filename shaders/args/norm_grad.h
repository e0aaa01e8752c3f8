QN_ARGS_BEGIN(norm_grad)
    u32 rows;  // of this window
    u32 width; // elements of a row
QN_ARGS_END(norm_grad)
