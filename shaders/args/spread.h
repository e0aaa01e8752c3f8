QN_ARGS_BEGIN(spread)
    u32 rows;  // of this window
    u32 width; // elements of a row
    f32 factor;
QN_ARGS_END(spread)
