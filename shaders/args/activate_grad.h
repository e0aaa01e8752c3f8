QN_ARGS_BEGIN(activate_grad)
    u32 count; // elements of this window
    u32 first; // vec4s before it
QN_ARGS_END(activate_grad)
