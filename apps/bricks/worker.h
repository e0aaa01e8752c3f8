// A thread that does one thing at a time for another: post, do something else, wait.
#ifndef QN_WORKER_H
#define QN_WORKER_H

#include "fail.h"

typedef struct qn_worker qn_worker;
typedef qn_result (*qn_work_fn)(void *arg);

qn_result qn_worker_start(qn_worker **out);
void qn_worker_stop(qn_worker **w); // waits
// Only after the last one was waited for.
void qn_worker_post(qn_worker *w, qn_work_fn work, void *arg);
// The result of what was posted last, with its message; QN_OK when nothing is due.
qn_result qn_worker_wait(qn_worker *w);

#endif
