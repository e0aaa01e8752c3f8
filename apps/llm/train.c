// A training run: prepare, step, evaluate, save; from the beginning or from where it stopped.
#include "train.h"
#include "fail.h"
#include "io/json.h"
#include "lora.h"
#include "mem.h"
#include "platform.h"
#include "schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM = 3, CALIBRATE = 12 }; // steps left out of, and behind, the measurement of speed

static const double save_seconds = 120; // between saves when save_every is 0

typedef struct run {
    qn_device *dev;
    const qn_corpus *corpus;
    const qn_train_opts *o;
    const qn_train_hooks *hooks;
    qn_tokenizer *tokenizer;
    qn_model_config config;
    qn_slice train_text, held_text;
    qn_tokens train, held;
    qn_trainer *trainer;
    qn_train_state state;
    int32_t *ids, *labels; // [accumulate, B, T]
    int32_t *stretch;      // ids, then labels of one row over all its segments
    double recent[CALIBRATE]; // seconds of the first steps of this process
    int measured;
    bool described; // config.json and tokenizer.json are those of this run
    double started, saved_at;
    qn_train_event event;  // carries what is known from one event to the next
    qn_train_result result;
    bool stopped;
} run;

static void tell(run *r, qn_train_event_kind kind)
{
    r->event.kind = kind;
    r->event.step = r->state.step;
    r->event.steps = r->state.steps;
    r->event.trainer = r->trainer;
    if (r->hooks && r->hooks->event && !r->hooks->event(r->hooks->user, &r->event))
        r->stopped = true;
}

// ------------------------------------------------------------------------------ preparing

static const char end_of_text[] = "<|endoftext|>";

static qn_result in_out(const run *r, const char *name, char **path)
{
    *path = qn_path_join(r->o->out, name);
    return *path ? QN_OK : qn_no_memory(strlen(r->o->out));
}

static qn_result get_tokenizer(run *r)
{
    char *path;
    QN_TRY(in_out(r, "tokenizer.json", &path));
    const bool resumes = !r->o->fresh && qn_state_exists(r->o->out) && qn_file_exists(path);
    qn_result res;
    if (resumes) {
        res = qn_tokenizer_open(path, &r->tokenizer);
    } else if (r->o->tokenizer || r->o->init) {
        res = qn_tokenizer_open(r->o->tokenizer ? r->o->tokenizer : r->o->init, &r->tokenizer);
    } else {
        const char *const special[] = { end_of_text };
        qn_tokenizer_train_opts t = { .size = (uint32_t)r->o->vocab, .special = special,
                                      .special_count = 1 };
        res = qn_tokenizer_train(r->train_text.data, r->train_text.size, &t, &r->tokenizer);
    }
    qn_free(path);
    r->event.vocab = res == QN_OK ? qn_tokenizer_size(r->tokenizer) : 0;
    return res;
}

static qn_result get_config(run *r)
{
    const int64_t vocab = qn_tokenizer_size(r->tokenizer);
    qn_model_config *c = &r->config;
    if (r->o->config || r->o->init) {
        char *path = r->o->config ? NULL : qn_path_join(r->o->init, "config.json");
        if (!path && !r->o->config) return qn_no_memory(strlen(r->o->init));
        const char *from = r->o->config ? r->o->config : path;
        qn_result res = qn_model_config_read(from, c);
        if (res == QN_OK && c->vocab_size < vocab)
            res = qn_fail(QN_ERR_INVALID,
                          "%s: vocab_size is %lld, but the tokenizer has %lld tokens", from,
                          (long long)c->vocab_size, (long long)vocab);
        qn_free(path);
        QN_TRY(res);
    } else {
        QN_TRY(qn_model_preset(r->o->preset ? r->o->preset : "nano", vocab, c));
        int32_t end = qn_tokenizer_find(r->tokenizer, end_of_text);
        c->bos_token_id = c->eos_token_id = end < 0 ? 0 : end;
    }
    if (r->o->aux) c->aux_loss = (qn_router_loss)(r->o->aux - 1);
    if (r->o->aux_weight >= 0) c->aux_loss_weight = r->o->aux_weight;
    if (r->o->dropout >= 0) c->embd_pdrop = c->resid_pdrop = r->o->dropout;
    return qn_model_config_check(c);
}

// Tokens of a part of the corpus, with the end-of-text token between documents.
static qn_result tokenise(run *r, qn_slice part, qn_tokens *out)
{
    const int32_t end = qn_tokenizer_find(r->tokenizer, end_of_text);
    size_t from = (size_t)(part.data - r->corpus->text), to = from + part.size;
    const qn_encode_opts plain = { .plain = true };
    for (size_t d = 0, begin = 0; d < r->corpus->documents; begin = r->corpus->end[d++]) {
        size_t a = begin > from ? begin : from, b = r->corpus->end[d] < to ? r->corpus->end[d] : to;
        if (a >= b) continue;
        QN_TRY(qn_tokenizer_encode(r->tokenizer, r->corpus->text + a, b - a, &plain, out));
        if (end < 0 || r->corpus->documents == 1) continue;
        QN_TRY(qn_grow((void **)&out->id, &out->capacity, out->count + 1, sizeof *out->id));
        out->id[out->count++] = end;
    }
    return QN_OK;
}

static uint64_t segments_of(const run *r)
{
    return r->o->segments > 1 ? (uint64_t)r->o->segments : 1;
}

static qn_result get_data(run *r)
{
    QN_TRY(tokenise(r, r->train_text, &r->train));
    if (r->held_text.size) QN_TRY(tokenise(r, r->held_text, &r->held));
    const int64_t need = (int64_t)segments_of(r) * r->o->positions + 1;
    if ((int64_t)r->train.count < need)
        return qn_fail(QN_ERR_INVALID,
                       "the text is too short: %zu tokens to train on, one window takes %lld; "
                       "give more text or a smaller --length or --segments",
                       r->train.count, (long long)need);
    r->event.train_tokens = r->train.count;
    r->event.held_tokens = r->held.count;
    r->event.train_bytes = r->train_text.size;
    r->event.held_bytes = r->held_text.size;
    r->event.unigram_bits =
        r->held.count ? qn_unigram_bits(r->train.id, r->train.count, r->held.id, r->held.count,
                                        r->held_text.size, r->config.vocab_size)
                      : NAN;
    return QN_OK;
}

// Everything that decides what the run computes, one line each.
static qn_result fingerprint(run *r, char **out)
{
    const qn_train_opts *o = r->o;
    char *config;
    QN_TRY(qn_model_config_text(&r->config, &config));
    uint64_t tokens = 1469598103934665603u;
    for (size_t i = 0; i < r->train.count; i++)
        tokens = (tokens ^ (uint32_t)r->train.id[i]) * 1099511628211u;
    const char *init = o->init ? o->init : "", *only = o->trainable_text ? o->trainable_text : "";
    char segments[64] = "";
    if (o->segments > 1 || o->forget)
        snprintf(segments, sizeof segments, "segments = %lld\nforget = %d\n",
                 (long long)o->segments, o->forget);
    const size_t size = strlen(config) + strlen(init) + strlen(only) + 1024;
    char *text = qn_malloc(size);
    if (text)
        snprintf(text, size,
                 "text = %016llx\nheld-out = %g\ntokens = %016llx\nbatch = %lld\nlength = %lld\n"
                 "accumulate = %lld\nlr = %.9g\nlr-final = %.9g\nwarmup = %lld\ndecay = %.9g\n"
                 "beta1 = %.9g\nbeta2 = %.9g\nepsilon = %.9g\nclip = %.9g\ndtype = %s\n"
                 "seed = %llu\nmodel = %s\n%s%s%s%s%s%s%s",
                 (unsigned long long)qn_corpus_fingerprint(r->corpus), o->held_out,
                 (unsigned long long)tokens, (long long)o->batch, (long long)o->positions,
                 (long long)o->accumulate, o->learning_rate, o->final_rate, (long long)o->warmup,
                 o->weight_decay, o->beta1, o->beta2, o->epsilon, o->clip,
                 qn_dtype_name(o->weights), (unsigned long long)o->seed, config, segments,
                 *init ? "init = " : "", init, *init ? "\n" : "", *only ? "trained = " : "", only,
                 *only ? "\n" : "");
    qn_free(config);
    *out = text;
    return text ? QN_OK : qn_no_memory(size);
}

static qn_result write_description(run *r)
{
    char *config = NULL, *tokenizer = NULL;
    qn_result res = in_out(r, "config.json", &config);
    if (res == QN_OK) res = in_out(r, "tokenizer.json", &tokenizer);
    if (res == QN_OK) res = qn_model_config_write(&r->config, config);
    if (res == QN_OK) res = qn_tokenizer_save(r->tokenizer, tokenizer);
    qn_free(config);
    qn_free(tokenizer);
    return res;
}

static qn_result get_trainer(run *r)
{
    const qn_train_opts *o = r->o;
    qn_trainer_opts t = {
        .batch = o->batch, .positions = o->positions, .accumulate = o->accumulate,
        .weights = o->weights, .beta1 = o->beta1, .beta2 = o->beta2, .epsilon = o->epsilon,
        .weight_decay = o->weight_decay, .clip = o->clip, .profile = o->profile, .seed = o->seed,
        .trainable = o->trainable, .lora = o->lora, .segments = o->segments,
        .forget = o->forget,
    };
    r->event.size = qn_model_count(&r->config);
    QN_TRY(qn_trainer_estimate(r->dev, &r->config, &t, &r->event.memory));
    tell(r, QN_TRAIN_MEMORY);
    if (r->stopped) return QN_OK; // nothing was written
    QN_TRY(qn_make_dirs(r->o->out));
    return qn_trainer_create(r->dev, &r->config, &t, &r->trainer);
}

// Weights from the state of an interrupted run, or fresh ones.
static qn_result start_or_resume(run *r)
{
    char *print;
    QN_TRY(fingerprint(r, &print));
    qn_result res;
    if (!r->o->fresh && qn_state_exists(r->o->out)) {
        res = qn_state_load(r->o->out, print, &r->state, r->trainer);
        if (res == QN_OK && r->o->steps) r->state.steps = r->o->steps;
        r->described = true;
        if (res == QN_OK) tell(r, QN_TRAIN_RESUMED);
    } else {
        qn_store *weights = qn_trainer_weights(r->trainer);
        r->state.steps = r->o->steps;
        res = r->o->init ? qn_model_load(&r->config, weights, r->o->init)
                         : qn_model_initialise(&r->config, weights, r->o->seed, false);
        if (res == QN_OK && r->o->lora) res = qn_lora_initialise(weights, r->o->seed);
    }
    r->state.fingerprint = print;
    return res;
}

// ------------------------------------------------------------------------------ running

// The description goes with the first checkpoint: until then the folder may hold another model.
static qn_result save(run *r)
{
    const qn_store *weights = qn_trainer_weights(r->trainer);
    if (r->o->lora) {
        QN_TRY(qn_lora_save(r->o->lora, weights, r->o->out, r->o->init));
    } else {
        if (!r->described) QN_TRY(write_description(r));
        r->described = true;
        QN_TRY(qn_model_save(weights, r->o->out));
    }
    QN_TRY(qn_state_save(r->o->out, &r->state, r->trainer));
    r->saved_at = qn_clock();
    tell(r, QN_TRAIN_SAVED);
    return QN_OK;
}

// Consecutive windows of the held-out text; what does not fill a batch is ignored by its labels.
static qn_result evaluate(run *r)
{
    const uint64_t T = (uint64_t)r->o->positions, B = (uint64_t)r->o->batch;
    uint64_t left = r->held.count ? r->held.count - 1 : 0, at = 0, bytes = 0;
    if (r->o->eval_tokens && left > (uint64_t)r->o->eval_tokens)
        left = (uint64_t)r->o->eval_tokens;
    double nll = 0;
    int64_t count = 0;
    while (left) {
        for (uint64_t i = 0; i < B * T; i++) {
            bool real = i < left;
            r->ids[i] = real ? r->held.id[at + i] : 0;
            r->labels[i] = real ? r->held.id[at + i + 1] : QN_IGNORE;
            size_t size = 0;
            if (real) qn_token_bytes(r->tokenizer, r->labels[i], &size);
            bytes += size;
        }
        double part;
        int64_t n;
        QN_TRY(qn_trainer_evaluate(r->trainer, r->ids, r->labels, &part, &n));
        nll += part;
        count += n;
        uint64_t step = left < B * T ? left : B * T;
        at += step;
        left -= step;
    }
    if (!count || !bytes) return QN_OK;
    r->event.held_loss = r->result.held_loss = nll / (double)count;
    r->event.bits_per_byte = r->result.bits_per_byte = nll / log(2) / (double)bytes;
    tell(r, QN_TRAIN_EVAL);
    return QN_OK;
}

// A stretch of `segments` windows is drawn for each row, and its windows are read step by step.
static void next_batch(run *r)
{
    const uint64_t T = (uint64_t)r->o->positions, K = segments_of(r);
    qn_windows w = { r->train.id, r->train.count, K * T, r->o->seed };
    const uint64_t rows = (uint64_t)(r->o->batch * r->o->accumulate);
    const uint64_t step = (uint64_t)r->state.step, part = step % K * T;
    for (uint64_t i = 0; i < rows; i++) {
        int32_t *ids = r->stretch, *labels = r->stretch + K * T;
        qn_windows_get(&w, step / K * rows + i, ids, labels);
        memcpy(r->ids + i * T, ids + part, T * sizeof *ids);
        memcpy(r->labels + i * T, labels + part, T * sizeof *labels);
    }
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

// Turns the minutes into steps by the median of the steps measured so far.
static void calibrate(run *r)
{
    double sorted[CALIBRATE - WARM];
    memcpy(sorted, r->recent + WARM, sizeof sorted);
    qsort(sorted, CALIBRATE - WARM, sizeof *sorted, ascending);
    double per_step = sorted[(CALIBRATE - WARM) / 2];
    double left = r->o->minutes * 60 - (qn_clock() - r->started);
    r->state.steps = r->state.step + (int64_t)(left > 0 ? left / per_step : 0) + 1;
    tell(r, QN_TRAIN_STEPS);
}

// Warm-up, then a cosine; while `minutes` are not turned into steps yet the peak is kept.
static double rate_of(const run *r, int64_t step)
{
    const int64_t steps = r->state.steps, most = steps / 4; // short runs warm up quickly
    const qn_schedule s = {
        .decay = steps ? QN_DECAY_COSINE : QN_DECAY_CONSTANT,
        .peak = r->o->learning_rate,
        .floor = r->o->learning_rate * r->o->final_rate,
        .warmup = steps && r->o->warmup > most ? most : r->o->warmup,
        .steps = steps,
    };
    return qn_schedule_rate(&s, step);
}

static qn_result step(run *r)
{
    next_batch(r);
    const int64_t n = r->state.step + 1;
    double rate = rate_of(r, n);
    const bool capture = r->o->capture == n, there = capture && qn_capture_begin(r->dev);
    QN_TRY(qn_trainer_step(r->trainer, n, rate, r->ids, r->labels, &r->event.report));
    if (capture && !qn_capture_end(r->dev) && there)
        qn_log(QN_LOG_WARN, "RenderDoc made no capture of step %lld", (long long)n);
    if (capture && !there)
        qn_log(QN_LOG_WARN, "step %lld: no capture, as this was not started from RenderDoc; it is "
                            "labelled as a frame for other tools", (long long)n);
    r->state.step = n;
    r->event.learning_rate = rate;
    const double tokens = (double)(r->o->batch * r->o->positions * r->o->accumulate);
    r->event.tokens_per_second = tokens / r->event.report.seconds;
    r->result.train_loss = r->event.report.ce;
    if (!isfinite(r->event.report.loss))
        return qn_fail(QN_ERR_INVALID,
                       "the loss of step %lld is not a number; the last saved state is intact: try "
                       "a lower --lr, or more --warmup",
                       (long long)n);
    tell(r, QN_TRAIN_STEP);
    if (r->measured < CALIBRATE) r->recent[r->measured++] = r->event.report.seconds;
    if (!r->state.steps && r->measured == CALIBRATE) calibrate(r);
    return QN_OK;
}

static bool due(int64_t every, int64_t step)
{
    return every && step % every == 0;
}

static qn_result loop(run *r)
{
    r->started = r->saved_at = qn_clock();
    while (!r->stopped && (!r->state.steps || r->state.step < r->state.steps)) {
        QN_TRY(step(r));
        if (r->stopped || r->state.step == r->state.steps) break;
        if (due(r->o->eval_every, r->state.step)) QN_TRY(evaluate(r));
        if (due(r->o->save_every, r->state.step) ||
            (!r->o->save_every && qn_clock() - r->saved_at > save_seconds))
            QN_TRY(save(r));
    }
    r->result.seconds = qn_clock() - r->started;
    QN_TRY(save(r));
    if (!r->stopped) QN_TRY(evaluate(r));
    return QN_OK;
}

static qn_result prepare(run *r)
{
    QN_TRY(qn_check_dirs(r->o->out)); // before any work
    QN_TRY(qn_corpus_split(r->corpus, r->o->held_out, &r->train_text, &r->held_text));
    QN_TRY(get_tokenizer(r));
    tell(r, QN_TRAIN_TOKENIZER);
    QN_TRY(get_config(r));
    QN_TRY(get_data(r));
    tell(r, QN_TRAIN_DATA);
    const size_t cells = (size_t)(r->o->batch * r->o->positions * r->o->accumulate);
    r->ids = qn_malloc(cells * sizeof *r->ids);
    r->labels = qn_malloc(cells * sizeof *r->labels);
    const size_t stretch = (size_t)(segments_of(r) * (uint64_t)r->o->positions);
    r->stretch = qn_malloc(2 * stretch * sizeof *r->stretch);
    if (!r->ids || !r->labels || !r->stretch) return qn_no_memory(cells * sizeof *r->ids);
    return get_trainer(r);
}

qn_result qn_train(qn_device *dev, const qn_corpus *corpus, const qn_train_opts *opts,
                   const qn_train_hooks *hooks, qn_train_result *out)
{
    qn_train_opts o = *opts;
    if (!o.accumulate) o.accumulate = 1;
    if (!o.steps && !(o.minutes > 0))
        return qn_fail(QN_ERR_INVALID, "neither steps nor minutes were given");
    if (o.lora && !o.init)
        return qn_fail(QN_ERR_INVALID, "an adapter needs a model to start from");
    if (o.init && qn_same_file(o.init, o.out))
        return qn_fail(QN_ERR_INVALID, "%s is the model to start from and would be overwritten; "
                                       "give another folder for the new one", o.out);
    run r = { .dev = dev, .corpus = corpus, .o = &o, .hooks = hooks,
              .event = { .unigram_bits = NAN, .bits_per_byte = NAN, .held_loss = NAN },
              .result = { .bits_per_byte = NAN, .held_loss = NAN } };
    qn_result res = prepare(&r);
    if (res == QN_OK && !r.stopped) res = start_or_resume(&r);
    if (res == QN_OK && !r.stopped) res = loop(&r);
    if (res == QN_OK) {
        r.result.step = r.state.step;
        r.result.steps = r.state.steps;
        r.result.finished = !r.stopped;
        r.result.unigram_bits = r.event.unigram_bits;
        r.result.tokens_per_second = r.event.tokens_per_second;
        *out = r.result;
    }
    qn_trainer_destroy(&r.trainer);
    qn_tokenizer_close(&r.tokenizer);
    qn_tokens_free(&r.train);
    qn_tokens_free(&r.held);
    qn_free(r.state.fingerprint);
    qn_free(r.ids);
    qn_free(r.stretch);
    qn_free(r.labels);
    return res;
}
