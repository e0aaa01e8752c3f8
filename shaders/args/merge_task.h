QN_ARGS_BEGIN(merge_task)
    u32 count;  // elements of this window
    u32 first;  // element of the tensor that the window starts with
    u32 plane;  // vec4s of one plane of the state
    f32 lambda;
QN_ARGS_END(merge_task)
