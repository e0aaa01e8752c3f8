// Threads of the merge pipeline.
#include "worker.h"

#include "mem.h"

#include <pthread.h>
#include <stdio.h>

struct qn_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    qn_work_fn work;
    void *arg;
    bool busy, ended, due;
    qn_result result;
    char message[1024]; // failures are per thread: carried over
};

static void *loop(void *arg)
{
    qn_worker *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->ended) {
        if (!w->busy) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        qn_work_fn work = w->work;
        pthread_mutex_unlock(&w->lock);
        qn_result r = work(w->arg);
        pthread_mutex_lock(&w->lock);
        w->result = r;
        if (r != QN_OK) snprintf(w->message, sizeof w->message, "%s", qn_error_message());
        w->busy = false;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

qn_result qn_worker_start(qn_worker **out)
{
    qn_worker *w = qn_calloc(1, sizeof *w);
    if (!w) return qn_no_memory(sizeof *w);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    if (pthread_create(&w->thread, NULL, loop, w) != 0) {
        pthread_cond_destroy(&w->changed);
        pthread_mutex_destroy(&w->lock);
        qn_free(w);
        return qn_fail(QN_ERR_NO_MEMORY, "the system gives no further thread");
    }
    *out = w;
    return QN_OK;
}

void qn_worker_post(qn_worker *w, qn_work_fn work, void *arg)
{
    pthread_mutex_lock(&w->lock);
    w->work = work;
    w->arg = arg;
    w->busy = w->due = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

qn_result qn_worker_wait(qn_worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->busy) pthread_cond_wait(&w->changed, &w->lock);
    qn_result r = w->due ? w->result : QN_OK;
    w->due = false;
    pthread_mutex_unlock(&w->lock);
    return r == QN_OK ? r : qn_fail(r, "%s", w->message);
}

void qn_worker_stop(qn_worker **worker)
{
    qn_worker *w = *worker;
    if (!w) return;
    *worker = NULL;
    pthread_mutex_lock(&w->lock);
    while (w->busy) pthread_cond_wait(&w->changed, &w->lock);
    w->ended = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    qn_free(w);
}
