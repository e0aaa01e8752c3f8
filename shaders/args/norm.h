QN_ARGS_BEGIN(norm)
    u32 rows;  // of this window
    u32 width; // elements of a row
    f32 epsilon;
QN_ARGS_END(norm)
