// Shared by combine and combine_grad.
QN_ARGS_BEGIN(combine)
    u32 rows;     // N
    u32 width;    // C
    u32 gated;    // gates are given
    u32 residual; // a residual is given
QN_ARGS_END(combine)
