// Private to the runner: a case's data, its executions, and the judgement of what came out.
#ifndef QN_RUN_IMPL_H
#define QN_RUN_IMPL_H

#include "run.h"

#include "fail.h"
#include "mem.h"

// ------------------------------------------------------------------------- data (run_data.c)

// A floating-point format: bits of significand, exponent of the least normal number.
typedef struct run_format {
    int bits, least;
} run_format;
run_format run_format_of(qn_dtype t); // of f32, f16, bf16
// v rounded to nearest even; infinite where it does not fit.
double run_round(run_format f, double v);
// Half the distance between neighbours of v.
double run_half_ulp(run_format f, double v);

// Between `count` doubles and the device's representation. Encoding rounds the doubles too.
void run_encode(qn_dtype t, double *v, void *bytes, int64_t count);
void run_decode(qn_dtype t, const void *bytes, double *v, int64_t count);

// Repeatable numbers: number i of the sequence called op/name/what.
uint64_t run_key(const char *op, const char *name, const char *what);
double run_uniform(uint64_t key, uint64_t i); // in [0, 1)
double run_normal(uint64_t key, uint64_t i);

// The case being proved: its inputs, exactly as the device gets them.
typedef struct run_job {
    const char *op;
    const qn_case *c;
    qn_arena arena; // everything below
    qn_ref in[QN_CASE_INPUTS];
    void *bytes[QN_CASE_INPUTS];
    uint64_t size[QN_CASE_INPUTS];
    qn_check_case *report;
    const char *form; // of the device in use
    // What the reference says, asked once for all devices.
    bool known;
    qn_ref after[QN_CASE_INPUTS]; // inputs as the reference leaves them
    qn_ref out[QN_CASE_OUTPUTS];
    struct run_slope *slopes; // run_gradient.c
} run_job;
qn_result run_make_inputs(run_job *j);
// A reference tensor with its presets.
qn_result run_make_ref(qn_arena *arena, qn_shape shape, qn_ref *out);
void run_preset(qn_ref *t);

// ------------------------------------------------------------------- judgement (run_judge.c)

// Records the first failure of the case: "flat: <what>".
void run_fault(run_job *j, const char *fmt, ...) QN_PRINTF(2, 3);
// The same for a failed call: its result and message are added.
void run_fault_call(run_job *j, qn_result r, const char *what);
// Compares one value: a difference above `tolerance` is a fault. `relative_to` is a magnitude.
void run_judge(run_job *j, const char *tensor, int64_t index, double got, double expected,
               double tolerance, double relative_to);
// Compares a tensor with its reference.
void run_judge_tensor(run_job *j, const char *tensor, qn_dtype dtype, const void *bytes,
                      const qn_ref *ref);

// ------------------------------------------------------------------ execution (run_device.c)

// How a case is built and planned.
typedef struct run_variant {
    const char *what; // named in faults
    bool backward;    // with the gradients of the objective, see run_gradient.c
    bool indirect;    // f32 inputs pass through an operation, so that they may be overwritten
    bool no_inplace, poison, profile;
} run_variant;

// The scope of the objective's nodes: their names begin with it, those of its gradient with
// "d(" RUN_OBJECTIVE.
#define RUN_OBJECTIVE "objective"

typedef struct run_value {
    qn_dtype dtype;
    qn_shape shape;
    uint64_t size;
    void *bytes; // NULL: there is none
} run_value;

typedef struct run_result {
    int outputs;
    run_value out[QN_CASE_OUTPUTS];
    double *weight[QN_CASE_OUTPUTS]; // the objective's factors; NULL: this output is not in it
    run_value stored[QN_CASE_INPUTS];
    run_value grad[QN_CASE_INPUTS];
} run_result;

// Builds, plans and runs the case twice. Memory comes from the job's arena. False after a fault
// that leaves nothing to compare.
bool run_execute(run_job *j, qn_device *dev, const run_variant *v, run_result *out);
// The same in steps, for timing: a plan with its inputs set, ready to be run as often as wanted.
typedef struct run_session run_session;
qn_result run_open(run_job *j, qn_device *dev, const run_variant *v, run_result *res,
                   run_session **out);
qn_plan *run_plan(run_session *s);
void run_close(run_session **s);
// Are all values the same bits? Otherwise a fault.
void run_same_bits(run_job *j, const char *what, const run_result *a, const run_result *b);

// ------------------------------------------------------------------ gradient (run_gradient.c)

// Compares the gradients of a backward execution with differences of the reference.
qn_result run_check_gradient(run_job *j, const run_result *got);

// Proves the forward values, or the gradients, on one device (run.c).
qn_result run_prove(run_job *j, qn_device *dev, bool gradient);

#endif
