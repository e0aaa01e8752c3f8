QN_ARGS_BEGIN(merge_select)
    u32 count; // elements of this window
    u32 low;   // the smallest key of the first bin
    u32 shift; // a bin has 2^shift keys
    u32 run;   // vec4s of one invocation
QN_ARGS_END(merge_select)
