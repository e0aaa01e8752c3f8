// What a training run leaves for people: metrics.jsonl, TensorBoard events, a loss curve and a
// heat map of the experts' load.
#ifndef QN_TRAIN_LOG_H
#define QN_TRAIN_LOG_H

#include "train.h"

typedef struct qn_train_log qn_train_log;

// Opens the files in `dir`, cutting off what earlier runs wrote behind step `resumed` (0: a new
// run, which starts them anew).
qn_result qn_train_log_open(const char *dir, int64_t resumed, qn_train_log **out);
// QN_TRAIN_STEP and QN_TRAIN_EVAL are written, other events are ignored.
qn_result qn_train_log_event(qn_train_log *l, const qn_train_event *e);
// Writes loss.svg (from all of metrics.jsonl) and experts.svg, closes everything.
qn_result qn_train_log_close(qn_train_log **l);

// The load of the last sampled step, each expert's share relative to an even one (1 = even):
// routers in order, as qn_trainer_routers() counts them. NULL before the first sample.
const double *qn_train_log_loads(const qn_train_log *l, size_t *count);
// Experts that got nothing in any sample of the last 100 steps and were not reported yet; fills
// text with their names. Returns how many.
size_t qn_train_log_dead(qn_train_log *l, char *text, size_t size);

#endif
