// Of expert_matmul and expert_matmul_flat. Strides count elements.
QN_ARGS_BEGIN(expert_matmul)
    u32 experts;    // E
    u32 n;          // O, columns of y
    u32 k;          // I, columns of x
    u32 a_row;      // from one row of x to the next
    u32 b_row;      // from one row of w, as given, to the next
    u32 b_batch;    // from one expert's w to the next
    u32 x_last;     // the last element of x
    u32 first_tile; // of this dispatch
QN_ARGS_END(expert_matmul)
