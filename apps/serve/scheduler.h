// Requests become jobs, jobs' answers get slots of a runner, and all running slots step together:
// a request begins whenever a slot is free and leaves the others alone. One thread runs the
// scheduler; any thread may hand in jobs and read what they have written.
#ifndef QN_SERVE_SCHEDULER_H
#define QN_SERVE_SCHEDULER_H

#include "llm/runner.h"
#include "serve/reply.h"

typedef struct qn_scheduler qn_scheduler;
typedef struct qn_job qn_job;

typedef struct qn_scheduler_opts {
    const qn_chat *chat;
    const char *model;
    int64_t queue;        // jobs that wait for a slot at most
    double seconds;       // from handing in to the end, at most; 0: no limit
    double drain_seconds; // for running jobs when the scheduler is stopped
    uint64_t seed;        // of seeds for requests that name none
    // About a job's client, called with the scheduler locked. sleep: it waits for output, which
    // wake() announces; gone: it has closed its connection.
    void (*sleep)(void *client);
    void (*wake)(void *client);
    bool (*gone)(void *client);
} qn_scheduler_opts;

qn_result qn_scheduler_create(const qn_scheduler_opts *opts, qn_scheduler **out);
void qn_scheduler_destroy(qn_scheduler **s); // after its jobs were released

// Works until stop() says so, looked at ten times a second and between steps; then finishes what is
// there, within drain_seconds, and fails the rest. Only failures of the runner are returned.
// `chunk` is the runner's.
typedef struct qn_scheduler_loop {
    qn_runner *runner;
    int64_t chunk;
    bool (*stop)(void *user);
    void *user;
} qn_scheduler_loop;
qn_result qn_scheduler_run(qn_scheduler *s, const qn_scheduler_loop *loop);

// ------------------------------------------------------------------------------------ jobs

// Hands in a request, which the job takes over; on failure it stays the caller's. *status is then
// 503 (the queue is full, or the server is stopping) or 500.
qn_result qn_job_create(qn_scheduler *s, qn_request *request, void *client, qn_job **out,
                        int *status);
// Lets go of it: the client has what it wanted or is gone. An unfinished job is cancelled.
void qn_job_release(qn_job **job);
const qn_request *qn_job_request(const qn_job *j);

// Whether the job has ended; if not, the client sleeps until there is something new.
bool qn_job_ended(qn_job *j);
// The whole answer of an ended job, or its error, and the HTTP status.
int qn_job_result(qn_job *j, qn_textbuf *out);
// Streams: copies what is new. -1: nothing more will come; 0: nothing yet, and the client sleeps.
int64_t qn_job_read(qn_job *j, char *data, size_t size);

// ------------------------------------------------------------------------------------ figures

typedef struct qn_scheduler_figures {
    int64_t running, waiting; // jobs now
    int64_t slots_used;
    int64_t finished, failed, cancelled, refused; // jobs so far
    int64_t prompt_tokens, reused_tokens, tokens, steps;
    double prompt_seconds, seconds; // summed over answers: to the first token, from then on
    double step_seconds;            // in the runner
} qn_scheduler_figures;
qn_scheduler_figures qn_scheduler_describe(qn_scheduler *s);

#endif
