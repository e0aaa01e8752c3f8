QN_ARGS_BEGIN(copy_words)
    u32 count; // elements of this window
    u32 first; // vec4s before it
QN_ARGS_END(copy_words)
