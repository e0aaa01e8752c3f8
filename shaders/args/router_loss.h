// Shared by the kernels of the routing losses.
QN_ARGS_BEGIN(router_loss)
    u32 rows;    // N
    u32 experts; // E
    u32 choices; // K
    u32 block;   // rows per block of partial sums, a multiple of 4
    u32 blocks;
QN_ARGS_END(router_loss)
