QN_ARGS_BEGIN(sum_of)
    u32 count; // elements of this window
    u32 first; // vec4s before it
QN_ARGS_END(sum_of)
