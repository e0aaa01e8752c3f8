QN_ARGS_BEGIN(norm_grad_w)
    u32 rows;  // of this window
    u32 width; // columns
    u32 block; // rows summed into one row of dw and db
    u32 first; // row of dw and db that the window's first block goes to
QN_ARGS_END(norm_grad_w)
