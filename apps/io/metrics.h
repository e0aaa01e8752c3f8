// metrics.jsonl: one JSON object a line, "step" first, flushed after each line. A run that
// resumes cuts off what lies beyond its checkpoint, and a line that a crash left half written.
#ifndef QN_METRICS_H
#define QN_METRICS_H

#include "fail.h"

typedef struct qn_metrics qn_metrics;

typedef struct qn_metric {
    const char *key;
    double value;     // null where not finite
    const char *text; // not NULL: this instead of the value
} qn_metric;

// Opens or makes the file and keeps its lines up to and including step `last_step` (-1: none, a
// new run). QN_ERR_FORMAT, and the file untouched, when a kept line is not one of ours.
qn_result qn_metrics_open(const char *path, int64_t last_step, qn_metrics **out);
qn_result qn_metrics_write(qn_metrics *m, int64_t step, const qn_metric *items, size_t count);
qn_result qn_metrics_close(qn_metrics **m);

#endif
