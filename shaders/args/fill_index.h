QN_ARGS_BEGIN(fill_index)
    u32 count; // elements
    u32 start; // value of element 0
QN_ARGS_END(fill_index)
