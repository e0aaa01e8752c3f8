QN_ARGS_BEGIN(embedding)
    u32 rows;  // of this window
    u32 width; // elements of a row
    u32 first; // first row of the table's window
    u32 count; // rows of the table's window
    u32 total; // rows of the table
QN_ARGS_END(embedding)
