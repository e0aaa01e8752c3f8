QN_ARGS_BEGIN(merge_mix)
    u32 count; // elements of this window
    u32 first; // element of the tensor that the window starts with
    u32 width; // elements of a row
QN_ARGS_END(merge_mix)
