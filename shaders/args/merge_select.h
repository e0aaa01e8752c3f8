QN_ARGS_BEGIN(merge_select)
    u32 count; // elements of this window
    u32 run;   // vec4s of one invocation
    u32 first; // number of the window's first group
    u32 room;  // keys that one invocation may hand out
    u32 low, high;                      // HAND_OUT: keys in [low, high)
    u32 t0, t1, t2, t3, t4, t5, t6, t7; // thresholds
QN_ARGS_END(merge_select)
