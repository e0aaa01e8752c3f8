QN_ARGS_BEGIN(adamw)
    u32 blocks; // of 64 elements
    u32 groups; // G, rows of the group table
QN_ARGS_END(adamw)
