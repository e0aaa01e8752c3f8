QN_ARGS_BEGIN(copy_columns)
    u32 rows;
    u32 width;     // columns copied
    u32 from, to;  // the first of them in a row of x and of y
    u32 from_row;  // elements of a row of x
    u32 to_row;    // and of y
    u32 block;     // rows of a group
QN_ARGS_END(copy_columns)
