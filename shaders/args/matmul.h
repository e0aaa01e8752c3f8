// Of matmul, matmul_flat and matvec. Everything but the shape counts elements.
QN_ARGS_BEGIN(matmul)
    u32 m;       // rows of the product
    u32 n;       // columns of the product
    u32 k;       // terms of this pass
    u32 a_row;   // from one row of a, as given, to the next
    u32 b_row;
    u32 a_batch; // from one batch's a to the next
    u32 b_batch; // 0: one b for all
    u32 c_batch;
    u32 a_first; // where this pass starts in a
    u32 b_first;
QN_ARGS_END(matmul)
