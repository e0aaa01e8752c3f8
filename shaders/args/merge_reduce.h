QN_ARGS_BEGIN(merge_reduce)
    u32 rows;      // of this window; 1 when the tensor counts as one row
    u32 width;     // elements of a row
    u32 parts;     // segments of a row
    u32 first;     // element of the tensor that the window starts with
    u32 segment;   // number of the window's first segment
    u32 mask;      // first word of this model's mask
    u32 low, low_index, high, high_index; // keys that are kept, see keep()
    u32 seed_low, seed_high, stream, model; // of the random numbers
    u32 drawn;     // kept when the drawn 24 bits are below this
    f32 lowest, highest; // ranked draws: probabilities of the first and the last rank
    f32 epsilon;   // what counts as a difference
QN_ARGS_END(merge_reduce)
