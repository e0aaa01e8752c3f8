QN_ARGS_BEGIN(route)
    u32 rows;    // N
    u32 experts; // E
    u32 choices; // K
    u32 sampled; // of these, drawn
    u32 stream;
QN_ARGS_END(route)
