QN_ARGS_BEGIN(scale)
    u32 count; // elements of this window
    u32 first; // vec4s before it
    f32 factor;
    f32 offset;
QN_ARGS_END(scale)
