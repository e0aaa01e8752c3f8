QN_ARGS_BEGIN(merge_ram)
    u32 count;   // elements of this window
    u32 model;   // number of the first one
    f32 epsilon; // what counts as a difference
QN_ARGS_END(merge_ram)
