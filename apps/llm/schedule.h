// What changes from step to step of training: the learning rate, and the optimiser's numbers.
#ifndef QN_SCHEDULE_H
#define QN_SCHEDULE_H

#include <quoin/base.h>

typedef enum qn_decay {
    QN_DECAY_CONSTANT = 0, // the peak after warm-up
    QN_DECAY_COSINE,       // half a cosine from the peak to the floor, which is kept afterwards
    QN_DECAY_COUNT
} qn_decay;
const char *qn_decay_name(qn_decay d); // "cosine"; NULL: no such
// QN_ERR_INVALID with the names that exist.
qn_result qn_decay_parse(const char *name, qn_decay *out);

typedef struct qn_schedule {
    qn_decay decay;
    double peak, floor; // learning rates; 0 <= floor <= peak
    int64_t warmup;     // steps of linear rise; the last of them has the peak
    int64_t steps;      // QN_DECAY_COSINE: the step at which the floor is reached; > warmup
} qn_schedule;

qn_result qn_schedule_check(const qn_schedule *s);
// Of a checked schedule. Steps count from 1.
double qn_schedule_rate(const qn_schedule *s, int64_t step);

typedef struct qn_adam {
    double beta1, beta2; // in [0, 1)
    double epsilon;      // > 0
    double clip;         // greatest norm of the gradient; 0: any
} qn_adam;

qn_result qn_adam_check(const qn_adam *o);
enum { QN_ADAM_HYPER = 8 };
// The vector that qn_adamw() reads at step `step`, counted from 1. Computed in double.
void qn_adam_hyper(const qn_adam *o, double rate, int64_t step, float hyper[QN_ADAM_HYPER]);
// The factor that qn_adamw() puts on a gradient of this norm.
double qn_adam_scale(const qn_adam *o, double norm);

#endif
