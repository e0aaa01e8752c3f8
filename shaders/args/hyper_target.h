QN_ARGS_BEGIN(hyper_target)
    u32 rows;    // n
    u32 columns; // d
    u32 chosen;  // m
    u32 count;   // P
QN_ARGS_END(hyper_target)
