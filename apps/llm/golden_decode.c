// Golden decode traces through the runner, alone and as several texts of unequal lengths at once.
#include "fail.h"
#include "golden.h"
#include "mem.h"
#include "runner.h"

enum { SLOTS = 4 };

typedef struct trace {
    const int32_t *prompt, *keep; // [B, count]; keep NULL: everything is seen
    const int32_t *ids;           // [B, steps] what has to be written
    int64_t B, count, steps;
} trace;

// Feeds row b's prompt, less what is hidden, and the first `known` tokens that follow it.
static qn_result feed(qn_runner *r, int64_t slot, const trace *t, int64_t b, int64_t known)
{
    for (int64_t i = 0; i < t->count; i++)
        if (!t->keep || t->keep[b * t->count + i])
            QN_TRY(qn_runner_feed(r, slot, &t->prompt[b * t->count + i], 1));
    return qn_runner_feed(r, slot, t->ids + b * t->steps, (size_t)known);
}

// Slot s writes row s % B, from its token `first` + s on, each written at its own pace.
static qn_result write_texts(qn_runner *r, qn_golden_case *c, const trace *t, int64_t slots)
{
    int64_t at[SLOTS], running = slots, wrong = 0;
    for (int64_t s = 0; s < slots; s++) {
        at[s] = s < t->steps ? s : 0;
        QN_TRY(feed(r, s, t, s % t->B, at[s]));
    }
    while (running) {
        qn_runner_event e[SLOTS];
        size_t n;
        QN_TRY(qn_runner_step(r, e, &n));
        for (size_t i = 0; i < n; i++) {
            const int64_t s = e[i].slot;
            wrong += e[i].token != t->ids[s % t->B * t->steps + at[s]];
            if (++at[s] < t->steps) continue;
            QN_TRY(qn_runner_hold(r, s));
            running--;
        }
    }
    qn_golden_bound(c, slots == 1 ? "ids written alone" : "ids written together", (double)wrong,
                    0.5);
    return QN_OK;
}

static qn_result run(qn_golden_case *c, const qn_model_config *config, qn_store *weights,
                     const trace *t, int64_t slots)
{
    qn_runner *r;
    qn_runner_opts o = { .slots = slots, .context = t->count + t->steps + 1, .chunk = 4 };
    QN_TRY(qn_runner_create(c->dev, config, weights, &o, &r));
    qn_result result = write_texts(r, c, t, slots);
    qn_runner_destroy(&r);
    return result;
}

qn_result qn_golden_runner(qn_golden_case *c, const qn_model_config *config, qn_store *weights,
                           const int32_t *prompt, const int32_t *keep, int64_t B, int64_t count,
                           int64_t steps)
{
    int32_t *ids;
    QN_TRY(qn_golden_i32(c, "decode.ids", (uint64_t)(B * steps), &ids, NULL));
    trace t = { prompt, keep, ids, B, count, steps };
    qn_result result = run(c, config, weights, &t, 1);
    if (result == QN_OK) result = run(c, config, weights, &t, SLOTS);
    qn_free(ids);
    return result;
}
