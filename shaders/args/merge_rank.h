QN_ARGS_BEGIN(merge_rank)
    u32 rows;      // of this window
    u32 width;     // elements of a row
    u32 items;     // step 3: segments with lists, step 4: elements of the second list
    u32 first;     // element of the tensor that the bound inputs start with
    u32 mask;      // first word of this model's mask
    u32 seed_low, seed_high, stream, model;
    f32 lowest, slope; // probability of a rank
QN_ARGS_END(merge_rank)
