QN_ARGS_BEGIN(route_grad)
    u32 rows;      // N
    u32 experts;   // E
    u32 choices;   // K
    u32 has_gates; // dgates is given
    u32 has_probs; // dprobs is given
QN_ARGS_END(route_grad)
