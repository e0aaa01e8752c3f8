QN_ARGS_BEGIN(binary)
    u32 count; // elements of this window
    u32 first; // vec4s before it
    u32 period; // elements of b
QN_ARGS_END(binary)
