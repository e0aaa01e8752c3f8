QN_ARGS_BEGIN(merge_plane)
    u32 count;   // elements of this window
    u32 first;   // element of the tensor that the window starts with
    u32 width;   // elements of a row
    u32 before;  // models that are in the plane already
    f32 epsilon; // what counts as a difference
QN_ARGS_END(merge_plane)
