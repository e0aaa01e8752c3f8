QN_ARGS_BEGIN(softmax_grad)
    u32 rows;  // of this window
    u32 width; // elements of a row
QN_ARGS_END(softmax_grad)
