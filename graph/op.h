// What an operation is (private to graph/). Adding one: docs/adding-an-op.md.
#ifndef QN_OP_H
#define QN_OP_H

#include "fail.h"
#include "mem.h"
#include <quoin/graph.h>
#include <quoin/ops.h>

#define QN_MAX_INPUTS 12
#define QN_MAX_OUTPUTS 8

typedef struct qn_op_def qn_op_def;
typedef struct qn_recorder qn_recorder;

// One use of an operation.
typedef struct qn_node {
    const qn_op_def *op;
    const void *attrs; // op->attrs_size bytes, NULL when 0
    const char *name;
    int inputs, outputs;
    const qn_tensor *in[QN_MAX_INPUTS]; // NULL: an optional input that was not given
    const qn_tensor *out[QN_MAX_OUTPUTS];
} qn_node;

typedef struct qn_cost {
    uint64_t flops, bytes;
} qn_cost;

struct qn_op_def {
    const char *name;      // "expert_matmul"
    const char *reference; // key in docs/references.md, or NULL
    int inputs;            // how many the builder passes, optional ones included
    int outputs;           // results first, then scratch that only record() uses
    size_t attrs_size;
    bool effect;           // writes a store: always kept, in creation order

    // Refuse what is wrong with a message that names the operation, the tensor and both shapes;
    // otherwise fill in shape[] and dtype[] of every output. Required inputs are never NULL.
    qn_result (*infer)(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype);

    // Append nodes computing each wanted input gradient; gin[i] stays NULL where there is none.
    // gout[i] is NULL for outputs that the loss does not depend on (at least one is not).
    // NULL function: not differentiable; reaching it with a wanted gradient is an error.
    qn_result (*backward)(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                          const bool *want, const qn_tensor **gin);

    // Choose kernel, constants and grid, and dispatch with qn_record(). May not allocate.
    qn_result (*record)(qn_recorder *r, const qn_node *n);

    qn_cost (*cost)(const qn_node *n); // analytic; NULL: bytes of inputs and outputs, no flops

    uint32_t inplace; // bit i: out[0] may overwrite in[i], which has the same size
    int alias;        // i + 1: out[0] is in[i]'s own memory (reshape; effects return what they
                      // wrote); 0: none
    bool assigns;     // an effect that makes in[0] equal to in[1]: the plan may compute in[1]
                      // right there, and record() then finds both at the same place
};

// Builders: append a node; NULL on failure (the graph keeps the message). `attrs` is copied.
// The first output is returned; the others are node->out[1..].
const qn_tensor *qn_op(qn_graph *g, const qn_op_def *op, const void *attrs,
                       const qn_tensor *const *in, const qn_node **node);
#define QN_OP1(g, op, attrs, ...)                                                                  \
    qn_op(g, op, attrs, (const qn_tensor *const[QN_MAX_INPUTS]){ __VA_ARGS__ }, NULL)
// Makes the graph's sticky error from this thread's message, returns NULL.
const qn_tensor *qn_graph_fail(qn_graph *g, qn_result r);
// The node that made a tensor; NULL for leaves.
const qn_node *qn_tensor_node(const qn_tensor *t);

// While recording.
const qn_device_info *qn_recorder_device(const qn_recorder *r);
// Where a tensor of this plan lies. NULL gives a range without a buffer (a dummy binding).
qn_range qn_at(const qn_recorder *r, const qn_tensor *t);
// Rows [first, first + count) of a tensor's bytes, for operations that split their work.
// first * row_bytes must be a multiple of QN_RANGE_ALIGN.
qn_range qn_at_rows(const qn_recorder *r, const qn_tensor *t, uint64_t first, uint64_t count,
                    uint64_t row_bytes);
// What an 'x' and its 's' binding get: a tensor's integers and scales where it is quantised, else the
// tensor and a range without a buffer.
qn_range qn_at_values(const qn_recorder *r, const qn_tensor *t);
qn_range qn_at_scales(const qn_recorder *r, const qn_tensor *t);
// How kernels read 'x' bindings of a type.
qn_storage qn_storage_of(qn_dtype t);
// QN_ERR_INVALID unless input `input` is f32 or a type that only weights have.
qn_result qn_expect_weights(const qn_node *n, int input, const char *what);
qn_result qn_record(qn_recorder *r, const qn_dispatch *d);
// Fills with a 32-bit word, much faster than a kernel on CPU drivers.
qn_result qn_record_fill(qn_recorder *r, qn_range dst, uint32_t word);

// Helpers of infer().
qn_result qn_expect_dtype(const qn_node *n, int input, const char *what, qn_dtype dtype);
qn_result qn_expect_shape(const qn_node *n, int input, const char *what, qn_shape shape);
// QN_ERR_INVALID: "<op> <node name>: " and the rest.
qn_result qn_refuse(const qn_node *n, const char *fmt, ...) QN_PRINTF(2, 3);

static inline uint32_t qn_div_up(uint64_t a, uint64_t b)
{
    return (uint32_t)((a + b - 1) / b);
}

#define QN_OP_ROW(name) extern const qn_op_def qn_op_##name;
#include "ops.def"
#undef QN_OP_ROW

#endif
