// How memory-bound operations spread their work: windows that fit a binding, grids that fit a
// device, sums in fixed blocks. Shared by the files of graph/ops/.
#ifndef QN_PASSES_H
#define QN_PASSES_H

#include "op.h"

// Rows wider than this would loop too often in one invocation.
#define QN_MAX_WIDTH (1 << 18)

// One binding: a tensor, and how many of its bytes belong to one item (an element of an
// elementwise kernel, a row of a row kernel). bytes 0: every dispatch gets the same `count` rows of
// `row` bytes behind the first ones, or, count 0, all of it.
typedef struct qn_part {
    const qn_tensor *tensor;
    uint64_t bytes;
    uint64_t first, count, row;
} qn_part;

static inline qn_part qn_f32(const qn_tensor *t)
{
    return (qn_part){ .tensor = t, .bytes = 4 };
}
static inline qn_part qn_whole(const qn_tensor *t)
{
    return (qn_part){ .tensor = t };
}

// Dispatches an elementwise kernel (shaders/each.glsl) over `count` elements. Fills in buffers,
// grid and the first two arguments, count and first.
qn_result qn_record_each(qn_recorder *r, const qn_dispatch *d, const qn_part *parts, int bindings,
                         uint64_t count);

// Dispatches a row kernel (shaders/row_walk.glsl). `passes` is how often it walks through a
// row. Fills in buffers, grid, the first two constants, OWN and ODD, and the first two arguments,
// rows and width.
qn_result qn_record_rows(qn_recorder *r, const qn_dispatch *d, const qn_part *parts, int bindings,
                         uint64_t rows, uint64_t width, int passes);

// Bytes of a row of f32.
static inline uint64_t qn_row_bytes(const qn_tensor *t)
{
    return (uint64_t)qn_shape_last(t->shape) * 4;
}
static inline qn_part qn_rows_of(const qn_tensor *t)
{
    return (qn_part){ .tensor = t, .bytes = qn_row_bytes(t) };
}

// Sums of columns. Rows are summed in blocks, a function of the shape alone, into partial [blocks,
// width]; with a single block the partial sums are the result.
uint64_t qn_column_block(uint64_t rows, uint64_t width);
qn_shape qn_column_partial(uint64_t rows, uint64_t width);
// Dispatches a kernel with the arguments of col_sum over all rows. parts[i].bytes as above, 0 for
// what is written: indexed by block.
qn_result qn_record_columns(qn_recorder *r, const qn_dispatch *d, const qn_part *parts,
                            int bindings, uint64_t rows, uint64_t width);
// y[c] = sum of the rows of x [rows, width] in one block; for partial sums.
qn_result qn_record_last_sum(qn_recorder *r, const qn_tensor *x, const qn_tensor *y, uint64_t rows,
                             uint64_t width);

// y = sum of x, or of its squares, in blocks of 8192. `partial` has the shape given for x's count.
qn_shape qn_sum_partial(uint64_t count);
qn_result qn_record_sum(qn_recorder *r, const qn_tensor *x, const qn_tensor *partial,
                        const qn_tensor *y, bool squares);

// Helpers of infer().
qn_result qn_expect_f32(const qn_node *n, int input, const char *what);
// At least one dimension, the last at most QN_MAX_WIDTH.
qn_result qn_expect_rows(const qn_node *n, int input, const char *what);
// At least one dimension, the last of a size that qn_record_columns() can sum.
qn_result qn_expect_columns(const qn_node *n, int input, const char *what,
                            const qn_device_info *dev);

#endif
