// Slots, their texts and the steps over them.
#include "runner.h"
#include "decoder.h"
#include "fail.h"
#include "mem.h"

#include <math.h>
#include <string.h>

enum { CONTEXT = 2048, CHUNK = 64 };

typedef struct slot {
    qn_decoder *decoder;
    qn_sampler *sampler;
    qn_sampling how;
    qn_token_bias *bias;
    size_t bias_count;
    int top;
    int32_t *text;
    size_t count, read; // tokens of the text; of these, gone through the model
    bool running;
} slot;

struct qn_runner {
    qn_device *dev;
    qn_model_config config;
    qn_store *weights;
    int64_t slots, context, chunk;
    uint8_t *usable;
    float *logits, *work; // [vocab_size]
    slot *slot;
};

static const qn_sampling greedy = { .top_p = 1, .repeat_penalty = 1 };

static int64_t or_else(int64_t value, int64_t otherwise)
{
    return value ? value : otherwise;
}

uint64_t qn_runner_cache_bytes(const qn_model_config *c, const qn_runner_opts *opts)
{
    return (uint64_t)(or_else(opts->slots, 1) * or_else(opts->context, CONTEXT) * c->n_layer *
                      c->att_hidden * (qn_model_shares_kv(c) ? 1 : 2)) *
           sizeof(float);
}

static qn_result check_opts(const qn_runner_opts *o)
{
    if (o->slots < 0 || o->slots > 1024)
        return qn_fail(QN_ERR_INVALID, "%lld slots, expected 1 to 1024", (long long)o->slots);
    if (o->context < 0 || o->context == 1)
        return qn_fail(QN_ERR_INVALID, "a context of %lld tokens, expected at least 2",
                       (long long)o->context);
    if (o->chunk < 0)
        return qn_fail(QN_ERR_INVALID, "pieces of %lld tokens, expected at least 1",
                       (long long)o->chunk);
    return QN_OK;
}

static qn_result create_slot(qn_runner *r, slot *s)
{
    s->text = qn_calloc((size_t)r->context, sizeof *s->text);
    if (!s->text) return qn_no_memory((size_t)r->context * sizeof *s->text);
    qn_decoder_opts o = { .context = r->context, .chunk = r->chunk };
    QN_TRY(qn_decoder_create(r->dev, &r->config, r->weights, &o, &s->decoder));
    s->how = greedy;
    return qn_sampler_create(&s->how, r->config.vocab_size, &s->sampler);
}

qn_result qn_runner_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                           const qn_runner_opts *opts, qn_runner **out)
{
    static const qn_runner_opts none;
    *out = NULL;
    if (!opts) opts = &none;
    QN_TRY(check_opts(opts));
    qn_runner *r = qn_calloc(1, sizeof *r);
    if (!r) return qn_no_memory(sizeof *r);
    *r = (qn_runner){ .dev = dev, .config = *c, .weights = weights,
                      .slots = or_else(opts->slots, 1),
                      .context = or_else(opts->context, CONTEXT),
                      .chunk = or_else(opts->chunk, CHUNK) };
    const size_t vocab = (size_t)c->vocab_size;
    r->usable = qn_malloc(vocab);
    r->logits = qn_malloc(2 * vocab * sizeof *r->logits);
    r->slot = qn_calloc((size_t)r->slots, sizeof *r->slot);
    qn_result result = QN_OK;
    if (!r->usable || !r->logits || !r->slot) result = qn_no_memory(2 * vocab * sizeof *r->logits);
    for (int64_t i = 0; result == QN_OK && i < r->slots; i++) result = create_slot(r, &r->slot[i]);
    if (result != QN_OK) {
        qn_runner_destroy(&r);
        return result;
    }
    r->work = r->logits + vocab;
    memset(r->usable, 1, vocab);
    if (opts->usable) memcpy(r->usable, opts->usable, vocab);
    *out = r;
    return QN_OK;
}

void qn_runner_destroy(qn_runner **runner)
{
    qn_runner *r = *runner;
    *runner = NULL;
    if (!r) return;
    for (int64_t i = 0; r->slot && i < r->slots; i++) {
        qn_decoder_destroy(&r->slot[i].decoder);
        qn_sampler_destroy(&r->slot[i].sampler);
        qn_free(r->slot[i].text);
        qn_free(r->slot[i].bias);
    }
    qn_free(r->slot);
    qn_free(r->logits);
    qn_free(r->usable);
    qn_free(r);
}

int64_t qn_runner_slots(const qn_runner *r)
{
    return r->slots;
}

int64_t qn_runner_context(const qn_runner *r)
{
    return r->context;
}

// ------------------------------------------------------------------------------------ a slot

static qn_result find(const qn_runner *r, int64_t i, slot **out)
{
    if (i < 0 || i >= r->slots)
        return qn_fail(QN_ERR_INVALID, "slot %lld, expected 0 to %lld", (long long)i,
                       (long long)r->slots - 1);
    *out = &r->slot[i];
    return QN_OK;
}

// A fresh sampler that has seen the slot's text.
static qn_result renew_sampler(qn_runner *r, slot *s)
{
    qn_sampler *fresh;
    QN_TRY(qn_sampler_create(&s->how, r->config.vocab_size, &fresh));
    for (size_t i = 0; i < s->count; i++) {
        qn_result result = qn_sampler_accept(fresh, s->text[i]);
        if (result == QN_OK) continue;
        qn_sampler_destroy(&fresh);
        return result;
    }
    qn_sampler_destroy(&s->sampler);
    s->sampler = fresh;
    return QN_OK;
}

qn_result qn_runner_sample(qn_runner *r, int64_t i, const qn_runner_sampling *how)
{
    static const qn_runner_sampling plain = { .how = { .top_p = 1, .repeat_penalty = 1 } };
    slot *s;
    QN_TRY(find(r, i, &s));
    if (!how) how = &plain;
    if (how->top < 0 || how->top > QN_RUNNER_TOP)
        return qn_fail(QN_ERR_INVALID, "%d most likely tokens, expected 0 to %d", how->top,
                       QN_RUNNER_TOP);
    if (how->bias_count > QN_RUNNER_BIAS)
        return qn_fail(QN_ERR_INVALID, "%zu biased tokens, expected at most %d", how->bias_count,
                       QN_RUNNER_BIAS);
    for (size_t k = 0; k < how->bias_count; k++)
        if (how->bias[k].token < 0 || how->bias[k].token >= r->config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld",
                           how->bias[k].token, (long long)r->config.vocab_size);
    qn_token_bias *bias = NULL;
    if (how->bias_count && !(bias = qn_malloc(how->bias_count * sizeof *bias)))
        return qn_no_memory(how->bias_count * sizeof *bias);
    if (bias) memcpy(bias, how->bias, how->bias_count * sizeof *bias);
    qn_free(s->bias);
    s->bias = bias;
    s->bias_count = how->bias_count;
    s->top = how->top;
    s->how = how->how;
    return renew_sampler(r, s);
}

qn_result qn_runner_reset(qn_runner *r, int64_t i)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    s->count = s->read = 0;
    s->running = false;
    qn_decoder_reset(s->decoder);
    return qn_runner_sample(r, i, NULL);
}

static qn_result append(qn_runner *r, slot *s, const int32_t *ids, size_t count)
{
    if (count > (size_t)r->context - s->count)
        return qn_fail(QN_ERR_INVALID,
                       "the context holds %lld tokens; %zu are filled and %zu more were given",
                       (long long)r->context, s->count, count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= r->config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld", ids[i],
                           (long long)r->config.vocab_size);
    for (size_t i = 0; i < count; i++) QN_TRY(qn_sampler_accept(s->sampler, ids[i]));
    if (count) memcpy(s->text + s->count, ids, count * sizeof *ids);
    s->count += count;
    return QN_OK;
}

qn_result qn_runner_feed(qn_runner *r, int64_t i, const int32_t *ids, size_t count)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    QN_TRY(append(r, s, ids, count));
    if (s->read == s->count) // what follows the last token is known, not yet chosen
        return qn_fail(QN_ERR_INVALID, "slot %lld has no token to go on from", (long long)i);
    s->running = true;
    return QN_OK;
}

qn_result qn_runner_hold(qn_runner *r, int64_t i)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    s->running = false;
    return QN_OK;
}

qn_result qn_runner_rewind(qn_runner *r, int64_t i, size_t count)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    if (count > s->count)
        return qn_fail(QN_ERR_INVALID, "slot %lld has %zu tokens and cannot keep %zu", (long long)i,
                       s->count, count);
    s->running = false;
    s->count = count;
    // The last token is read again: what follows it has to be computed.
    if (s->read >= count) s->read = count ? count - 1 : 0;
    qn_decoder_rewind(s->decoder, (int64_t)s->read);
    return renew_sampler(r, s);
}

const int32_t *qn_runner_text(const qn_runner *r, int64_t i, size_t *count, size_t *read)
{
    *count = i < 0 || i >= r->slots ? 0 : r->slot[i].count;
    if (read) *read = *count ? r->slot[i].read : 0;
    return *count ? r->slot[i].text : NULL;
}

bool qn_runner_running(const qn_runner *r, int64_t i)
{
    return i >= 0 && i < r->slots && r->slot[i].running;
}

// ------------------------------------------------------------------------------------ running

// log softmax needs the largest logit and the sum.
static double log_sum(const float *x, int64_t n)
{
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        if ((double)x[i] > most) most = (double)x[i];
    for (int64_t i = 0; i < n; i++) sum += exp((double)x[i] - most);
    return most + log(sum);
}

static void list_top(const float *x, int64_t n, double total, int want, qn_runner_event *e)
{
    for (e->top_count = 0; e->top_count < want && e->top_count < n; e->top_count++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n; i++) {
            bool taken = false;
            for (int k = 0; k < e->top_count; k++) taken |= e->top[k].token == i;
            if (!taken && (best < 0 || x[i] > x[best])) best = i;
        }
        e->top[e->top_count] = (qn_token_chance){ best, (float)((double)x[best] - total) };
    }
}

static qn_result choose(qn_runner *r, slot *s, qn_runner_event *e)
{
    const int64_t V = r->config.vocab_size;
    for (int64_t i = 0; i < V; i++) r->work[i] = r->usable[i] ? r->logits[i] : -INFINITY;
    for (size_t i = 0; i < s->bias_count; i++) r->work[s->bias[i].token] += s->bias[i].bias;
    if (qn_sampler_pick(s->sampler, r->work, &e->token) != QN_OK) {
        e->token = -1;
        s->running = false;
        return QN_OK;
    }
    double total = log_sum(r->logits, V);
    e->logprob = (float)((double)r->logits[e->token] - total);
    list_top(r->logits, V, total, s->top, e);
    QN_TRY(append(r, s, &e->token, 1));
    e->full = s->count == (size_t)r->context;
    if (e->full) s->running = false;
    return QN_OK;
}

qn_result qn_runner_step(qn_runner *r, qn_runner_event *events, size_t *count)
{
    *count = 0;
    for (int64_t i = 0; i < r->slots; i++) {
        slot *s = &r->slot[i];
        if (!s->running) continue;
        size_t n = s->count - s->read;
        if (n > (size_t)r->chunk) n = (size_t)r->chunk;
        QN_TRY(qn_decoder_feed(s->decoder, s->text + s->read, NULL, (int64_t)n, r->logits));
        s->read += n;
        if (s->read < s->count) continue;
        qn_runner_event *e = &events[*count];
        *e = (qn_runner_event){ .slot = i };
        QN_TRY(choose(r, s, e));
        ++*count;
    }
    return QN_OK;
}

qn_result qn_runner_score(qn_runner *r, int64_t i, const int32_t *ids, size_t count,
                          qn_token_score *out)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    if (s->running) return qn_fail(QN_ERR_INVALID, "slot %lld is running", (long long)i);
    const size_t before = s->count;
    QN_TRY(append(r, s, ids, count));
    if (before == 0 && count) out[0] = (qn_token_score){ NAN, -1 };
    while (s->read + 1 < s->count) { // the last token predicts what nobody asked for
        QN_TRY(qn_decoder_feed(s->decoder, s->text + s->read, NULL, 1, r->logits));
        s->read++;
        if (s->read < before) continue;
        double total = log_sum(r->logits, r->config.vocab_size);
        qn_token_score *o = &out[s->read - before];
        o->logprob = (float)((double)r->logits[s->text[s->read]] - total);
        o->best = 0;
        for (int32_t k = 1; k < r->config.vocab_size; k++)
            if (r->logits[k] > r->logits[o->best]) o->best = k;
    }
    return QN_OK;
}
