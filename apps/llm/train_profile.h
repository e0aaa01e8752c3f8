// Where the time of training steps goes: per operation, host and submissions.
#ifndef QN_TRAIN_PROFILE_H
#define QN_TRAIN_PROFILE_H

#include "train.h"

typedef struct qn_op_time {
    const char *op;
    double seconds;
    uint64_t flops, bytes;
    uint32_t nodes;
} qn_op_time;

// Zero-initialise.
typedef struct qn_train_profile {
    qn_op_time *ops;
    size_t count, cap;
    double step_seconds, host_seconds;
    uint64_t submissions;
    int64_t steps;
} qn_train_profile;

// Adds the step that just ended (of a trainer made for profiling). The first steps, during which
// drivers compile, are left out.
qn_result qn_train_profile_add(qn_train_profile *p, const qn_train_event *e);
void qn_train_profile_print(const qn_train_profile *p, FILE *out, bool json);
void qn_train_profile_free(qn_train_profile *p);

#endif
