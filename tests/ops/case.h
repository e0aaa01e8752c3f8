// One case of an operation: how to build it, and what it means in double precision. The same
// tables serve ctest, `quoin check` and `quoin bench ops`. tests/ops/<file>.c defines
// `const qn_op_test qn_test_<op>` for every row of graph/ops.def.
#ifndef QN_CASE_H
#define QN_CASE_H

#include <quoin/graph.h>
#include <quoin/ops.h>

#define QN_CASE_INPUTS 10
#define QN_CASE_OUTPUTS 6

// How an input is filled, from a counter-based generator keyed by the case's name.
typedef enum qn_gen {
    QN_GEN_NORMAL = 0, // normal, standard deviation `scale` (0: 1)
    QN_GEN_UNIFORM,    // in [lo, hi)
    QN_GEN_INT,        // integers in [lo, hi] (also for i32)
    QN_GEN_DISTINCT,   // each row a random permutation of evenly spaced values in [lo, hi): no
                       // near ties, for discontinuous operations
    QN_GEN_CUSTOM,     // fill() of the input
} qn_gen;

// A tensor in double. Integers are held as doubles too.
typedef struct qn_ref {
    qn_shape shape;
    int64_t count;
    double *v;   // [count]
    double *mag; // outputs: [count] sum of the magnitudes of the terms behind each value; preset
                 // to 0, which means |v|
    double terms; // outputs: how many rounded terms one value sums; preset to 1
    double slack; // outputs: further units of roundoff * mag granted, for exp, log, tanh, ... (see
                  // Vulkan's precision table); preset to 0
} qn_ref;

typedef struct qn_case_input {
    const char *name;
    qn_dtype dtype;
    qn_shape shape;
    qn_gen gen;
    double lo, hi, scale;
    void (*fill)(qn_ref *t); // QN_GEN_CUSTOM
    bool grad;               // check the gradient with respect to it
    bool stored;             // lives in a store (for effects); its value afterwards is compared
                             // with the ref's changed input
} qn_case_input;

typedef struct qn_case {
    const char *name; // "nt_17x33x5": unique within the operation
    int inputs;
    qn_case_input in[QN_CASE_INPUTS];
    const void *params; // whatever build() and ref() need
    // Builds the operation; writes the outputs to compare, returns how many. Outputs that are
    // not f32 must match exactly.
    int (*build)(qn_graph *g, const struct qn_case *c, const qn_tensor *const *in,
                 const qn_tensor **out);
    // The equation in loops. out[i].shape, .count and the memory are ready.
    void (*ref)(const struct qn_case *c, qn_ref *in, qn_ref *out);
    double grad_slack; // factor on the gradient's tolerance; 0: 1. Say why beside it.
    bool bench;        // a shape worth timing
    bool large;        // only timed, as it would take the tests too long; its values are proved
                       // on the device before it is
    bool no_grad_ref;  // the reference is not differentiable by differences (integers, sampling)
    uint32_t no_grad_out; // bit i: out[i] is given without a gradient, like the rows of
                          // qn_cross_entropy(); it takes no part in the objective
} qn_case;

// A malformed call: the graph must end in `code` with `message` as part of its message.
typedef struct qn_refusal {
    const char *name;
    qn_result code;
    const char *message;
    void (*build)(qn_graph *g);
} qn_refusal;

typedef struct qn_op_test {
    const qn_case *cases;
    size_t case_count;
    const qn_refusal *refusals;
    size_t refusal_count;
} qn_op_test;

#define QN_OP_TEST(op, case_table, refusal_table)                                                  \
    const qn_op_test qn_test_##op = { case_table, sizeof(case_table) / sizeof *(case_table),       \
                                      refusal_table,                                               \
                                      sizeof(refusal_table) / sizeof *(refusal_table) }

#define QN_OP_ROW(name) extern const qn_op_test qn_test_##name;
#include "ops.def"
#undef QN_OP_ROW

#endif
