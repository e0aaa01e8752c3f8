// Shared by the kernels of qn_causal_conv().
QN_ARGS_BEGIN(causal_conv)
    u32 batch;    // B
    u32 tokens;   // T
    u32 channels; // C
    u32 given;    // start rows, or for causal_conv_grad the end rows' gradient, are given
    u32 first;    // the rows of each batch row that this dispatch handles
    u32 count;
    u32 block;    // of these, over the whole batch, how many belong to one group
    u32 to;       // causal_conv_grad_w: the block that the first group writes
QN_ARGS_END(causal_conv)
