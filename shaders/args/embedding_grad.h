QN_ARGS_BEGIN(embedding_grad)
    u32 count; // positions
    u32 rows;  // of this window of the table
    u32 width; // columns
    u32 first; // row of the table at which the window starts
    u32 from;  // position of the first row of dy that is bound
    u32 to;    // position behind the last one
QN_ARGS_END(embedding_grad)
