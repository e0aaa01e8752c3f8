// `quoin check`: every operation's cases proved on the user's own driver. The cases live with the
// tests (tests/ops); a program that offers the command links them and registers them here, so this
// library knows only their results.
#ifndef QN_CHECK_H
#define QN_CHECK_H

#include <quoin/engine.h>
#include <stdio.h>

struct qn_bench_ops_opts;
struct qn_bench_log;

// One case, or one refusal, of an operation.
typedef struct qn_check_case {
    char name[64];
    char failure[512]; // what went wrong first; empty: passed
    // The worst value met, forward or gradient: its error in units of its tolerance, and divided
    // by the magnitude of the terms behind it.
    double units, relative;
    char tensor[64]; // where: "out0", "grad x"; empty when nothing was compared
    int64_t index;
    const char *form; // "flat" or "portable": the device on which it was met
    double seconds;
} qn_check_case;

typedef struct qn_check_op {
    const char *op;
    qn_check_case *cases;
    size_t count, failed;
    double seconds;
} qn_check_op;

// How to prove one operation. `run` appends a qn_check_case for each case whose name contains
// `filter` (NULL: all); what the device gets wrong is in there. It fails only where it cannot go on.
typedef struct qn_check_suite {
    const char *op;
    qn_result (*run)(const struct qn_check_suite *s, qn_device *const *devs, size_t count,
                     const char *filter, qn_check_op *out);
    // Times the operation's larger cases, see ops.h.
    qn_result (*time)(const struct qn_check_suite *s, qn_device *dev,
                      const struct qn_bench_ops_opts *opts, struct qn_bench_log *log);
    const void *data;
} qn_check_suite;

// The suites of this program, ended by a row without a name. They must outlive all checks.
void qn_check_register(const qn_check_suite *suites);
const qn_check_suite *qn_check_suites(void); // what was registered
// QN_OK, or QN_ERR_INVALID with the known operations.
qn_result qn_check_known(const char *const *ops, size_t count);

// Opens the devices a check uses: the selected one and, where that is a flat device, the same again
// with its subgroup and texel capabilities hidden, so that both forms of every kernel are covered.
// Destroy devs[0..*count) afterwards.
qn_result qn_check_open(qn_context *ctx, const char *select, qn_device *devs[2], size_t *count);

typedef struct qn_check_opts {
    const char *const *ops; // these operations only, in the table's order; op_count 0: all
    size_t op_count;
    const char *filter; // cases whose name contains it; NULL: all
    void (*done)(void *user, const qn_check_op *op); // called after each operation; may be NULL
    void *user;
} qn_check_opts;

typedef struct qn_check_report {
    qn_device_info device;
    qn_check_op *ops;
    size_t count;
    size_t passed, failed; // cases
    double seconds;
} qn_check_report;

// QN_OK when the check could be made, whatever it found. An unknown operation is QN_ERR_INVALID
// and lists the known ones.
qn_result qn_check_ops(qn_device *const *devs, size_t count, const qn_check_opts *opts,
                       qn_check_report *out);
void qn_check_free(qn_check_report *report);

// One line for an operation, followed by one for each failed case.
void qn_check_print_op(FILE *out, const qn_check_op *op);
// The device, a line for each operation, "N passed, M failed".
void qn_check_print(FILE *out, const qn_check_report *report);
// The same as JSON, with device, driver, version and every case. Free with qn_free().
qn_result qn_check_json(const qn_check_report *report, char **text);

#endif
