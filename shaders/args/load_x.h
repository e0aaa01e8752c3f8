QN_ARGS_BEGIN(load_x)
    u32 count; // elements
QN_ARGS_END(load_x)
