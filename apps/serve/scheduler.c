// Continuous batching: between two steps, jobs that ended, ran out of time or lost their client
// leave, and waiting ones take their slots.
#include "scheduler.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"
#include "random.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

// What an answer has sent, and where it runs.
typedef struct progress {
    size_t text, tokens; // of the answer's, that stand in events already
    double begun, first; // when it got its slot, when its first token came
    int64_t slot;        // -1: none
} progress;

struct qn_job {
    qn_scheduler *s;
    qn_job *next; // in the order of arrival, or of having got a slot
    qn_request request;
    qn_reply reply;
    char id[48];
    qn_answer *answers;
    progress *progress;
    size_t count;     // of answers
    size_t unslotted; // the first that has not had a slot yet
    size_t finished;
    double handed_in, begun, first, ended_at;
    void *client; // NULL: released
    bool sleeping, gone, ended;
    int status; // of the failure; 0: none
    char message[256];
    qn_textbuf out; // events
    size_t sent;
    int references; // the list's and the client's
};

typedef struct slot {
    qn_job *job; // NULL: free
    size_t answer;
    size_t aligned; // tokens at the text's beginning that were read in whole pieces
} slot;

struct qn_scheduler {
    qn_scheduler_opts o;
    pthread_mutex_t lock;
    pthread_cond_t news;
    qn_job *jobs; // those that have not ended
    bool stopping;
    qn_random random;
    qn_scheduler_figures figures;
    double looked_at; // when clients were last looked for
    // The running loop's.
    const qn_scheduler_loop *loop;
    slot *slots;
    int64_t slot_count;
    qn_runner_event *events;
};

static const double LOOK_SECONDS = 0.05;

qn_result qn_scheduler_create(const qn_scheduler_opts *opts, qn_scheduler **out)
{
    *out = NULL;
    qn_scheduler *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->o = *opts;
    s->random = qn_random_start(opts->seed, 0x5e7);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->news, &attr);
    pthread_condattr_destroy(&attr);
    *out = s;
    return QN_OK;
}

void qn_scheduler_destroy(qn_scheduler **scheduler)
{
    qn_scheduler *s = *scheduler;
    *scheduler = NULL;
    if (!s) return;
    pthread_cond_destroy(&s->news);
    pthread_mutex_destroy(&s->lock);
    qn_free(s);
}

qn_scheduler_figures qn_scheduler_describe(qn_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    qn_scheduler_figures f = s->figures;
    f.running = f.waiting = 0;
    for (const qn_job *j = s->jobs; j; j = j->next) {
        if (j->unslotted)
            f.running++;
        else
            f.waiting++;
    }
    f.slots_used = 0;
    for (int64_t i = 0; i < s->slot_count; i++) f.slots_used += s->slots[i].job != NULL;
    pthread_mutex_unlock(&s->lock);
    return f;
}

// ------------------------------------------------------------------------------ jobs

static void free_job(qn_job *j)
{
    for (size_t i = 0; j->answers && i < j->count; i++) qn_answer_free(&j->answers[i]);
    qn_free(j->answers);
    qn_free(j->progress);
    qn_textbuf_free(&j->out);
    qn_request_free(&j->request);
    qn_free(j);
}

static void drop(qn_job *j)
{
    if (--j->references == 0) free_job(j);
}

static void announce(qn_job *j)
{
    if (!j->sleeping || !j->client) return;
    j->sleeping = false;
    j->s->o.wake(j->client);
}

static void set_seed(qn_scheduler *s, qn_request *r)
{
    uint64_t drawn = (uint64_t)qn_random_word(&s->random) << 16 ^ qn_random_word(&s->random);
    if (!r->seeded) r->sampling.seed = drawn;
}

static qn_result prepare(qn_scheduler *s, qn_job *j)
{
    j->count = j->request.prompt_count * (size_t)j->request.n;
    j->answers = qn_calloc(j->count, sizeof *j->answers);
    j->progress = qn_calloc(j->count, sizeof *j->progress);
    if (!j->answers || !j->progress) return qn_no_memory(j->count * sizeof *j->answers);
    for (size_t i = 0; i < j->count; i++) {
        j->progress[i].slot = -1;
        qn_answer *a = &j->answers[i];
        *a = (qn_answer){ .chat = s->o.chat,
                          .max_tokens = j->request.max_tokens,
                          .ignore_end = j->request.ignore_end,
                          .keep = j->request.top >= 0,
                          .trim = j->request.endpoint == QN_CHAT_COMPLETION,
                          .stops = { .stop = (const char *const *)j->request.stops,
                                     .count = j->request.stop_count } };
        QN_TRY(qn_answer_start(a));
    }
    snprintf(j->id, sizeof j->id, "%s-%08x%08x",
             j->request.endpoint == QN_CHAT_COMPLETION ? "chatcmpl" : "cmpl",
             qn_random_word(&s->random), qn_random_word(&s->random));
    j->reply = (qn_reply){ .request = &j->request,
                           .id = j->id,
                           .model = s->o.model,
                           .created = (int64_t)time(NULL),
                           .chat = s->o.chat };
    return QN_OK;
}

static qn_result refuse(qn_scheduler *s)
{
    int64_t waiting = 0;
    for (const qn_job *j = s->jobs; j; j = j->next) waiting += !j->unslotted;
    if (s->stopping) return qn_fail(QN_ERR_CANCELLED, "the server is shutting down");
    if (waiting < s->o.queue) return QN_OK;
    s->figures.refused++;
    return qn_fail(QN_ERR_CANCELLED, "%lld requests are waiting already; try again later",
                   (long long)waiting);
}

qn_result qn_job_create(qn_scheduler *s, qn_request *request, void *client, qn_job **out,
                        int *status)
{
    *status = 500;
    qn_job *j = qn_calloc(1, sizeof *j);
    if (!j) return qn_no_memory(sizeof *j);
    *j = (qn_job){
        .s = s, .request = *request, .client = client, .references = 2, .handed_in = qn_clock()
    };
    pthread_mutex_lock(&s->lock);
    qn_result r = refuse(s);
    if (r != QN_OK) *status = 503;
    if (r == QN_OK) {
        set_seed(s, &j->request);
        r = prepare(s, j);
    }
    if (r == QN_OK) {
        qn_job **last = &s->jobs;
        while (*last) last = &(*last)->next;
        *last = j;
        pthread_cond_signal(&s->news);
    }
    pthread_mutex_unlock(&s->lock);
    if (r != QN_OK) {
        j->request = (qn_request){ 0 }; // stays the caller's
        free_job(j);
        return r;
    }
    *request = (qn_request){ 0 };
    *out = j;
    return QN_OK;
}

void qn_job_release(qn_job **job)
{
    qn_job *j = *job;
    *job = NULL;
    if (!j) return;
    qn_scheduler *s = j->s;
    pthread_mutex_lock(&s->lock);
    j->client = NULL;
    pthread_cond_signal(&s->news);
    drop(j);
    pthread_mutex_unlock(&s->lock);
}

const qn_request *qn_job_request(const qn_job *j)
{
    return &j->request;
}

bool qn_job_ended(qn_job *j)
{
    pthread_mutex_lock(&j->s->lock);
    bool ended = j->ended;
    if (!ended) {
        j->sleeping = true;
        j->s->o.sleep(j->client);
    }
    pthread_mutex_unlock(&j->s->lock);
    return ended;
}

static qn_reply_times times_of(const qn_job *j)
{
    double first = j->first ? j->first : j->ended_at;
    return (qn_reply_times){ .prompt_seconds = j->begun ? first - j->begun : 0,
                             .seconds = j->ended_at - first };
}

// The job has ended: nobody else looks at it any more.
int qn_job_result(qn_job *j, qn_textbuf *out)
{
    qn_reply_times t = times_of(j);
    if (!j->status && qn_reply_whole(&j->reply, j->answers, j->count, &t, out) == QN_OK) return 200;
    qn_textbuf_free(out);
    qn_reply_error(j->status ? j->status : 500,
                   j->status ? j->message : "the answer could not be written", NULL, false, out);
    return j->status ? j->status : 500;
}

int64_t qn_job_read(qn_job *j, char *data, size_t size)
{
    pthread_mutex_lock(&j->s->lock);
    size_t left = j->out.size - j->sent, n = left < size ? left : size;
    int64_t result = (int64_t)n;
    if (n) memcpy(data, j->out.data + j->sent, n);
    j->sent += n;
    if (j->sent == j->out.size) j->sent = j->out.size = 0;
    if (!n && (j->ended || j->out.failed)) {
        result = -1;
    } else if (!n) {
        j->sleeping = true;
        j->s->o.sleep(j->client);
    }
    pthread_mutex_unlock(&j->s->lock);
    return result;
}

// ------------------------------------------------------------------------------ ends

static void free_slot(qn_scheduler *s, int64_t i)
{
    if (i < 0) return;
    qn_runner_hold(s->loop->runner, i);
    s->slots[i].job = NULL;
}

// Takes the job off the list. With a status, as a failure.
static void end_job(qn_scheduler *s, qn_job *j, int status, const char *message)
{
    for (size_t i = 0; i < j->count; i++) {
        free_slot(s, j->progress[i].slot);
        j->progress[i].slot = -1;
    }
    j->ended_at = qn_clock();
    j->ended = true;
    j->status = status;
    snprintf(j->message, sizeof j->message, "%s", message ? message : "");
    if (j->request.stream) {
        qn_reply_times t = times_of(j);
        if (status) {
            qn_reply_error(status, j->message, NULL, true, &j->out);
        } else {
            if (j->request.usage) qn_reply_usage(&j->reply, j->answers, j->count, &t, &j->out);
            qn_reply_done(&j->out);
        }
    }
    if (j->gone || !j->client)
        s->figures.cancelled++;
    else if (status)
        s->figures.failed++;
    else
        s->figures.finished++;
    announce(j);
    qn_job **at = &s->jobs;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    drop(j);
}

static void end_all(qn_scheduler *s, int status, const char *message)
{
    while (s->jobs) end_job(s, s->jobs, status, message);
}

static void end_answer(qn_scheduler *s, qn_job *j, size_t i)
{
    progress *p = &j->progress[i];
    qn_answer *a = &j->answers[i];
    double now = qn_clock();
    free_slot(s, p->slot);
    p->slot = -1;
    if (p->first) s->figures.seconds += now - p->first;
    j->finished++;
    if (a->finish == QN_FINISH_BROKEN) {
        end_job(s, j, 500,
                "the model gave no usable number: its weights hold NaN or infinite "
                "values");
        return;
    }
    if (j->request.stream) qn_reply_end(&j->reply, a, i, &j->out);
    announce(j);
    if (j->finished == j->count) end_job(s, j, 0, NULL);
}

// ------------------------------------------------------------------------------ between steps

static void leave(qn_scheduler *s, double now)
{
    bool look = now - s->looked_at >= LOOK_SECONDS;
    if (look) s->looked_at = now;
    for (qn_job *j = s->jobs, *next; j; j = next) {
        next = j->next;
        if (look && j->client) j->gone |= s->o.gone(j->client);
        if (j->gone || !j->client)
            end_job(s, j, 499, "the client has gone");
        else if (s->o.seconds > 0 && now - j->handed_in > s->o.seconds)
            end_job(s, j, 504, "the request took longer than this server allows");
    }
}

// Tokens of the slot's text that need not be read again: whole pieces, since other pieces give other
// roundings and an answer must not depend on who had the slot before. The prompt has at least one
// more in common with it, which the runner reads again.
static size_t common(const qn_scheduler *s, int64_t i, const qn_prompt *p)
{
    size_t count, n = 0;
    const int32_t *text = qn_runner_text(s->loop->runner, i, &count, NULL);
    if (qn_runner_remembers(s->loop->runner)) return 0; // a memory cannot be cut back
    while (n < count && n < p->count && text[n] == p->id[n]) n++;
    size_t keep = n ? n - 1 : 0;
    if (keep > s->slots[i].aligned) keep = s->slots[i].aligned;
    return keep - keep % (size_t)s->loop->chunk;
}

static int64_t best_slot(const qn_scheduler *s, const qn_prompt *p, size_t *keep)
{
    int64_t best = -1;
    *keep = 0;
    for (int64_t i = 0; i < s->slot_count; i++) {
        if (s->slots[i].job) continue;
        size_t n = common(s, i, p);
        if (best >= 0 && n <= *keep) continue;
        best = i;
        *keep = n;
    }
    return best;
}

static qn_result begin_answer(qn_scheduler *s, qn_job *j, size_t index, int64_t i, size_t keep)
{
    qn_runner *r = s->loop->runner;
    const qn_prompt *p = &j->request.prompts[index / (size_t)j->request.n];
    qn_runner_sampling how = { .how = j->request.sampling,
                               .bias = j->request.bias,
                               .bias_count = j->request.bias_count,
                               .top = j->request.top > 0 ? j->request.top : 0 };
    how.how.seed += index % (size_t)j->request.n;
    s->slots[i].aligned = 0;
    const size_t there = keep ? keep + 1 : 0;
    QN_TRY(keep ? qn_runner_rewind(r, i, there) : qn_runner_reset(r, i));
    QN_TRY(qn_runner_sample(r, i, &how));
    QN_TRY(qn_runner_feed(r, i, p->id + there, p->count - there));
    s->figures.prompt_tokens += (int64_t)p->count;
    s->figures.reused_tokens += (int64_t)keep;
    const size_t whole = p->count - 1; // the last token is read by itself
    s->slots[i] = (slot){ j, index, whole - whole % (size_t)s->loop->chunk };
    j->progress[index].slot = i;
    return QN_OK;
}

// Moves the job to the end of the list, so that one with many answers does not keep all slots.
static void move_back(qn_scheduler *s, qn_job *j)
{
    qn_job **at = &s->jobs;
    while (*at != j) at = &(*at)->next;
    *at = j->next;
    while (*at) at = &(*at)->next;
    *at = j;
    j->next = NULL;
}

// The next answer of a job. False: there was no free slot.
static bool begin_next(qn_scheduler *s, qn_job *j, double now)
{
    const size_t index = j->unslotted;
    qn_answer *a = &j->answers[index];
    size_t keep = 0;
    int64_t i = -1;
    if (a->finish == QN_FINISH_NOT) {
        i = best_slot(s, &j->request.prompts[index / (size_t)j->request.n], &keep);
        if (i < 0) return false;
    }
    j->unslotted++;
    if (!j->begun) j->begun = now;
    j->progress[index].begun = now;
    if (j->request.stream) qn_reply_begin(&j->reply, a, index, &j->out);
    if (i < 0) {
        end_answer(s, j, index); // nothing to write
    } else if (begin_answer(s, j, index, i, keep) != QN_OK) {
        end_job(s, j, 500, qn_error_message());
    } else {
        announce(j);
        if (j->unslotted < j->count) move_back(s, j);
    }
    return true;
}

static void enter(qn_scheduler *s, double now)
{
    for (bool more = true; more;) {
        qn_job *j = s->jobs;
        while (j && j->unslotted == j->count) j = j->next;
        more = j && begin_next(s, j, now);
    }
}

// ------------------------------------------------------------------------------ steps

// Events for what is certain by now, with the tokens that begin in it.
static void emit(qn_job *j, size_t index)
{
    qn_answer *a = &j->answers[index];
    progress *p = &j->progress[index];
    size_t end = p->tokens;
    while (end < a->token_count &&
           (a->finish != QN_FINISH_NOT || a->token[end].offset < a->text.size))
        end++;
    if (a->text.size == p->text && end == p->tokens) return;
    qn_reply_part(&j->reply, a, index, p->text, p->tokens, end, &j->out);
    p->text = a->text.size;
    p->tokens = end;
}

static void take(qn_scheduler *s, const qn_runner_event *e)
{
    qn_job *j = s->slots[e->slot].job;
    if (!j) return;
    const size_t index = s->slots[e->slot].answer;
    qn_answer *a = &j->answers[index];
    progress *p = &j->progress[index];
    const double now = qn_clock();
    if (!p->first) {
        p->first = now;
        s->figures.prompt_seconds += now - p->begun;
    }
    if (!j->first) j->first = now;
    const int64_t before = a->tokens;
    if (qn_answer_push(a, e) != QN_OK) {
        end_job(s, j, 500, qn_error_message());
        return;
    }
    s->figures.tokens += a->tokens - before;
    if (j->request.stream) {
        emit(j, index);
        if (j->out.size > j->sent) announce(j);
    }
    if (a->finish != QN_FINISH_NOT) end_answer(s, j, index);
}

static bool any_running(const qn_scheduler *s)
{
    for (int64_t i = 0; i < s->slot_count; i++)
        if (s->slots[i].job) return true;
    return false;
}

static void wait_for_news(qn_scheduler *s)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += 100 * 1000 * 1000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&s->news, &s->lock, &t);
}

// With the lock held, but for the step itself.
static qn_result step(qn_scheduler *s)
{
    size_t count;
    pthread_mutex_unlock(&s->lock);
    double start = qn_clock();
    qn_result r = qn_runner_step(s->loop->runner, s->events, &count);
    double seconds = qn_clock() - start;
    pthread_mutex_lock(&s->lock);
    s->figures.steps++;
    s->figures.step_seconds += seconds;
    if (r != QN_OK) {
        end_all(s, 500, qn_error_message());
        return r;
    }
    for (size_t i = 0; i < count; i++) take(s, &s->events[i]);
    return QN_OK;
}

static qn_result loop(qn_scheduler *s)
{
    double deadline = 0;
    for (;;) {
        const double now = qn_clock();
        if (!s->stopping && s->loop->stop(s->loop->user)) {
            s->stopping = true;
            deadline = now + s->o.drain_seconds;
        }
        leave(s, now);
        if (s->stopping && (!s->jobs || now >= deadline)) break;
        enter(s, now);
        if (any_running(s))
            QN_TRY(step(s));
        else
            wait_for_news(s);
    }
    end_all(s, 503, "the server is shutting down");
    return QN_OK;
}

qn_result qn_scheduler_run(qn_scheduler *s, const qn_scheduler_loop *l)
{
    const int64_t count = qn_runner_slots(l->runner);
    slot *slots = qn_calloc((size_t)count, sizeof *slots);
    qn_runner_event *events = qn_calloc((size_t)count, sizeof *events);
    qn_result r = slots && events ? QN_OK : qn_no_memory((size_t)count * sizeof *events);
    if (r == QN_OK) {
        pthread_mutex_lock(&s->lock);
        s->loop = l;
        s->slots = slots;
        s->slot_count = count;
        s->events = events;
        r = loop(s);
        s->stopping = true;
        s->slot_count = 0;
        s->slots = NULL;
        pthread_mutex_unlock(&s->lock);
    }
    qn_free(slots);
    qn_free(events);
    return r;
}
