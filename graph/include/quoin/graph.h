// quoin/graph.h: tensors, stores, graphs, gradients, plans.
#ifndef QUOIN_GRAPH_H
#define QUOIN_GRAPH_H

#include <quoin/engine.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QN_MAX_RANK 4
// The last two are weights in blocks of 32 with a scale each: quoin/blocks.h.
typedef enum qn_dtype {
    QN_F32 = 0,
    QN_F16,
    QN_BF16,
    QN_I32,
    QN_Q8_0,
    QN_Q4_0,
    QN_DTYPE_COUNT
} qn_dtype;
QN_API const char *qn_dtype_name(qn_dtype t); // "f32"
QN_API uint32_t qn_dtype_size(qn_dtype t);    // bytes of one element; 0 where blocks share some
QN_API uint64_t qn_dtype_bytes(qn_dtype t, uint64_t count); // of so many elements, on a device

// Row-major and contiguous; dim[0] is outermost, as in PyTorch and safetensors. Rank 0 is a
// scalar. Every dimension is at least 1.
typedef struct qn_shape {
    int rank;
    int64_t dim[QN_MAX_RANK];
} qn_shape;
#define QN_SHAPE(...)                                                                              \
    ((qn_shape){ (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), { __VA_ARGS__ } })
#define QN_SCALAR ((qn_shape){ .rank = 0 })

QN_API int64_t qn_shape_count(qn_shape s);          // elements
QN_API bool qn_shape_equal(qn_shape a, qn_shape b);
QN_API int64_t qn_shape_last(qn_shape s);           // last dimension; 1 for a scalar
QN_API int64_t qn_shape_rows(qn_shape s);           // count / last
#define QN_SHAPE_TEXT 96
// "[2,17,128]" into text, which it returns.
QN_API char *qn_shape_format(qn_shape s, char text[QN_SHAPE_TEXT]);

// ---------------------------------------------------------------------------------- stores
// Named tensors that persist on the device, in one buffer where one allocation holds them: a model's weights, their gradients, an
// optimiser's moments, a KV cache. A store outlives every graph that refers to it.
typedef struct qn_store qn_store;

// What a store knows of one tensor. Offsets are multiples of QN_RANGE_ALIGN; two stores given
// the same tensors in the same order have the same offsets.
typedef struct qn_store_entry {
    const char *name;
    qn_dtype dtype;
    qn_shape shape;
    uint64_t offset, size; // bytes
} qn_store_entry;

QN_API qn_result qn_store_create(qn_device *dev, const char *name, qn_store **out);
QN_API void qn_store_destroy(qn_store **store);
// Before qn_store_allocate() only. A name may be added once.
QN_API qn_result qn_store_add(qn_store *s, const char *name, qn_dtype dtype, qn_shape shape);
// Takes the device memory for everything added, filled with zeros.
QN_API qn_result qn_store_allocate(qn_store *s);
QN_API size_t qn_store_count(const qn_store *s);
QN_API const qn_store_entry *qn_store_at(const qn_store *s, size_t i);
QN_API const qn_store_entry *qn_store_find(const qn_store *s, const char *name); // NULL: no such
QN_API uint64_t qn_store_bytes(const qn_store *s); // including padding between tensors
// `size` must be the tensor's. Blocking.
QN_API qn_result qn_store_write(qn_store *s, const char *name, const void *data, uint64_t size);
// Bytes at .. at + size of the tensor's.
QN_API qn_result qn_store_write_part(qn_store *s, const char *name, uint64_t at, const void *data,
                                     uint64_t size);
QN_API qn_result qn_store_read(const qn_store *s, const char *name, void *data, uint64_t size);

// ---------------------------------------------------------------------------------- graphs
typedef struct qn_graph qn_graph;
typedef struct qn_plan qn_plan;

// A value in a graph. Read-only; the graph owns it.
typedef struct qn_tensor {
    const char *name;
    qn_dtype dtype;
    qn_shape shape;
    bool needs_grad; // it depends on a parameter or an input marked with qn_wants_grad()
} qn_tensor;

// Building runs nothing. Errors stick to the graph: a builder that fails returns NULL, a builder
// given NULL returns NULL, and the first failure is what qn_graph_status() and qn_plan_create()
// report.
QN_API qn_result qn_graph_create(qn_device *dev, qn_graph **out);
QN_API void qn_graph_destroy(qn_graph **g);
QN_API qn_result qn_graph_status(const qn_graph *g);
QN_API qn_device *qn_graph_device(const qn_graph *g);
// Nodes made from now on are called "name.…"; scopes nest; NULL leaves the innermost.
QN_API void qn_graph_scope(qn_graph *g, const char *name);

// A leaf that the host sets before each run; qn_plan_set() must have been called once.
QN_API const qn_tensor *qn_input(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape);
// A leaf whose value is fixed; `data` (of the tensor's size) is copied.
QN_API const qn_tensor *qn_constant(qn_graph *g, const char *name, qn_dtype dtype, qn_shape shape,
                                    const void *data);
// Lets gradients with respect to this input be taken. Call before using it.
QN_API void qn_wants_grad(const qn_tensor *input);
// A leaf bound to a stored tensor; f32 ones have needs_grad. The same (store, name) gives the
// same leaf. An unknown name is an error that lists the nearest one.
QN_API const qn_tensor *qn_param(qn_graph *g, qn_store *store, const char *name);
// The same without a gradient.
QN_API const qn_tensor *qn_frozen(qn_graph *g, qn_store *store, const char *name);
// The whole store as one f32 vector [bytes / 4]: padding included, which is always zero.
QN_API const qn_tensor *qn_store_tensor(qn_graph *g, qn_store *store);
// The first `bytes` of it, a multiple of QN_RANGE_ALIGN: the tensors that were added first, where
// another store has these alone (gradients of the trained ones).
QN_API const qn_tensor *qn_store_prefix(qn_graph *g, qn_store *store, uint64_t bytes);
// Another name for dumps, errors and timings.
QN_API void qn_name(qn_graph *g, const qn_tensor *t, const char *name);

// Appends the nodes of d(loss)/d(wrt[i]) and returns them in grads[i]; NULL where loss does not
// depend on it. `loss` is a scalar; its own gradient is `seed` (a scalar tensor) or 1 if NULL.
QN_API qn_result qn_backward(qn_graph *g, const qn_tensor *loss, const qn_tensor *seed,
                             const qn_tensor *const *wrt, size_t count, const qn_tensor **grads);

QN_API qn_result qn_graph_dump_text(const qn_graph *g, FILE *out);
QN_API qn_result qn_graph_dump_dot(const qn_graph *g, FILE *out);

// ---------------------------------------------------------------------------------- plans
// A graph made executable: an order, one arena with an offset for every intermediate, barriers,
// recorded command buffers. Owns the arena only; graph and stores must outlive it.
typedef struct qn_plan_opts {
    const qn_tensor *const *outputs; // these and the effects are kept, nothing else
    size_t output_count;
    double submit_seconds; // longest submission aimed for; 0: 0.05, kind to display GPUs
    bool profile;          // a timed span per node
    bool poison;           // tests: fill the arena with NaN before each run, with guard words
                           // around every tensor; see qn_plan_guards()
    bool no_inplace;       // tests: never let an output overwrite an input
} qn_plan_opts;

QN_API qn_result qn_plan_create(qn_graph *g, const qn_plan_opts *opts, qn_plan **out);
QN_API void qn_plan_destroy(qn_plan **plan);
// Copies the input; waits for the previous run when that is still going.
QN_API qn_result qn_plan_set(qn_plan *p, const qn_tensor *input, const void *data, uint64_t size);
QN_API qn_result qn_plan_run(qn_plan *p);  // returns once submitted
QN_API qn_result qn_plan_wait(qn_plan *p); // until the last run is done
// Waits, then copies an output out.
QN_API qn_result qn_plan_get(qn_plan *p, const qn_tensor *output, void *data, uint64_t size);

typedef struct qn_plan_stats {
    uint64_t arena, unshared; // bytes with and without reuse of memory
    uint64_t flops, traffic;  // arithmetic operations, bytes moved per run
    uint32_t nodes, dispatches, barriers, submissions;
    double host_seconds;      // host time spent in the last qn_plan_set/run calls
} qn_plan_stats;
QN_API qn_plan_stats qn_plan_describe(const qn_plan *p);

// One line per node of a profiled plan's last run, in order.
typedef struct qn_node_time {
    const char *op;   // "matmul"
    const char *name; // "h.0.attn.q"
    qn_shape shape;   // of its first output
    double seconds;
    uint64_t flops, bytes;
} qn_node_time;
QN_API qn_result qn_plan_profile(qn_plan *p, qn_node_time *out, size_t capacity, size_t *count);

// Bytes the plan would take on its device, before anything is allocated: the same planning
// without the recording.
QN_API qn_result qn_plan_estimate(qn_graph *g, const qn_plan_opts *opts, qn_plan_stats *out);

// Tests, poisoned plans: QN_OK, or QN_ERR_INVALID naming the node that wrote outside its tensor.
QN_API qn_result qn_plan_guards(qn_plan *p);

#ifdef __cplusplus
}
#endif
#endif
