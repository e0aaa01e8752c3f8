// Training steps, prompts and decoding, timed by the clock on the wall.
#include "bench/model.h"

#include "llm/runner.h"
#include "llm/trainer.h"
#include "platform.h"

#include <math.h>

// ------------------------------------------------------------------------------------ training

typedef struct training {
    qn_trainer *trainer;
    int32_t *ids, *labels;
    int64_t step;
    double host;
} training;

static void random_ids(int32_t *out, size_t count, int64_t vocab, uint32_t state)
{
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (int32_t)((state >> 8) % (uint32_t)vocab);
    }
}

static qn_result train_once(void *user, double *seconds)
{
    training *t = user;
    qn_step_report report;
    QN_TRY(qn_trainer_step(t->trainer, ++t->step, 1e-4, t->ids, t->labels, &report));
    *seconds = report.seconds;
    t->host = report.host_seconds;
    return QN_OK;
}

static qn_result train(qn_device *dev, training *t, const qn_bench_lm_opts *o, int64_t batch,
                       int64_t positions, qn_times *times)
{
    const qn_trainer_opts opts = {
        .batch = batch,
        .positions = positions,
        .weights = o->weights,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .clip = 1,
        .seed = 1,
    };
    const size_t count = (size_t)(batch * positions);
    QN_TRY(qn_trainer_create(dev, o->config, &opts, &t->trainer));
    QN_TRY(qn_model_initialise(o->config, qn_trainer_weights(t->trainer), 1, false));
    t->ids = qn_calloc(count, sizeof *t->ids);
    t->labels = qn_calloc(count, sizeof *t->labels);
    if (!t->ids || !t->labels) return qn_no_memory(count * sizeof *t->ids);
    random_ids(t->ids, count, o->config->vocab_size, 1);
    random_ids(t->labels, count, o->config->vocab_size, 2);
    return qn_measure(&o->measure, train_once, t, times);
}

qn_result qn_bench_training(qn_device *dev, const qn_bench_lm_opts *o, int64_t batch,
                            int64_t positions, qn_bench_log *log)
{
    char shape[96];
    snprintf(shape, sizeof shape, "%lldx%lld", (long long)batch, (long long)positions);
    qn_bench_record r = qn_bench_record_start("model", o->name, "training step", shape);
    training t = { 0 };
    qn_times times;
    qn_result result = train(dev, &t, o, batch, positions, &times);
    if (result == QN_OK) {
        qn_bench_judge(&r, &times, qn_trainer_flops(t.trainer), 0, o->peaks);
        r.tokens_per_s = (double)(batch * positions) / times.median;
        r.memory = (double)qn_device_usage_now(dev).peak;
        snprintf(r.note, sizeof r.note, "host %.1f %%", 100 * t.host / times.median);
    }
    qn_trainer_destroy(&t.trainer);
    qn_free(t.ids);
    qn_free(t.labels);
    QN_TRY(qn_bench_excuse(&r, result));
    return qn_bench_log_add(log, &r);
}

// ------------------------------------------------------------------------------------ decoding

typedef struct decoding {
    qn_runner *runner;
    qn_runner_event *events;
    int32_t *ids;
    int64_t slots, prompt;
} decoding;

static qn_result open_decoding(qn_device *dev, qn_store *store, const qn_bench_lm_opts *o,
                               int64_t slots, int64_t prompt, decoding *d)
{
    *d = (decoding){ .slots = slots, .prompt = prompt };
    const qn_runner_opts opts = { .slots = slots, .context = prompt + o->written + 2 };
    QN_TRY(qn_runner_create(dev, o->config, store, &opts, &d->runner));
    d->events = qn_calloc((size_t)slots, sizeof *d->events);
    d->ids = qn_calloc((size_t)prompt, sizeof *d->ids);
    if (!d->events || !d->ids) return qn_no_memory((size_t)prompt * sizeof *d->ids);
    random_ids(d->ids, (size_t)prompt, o->config->vocab_size, 3);
    return QN_OK;
}

static void close_decoding(decoding *d)
{
    qn_runner_destroy(&d->runner);
    qn_free(d->events);
    qn_free(d->ids);
}

// From empty slots to the first token of each.
static qn_result read_prompts(void *user, double *seconds)
{
    decoding *d = user;
    for (int64_t s = 0; s < d->slots; s++) QN_TRY(qn_runner_reset(d->runner, s));
    const double start = qn_clock();
    for (int64_t s = 0; s < d->slots; s++)
        QN_TRY(qn_runner_feed(d->runner, s, d->ids, (size_t)d->prompt));
    for (size_t written = 0, count; written < (size_t)d->slots; written += count) {
        QN_TRY(qn_runner_step(d->runner, d->events, &count));
        for (size_t i = 0; i < count; i++) // the others go on reading
            QN_TRY(qn_runner_hold(d->runner, d->events[i].slot));
    }
    *seconds = qn_clock() - start;
    return QN_OK;
}

static qn_result write_token(void *user, double *seconds)
{
    decoding *d = user;
    size_t count;
    const double start = qn_clock();
    QN_TRY(qn_runner_step(d->runner, d->events, &count));
    *seconds = qn_clock() - start;
    if (count == (size_t)d->slots) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "%zu of %lld texts got a token", count, (long long)d->slots);
}

static qn_result measure_prompt(qn_device *dev, qn_store *store, const qn_bench_lm_opts *o,
                                int64_t length, qn_bench_log *log)
{
    char variant[96];
    snprintf(variant, sizeof variant, "prompt of %lld, to the first token", (long long)length);
    qn_bench_record r = qn_bench_record_start("model", o->name, variant, "1 text");
    decoding d;
    qn_times times;
    qn_measure_opts m = o->measure;
    m.least = 3;
    qn_result result = open_decoding(dev, store, o, 1, length, &d);
    if (result == QN_OK) result = qn_measure(&m, read_prompts, &d, &times);
    if (result == QN_OK) {
        const double flops = 2 * (double)qn_model_count(o->config).active * (double)length;
        qn_bench_judge(&r, &times, flops, 0, o->peaks);
        r.tokens_per_s = (double)length / times.median;
        r.memory = (double)qn_device_usage_now(dev).peak;
    }
    close_decoding(&d);
    QN_TRY(qn_bench_excuse(&r, result));
    return qn_bench_log_add(log, &r);
}

static qn_result measure_writing(qn_device *dev, qn_store *store, const qn_bench_lm_opts *o,
                                 int64_t prompt, int64_t slots, qn_bench_log *log)
{
    char variant[96], shape[96];
    snprintf(variant, sizeof variant, "decode behind %lld", (long long)prompt);
    snprintf(shape, sizeof shape, "%lld text%s", (long long)slots, slots > 1 ? "s" : "");
    qn_bench_record r = qn_bench_record_start("model", o->name, variant, shape);
    decoding d;
    qn_times times;
    double ignored;
    qn_measure_opts m = o->measure;
    m.most = (int)o->written; // the first step compiles and counts as a token as well
    if (m.least > m.most || !m.least) m.least = m.most < 5 ? m.most : 5;
    qn_result result = open_decoding(dev, store, o, slots, prompt, &d);
    if (result == QN_OK) result = read_prompts(&d, &ignored);
    for (int64_t s = 0; result == QN_OK && s < slots; s++)
        result = qn_runner_feed(d.runner, s, NULL, 0);
    if (result == QN_OK) result = qn_measure(&m, write_token, &d, &times);
    if (result == QN_OK) {
        // One text reads the weights that a token uses, once; several share an unknown part.
        const double width = qn_dtype_size(o->weights);
        const double bytes = slots == 1 ? width * (double)qn_model_count(o->config).active : 0;
        qn_bench_judge(&r, &times, 0, bytes, o->peaks);
        r.tokens_per_s = (double)slots / times.median;
        r.memory = (double)qn_device_usage_now(dev).peak;
    }
    close_decoding(&d);
    QN_TRY(qn_bench_excuse(&r, result));
    return qn_bench_log_add(log, &r);
}

qn_result qn_bench_decoding(qn_device *dev, qn_store *store, const qn_bench_lm_opts *o,
                            qn_bench_log *log)
{
    int64_t longest = 1;
    for (size_t i = 0; i < o->prompt_count; i++) {
        if (o->prompts[i] > longest) longest = o->prompts[i];
        if (o->go_on && !o->go_on()) return qn_fail(QN_ERR_CANCELLED, "interrupted");
        QN_TRY(measure_prompt(dev, store, o, o->prompts[i], log));
    }
    for (size_t i = 0; i < o->batch_count; i++) {
        if (o->go_on && !o->go_on()) return qn_fail(QN_ERR_CANCELLED, "interrupted");
        QN_TRY(measure_writing(dev, store, o, longest, o->batches[i], log));
    }
    return QN_OK;
}
