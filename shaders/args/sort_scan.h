QN_ARGS_BEGIN(sort_scan)
    u32 count;
QN_ARGS_END(sort_scan)
