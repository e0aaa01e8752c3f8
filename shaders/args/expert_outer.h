// Of expert_outer and expert_outer_flat.
QN_ARGS_BEGIN(expert_outer)
    u32 m;            // I, columns of x
    u32 n;            // O, columns of y
    u32 first;        // of each expert's slots, those before this pass
    u32 count;        // slots per expert in this pass, at most
    u32 x_last;       // the last elements of x and y
    u32 y_last;
    u32 first_expert; // of this dispatch
QN_ARGS_END(expert_outer)
