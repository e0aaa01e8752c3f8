QN_ARGS_BEGIN(dropout)
    u32 count; // elements of this window
    u32 first; // vec4s before it
    u32 stream;
    u32 threshold; // an element is dropped where its 32 random bits are below
    f32 factor;    // 1 / (1 - p)
QN_ARGS_END(dropout)
