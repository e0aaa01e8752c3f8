QN_ARGS_BEGIN(hyper_target_grad)
    u32 rows;    // n
    u32 columns; // d
    u32 chosen;  // m
    u32 count;   // P
    u32 views;   // V
    u32 slices;  // S: parts that the rows are cut into
    u32 blocks;  // blocks of 8 R rows in a slice
QN_ARGS_END(hyper_target_grad)
