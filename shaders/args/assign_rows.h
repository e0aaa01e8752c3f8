QN_ARGS_BEGIN(assign_rows)
    u32 count;  // words of x
    u32 first;  // vec4s of x before this window: always 0
    u32 batch;  // words of x per batch row
    u32 stride; // words of the parameter per batch row; EACH: of all of it
    u32 width;  // words per position
QN_ARGS_END(assign_rows)
