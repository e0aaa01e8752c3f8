// Slots, their texts and the steps over them.
#include "fail.h"
#include "mem.h"
#include "runner_plan.h"

#include <math.h>
#include <string.h>

enum { CONTEXT = 2048, CHUNK = 64, MOST_SLOTS = 1024, MOST_CHUNK = 4096 };
enum { FEW_CHANGES = 128 }; // what most ways of sampling need; plans with more are made on demand

typedef struct slot {
    qn_sampling how;
    qn_token_bias *bias;
    size_t bias_count;
    int top;
    int32_t *text;
    size_t count, read; // tokens of the text; of these, gone through the model
    size_t gone;        // of these, no longer in the cache: only with an attention window
    bool running;
} slot;

struct qn_runner {
    qn_runner_model m;
    int64_t chunk, context; // context: tokens of a text
    slot *slot;
    // Buffers of a step.
    int32_t *ids, *past, *labels; // [most rows or positions]
    int32_t *used, *rows;         // [slots, 2]; [slots], the slots of the rows
    qn_sample_how *how;
    qn_sample_change *changes; // [slots, most_changes]
    int64_t most_changes;
    int32_t *seen; // [vocab_size], zeros between uses
    int32_t *token, *top;
    float *logprob, *chance;
};

static const qn_sampling greedy = { .top_p = 1, .repeat_penalty = 1 };

static int64_t or_else(int64_t value, int64_t otherwise)
{
    return value ? value : otherwise;
}

static int64_t power_of_two(int64_t n)
{
    int64_t p = 1;
    while (p < n) p *= 2;
    return p;
}

// Positions of the cache: with a window it holds two of them and a piece, and what no token sees
// any more is dropped from time to time.
static int64_t positions_of(const qn_model_config *c, const qn_runner_opts *opts)
{
    const int64_t context = or_else(opts->context, CONTEXT), chunk = or_else(opts->chunk, CHUNK);
    const int64_t enough = 2 * c->attention_window + power_of_two(chunk);
    return c->attention_window && enough < context ? enough : context;
}

uint64_t qn_runner_cache_bytes(const qn_model_config *c, const qn_runner_opts *opts)
{
    return (uint64_t)(or_else(opts->slots, 1) * positions_of(c, opts) * c->n_layer *
                      c->att_hidden * (qn_model_shares_kv(c) ? 1 : 2)) *
           sizeof(float);
}

static qn_result check_opts(const qn_runner_opts *o)
{
    if (o->slots < 0 || o->slots > MOST_SLOTS)
        return qn_fail(QN_ERR_INVALID, "%lld slots, expected 1 to %d", (long long)o->slots,
                       MOST_SLOTS);
    if (o->context < 0 || o->context == 1)
        return qn_fail(QN_ERR_INVALID, "a context of %lld tokens, expected at least 2",
                       (long long)o->context);
    if (or_else(o->context, CONTEXT) * or_else(o->slots, 1) > INT32_MAX)
        return qn_fail(QN_ERR_INVALID, "%lld slots with a context of %lld: too many positions",
                       (long long)o->slots, (long long)o->context);
    if (o->chunk < 0 || o->chunk > MOST_CHUNK)
        return qn_fail(QN_ERR_INVALID, "pieces of %lld tokens, expected 1 to %d",
                       (long long)o->chunk, MOST_CHUNK);
    return QN_OK;
}

static qn_result take_buffers(qn_runner *r)
{
    const size_t rows = (size_t)power_of_two(r->m.slots), context = (size_t)r->context;
    r->most_changes = r->context + QN_RUNNER_BIAS;
    r->slot = qn_calloc((size_t)r->m.slots, sizeof *r->slot);
    const size_t chunk = (size_t)power_of_two(r->chunk), most = rows > chunk ? rows : chunk;
    r->ids = qn_calloc(most, sizeof *r->ids);
    r->past = qn_calloc(most, sizeof *r->past);
    r->labels = qn_calloc(most, sizeof *r->labels);
    r->used = qn_calloc(2 * rows, sizeof *r->used);
    r->rows = qn_calloc(rows, sizeof *r->rows);
    r->how = qn_calloc(rows, sizeof *r->how);
    r->changes = qn_calloc(rows * (size_t)r->most_changes, sizeof *r->changes);
    r->seen = qn_calloc((size_t)r->m.config.vocab_size, sizeof *r->seen);
    r->token = qn_calloc(rows, sizeof *r->token);
    r->logprob = qn_calloc(rows, sizeof *r->logprob);
    r->top = qn_calloc(rows * QN_SAMPLE_TOP, sizeof *r->top);
    r->chance = qn_calloc(rows * QN_SAMPLE_TOP, sizeof *r->chance);
    if (!r->slot || !r->ids || !r->past || !r->labels || !r->used || !r->rows || !r->how || !r->changes ||
        !r->seen || !r->token || !r->logprob || !r->top || !r->chance)
        return qn_no_memory(rows * (size_t)r->most_changes * sizeof *r->changes);
    for (int64_t i = 0; i < r->m.slots; i++) {
        r->slot[i].how = greedy;
        r->slot[i].text = qn_calloc(context, sizeof *r->slot[i].text);
        if (!r->slot[i].text) return qn_no_memory(context * sizeof *r->slot[i].text);
    }
    return QN_OK;
}

static qn_result take_cache(qn_runner_model *m)
{
    QN_TRY(qn_store_create(m->dev, "key-value cache", &m->cache));
    QN_TRY(qn_lm_declare_cache(&m->config, m->cache, m->slots, m->context));
    return qn_store_allocate(m->cache);
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
    r->chunk = or_else(opts->chunk, CHUNK);
    r->m = (qn_runner_model){ .dev = dev, .config = *c, .weights = weights,
                              .slots = or_else(opts->slots, 1),
                              .context = positions_of(c, opts) };
    r->context = or_else(opts->context, CONTEXT);
    qn_result result = take_buffers(r);
    if (result == QN_OK && opts->usable) {
        const size_t vocab = (size_t)c->vocab_size;
        r->m.usable = qn_malloc(vocab);
        if (r->m.usable)
            memcpy(r->m.usable, opts->usable, vocab);
        else
            result = qn_no_memory(vocab);
    }
    if (result == QN_OK) result = take_cache(&r->m);
    if (result == QN_OK)
        result = qn_memory_bank_create(dev, c, weights, r->m.slots, &r->m.memory);
    if (result == QN_OK)
        *out = r;
    else
        qn_runner_destroy(&r);
    return result;
}

void qn_runner_destroy(qn_runner **runner)
{
    qn_runner *r = *runner;
    *runner = NULL;
    if (!r) return;
    qn_runner_plans_free(&r->m);
    qn_store_destroy(&r->m.cache);
    qn_memory_bank_destroy(&r->m.memory);
    for (int64_t i = 0; r->slot && i < r->m.slots; i++) {
        qn_free(r->slot[i].text);
        qn_free(r->slot[i].bias);
    }
    void *const buffers[] = { r->slot, r->ids, r->past, r->labels, r->used, r->rows, r->how, r->changes,
                              r->seen, r->token, r->logprob, r->top, r->chance,
                              r->m.usable };
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) qn_free(buffers[i]);
    qn_free(r);
}

int64_t qn_runner_slots(const qn_runner *r)
{
    return r->m.slots;
}

int64_t qn_runner_context(const qn_runner *r)
{
    return r->context;
}

// ------------------------------------------------------------------------------------ a slot

static qn_result find(const qn_runner *r, int64_t i, slot **out)
{
    if (i < 0 || i >= r->m.slots)
        return qn_fail(QN_ERR_INVALID, "slot %lld, expected 0 to %lld", (long long)i,
                       (long long)r->m.slots - 1);
    *out = &r->slot[i];
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
        if (how->bias[k].token < 0 || how->bias[k].token >= r->m.config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld",
                           how->bias[k].token, (long long)r->m.config.vocab_size);
    qn_token_bias *bias = NULL;
    if (how->bias_count && !(bias = qn_malloc(how->bias_count * sizeof *bias)))
        return qn_no_memory(how->bias_count * sizeof *bias);
    if (bias) memcpy(bias, how->bias, how->bias_count * sizeof *bias);
    qn_free(s->bias);
    s->bias = bias;
    s->bias_count = how->bias_count;
    s->top = how->top;
    s->how = how->how;
    return QN_OK;
}

// Nothing is read any more; the text stays.
static qn_result forget(qn_runner *r, int64_t i)
{
    r->slot[i].read = r->slot[i].gone = 0;
    return qn_memory_bank_reset(r->m.memory, i);
}

qn_result qn_runner_reset(qn_runner *r, int64_t i)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    s->count = 0;
    s->running = false;
    QN_TRY(forget(r, i));
    return qn_runner_sample(r, i, NULL);
}

static qn_result append(qn_runner *r, slot *s, const int32_t *ids, size_t count)
{
    if (count > (size_t)r->context - s->count)
        return qn_fail(QN_ERR_INVALID,
                       "the context holds %lld tokens; %zu are filled and %zu more were given",
                       (long long)r->context, s->count, count);
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= r->m.config.vocab_size)
            return qn_fail(QN_ERR_INVALID, "token %d is outside the vocabulary of %lld", ids[i],
                           (long long)r->m.config.vocab_size);
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
    if (s->read < count) return QN_OK;
    // The last token is read again: what follows it has to be computed. Memories cannot go back, and
    // keys that left the cache are not there any more: then all is read again.
    if (r->m.memory || s->gone) return forget(r, i);
    s->read = count ? count - 1 : 0;
    return QN_OK;
}

const int32_t *qn_runner_text(const qn_runner *r, int64_t i, size_t *count, size_t *read)
{
    *count = i < 0 || i >= r->m.slots ? 0 : r->slot[i].count;
    if (read) *read = *count ? r->slot[i].read : 0;
    return *count ? r->slot[i].text : NULL;
}

bool qn_runner_running(const qn_runner *r, int64_t i)
{
    return i >= 0 && i < r->m.slots && r->slot[i].running;
}

// ------------------------------------------------------------------------------------ reading

// How a piece of at most n tokens is read: `count` of them as the last ones of T positions. There
// are plans for powers of two; a little of one may be left empty.
typedef struct piece {
    int64_t count, T;
} piece;

static piece piece_of(const qn_runner *r, size_t n)
{
    const int64_t most = (int64_t)n < r->chunk ? (int64_t)n : r->chunk, T = power_of_two(most);
    // What is left empty would be remembered.
    if (T == most || (!r->m.memory && T - most <= T / 4 && T <= r->m.context)) return (piece){ most, T };
    return (piece){ T / 2, T / 2 };
}

static qn_result take_scores(qn_runner_plan *p, const piece *at, qn_token_score *out)
{
    const size_t T = (size_t)at->T, empty = (size_t)(at->T - at->count);
    float *loss = qn_malloc(T * sizeof *loss);
    int32_t *best = qn_malloc(T * sizeof *best);
    qn_result result = loss && best ? QN_OK : qn_no_memory(T * sizeof *loss);
    if (result == QN_OK) result = qn_runner_plan_read(p, p->loss, loss);
    if (result == QN_OK) result = qn_runner_plan_read(p, p->best, best);
    for (size_t t = empty; result == QN_OK && t < T; t++)
        out[t - empty] = (qn_token_score){ -loss[t], best[t] };
    qn_free(loss);
    qn_free(best);
    return result;
}

// Where the next token's keys go, over all slots.
static int64_t at_cache(const qn_runner *r, int64_t i)
{
    return i * r->m.context + (int64_t)(r->slot[i].read - r->slot[i].gone);
}

// Moves the keys that are still seen to the front of the slot's cache, where it has no room for
// `more` of them. Happens once a window at most.
static qn_result make_room(qn_runner *r, int64_t i, int64_t more)
{
    slot *s = &r->slot[i];
    const int64_t filled = (int64_t)(s->read - s->gone), kept = r->m.config.attention_window - 1;
    if (filled + more <= r->m.context || r->m.context == r->context) return QN_OK;
    for (size_t e = 0; e < qn_store_count(r->m.cache); e++) {
        const qn_store_entry *t = qn_store_at(r->m.cache, e);
        const size_t width = (size_t)t->shape.dim[2];
        float *all = qn_malloc((size_t)t->size);
        if (!all) return qn_no_memory((size_t)t->size);
        qn_result result = qn_store_read(r->m.cache, t->name, all, t->size);
        float *own = all + (size_t)(i * r->m.context) * width;
        memmove(own, own + (size_t)(filled - kept) * width, (size_t)kept * width * sizeof *own);
        if (result == QN_OK) result = qn_store_write(r->m.cache, t->name, all, t->size);
        qn_free(all);
        QN_TRY(result);
    }
    s->gone += (size_t)(filled - kept);
    return QN_OK;
}

// Sends a piece of a slot's text through the model; with `scores`, tells of the tokens behind each
// of its tokens.
static qn_result read_piece(qn_runner *r, int64_t i, piece at, qn_token_score *scores)
{
    slot *s = &r->slot[i];
    qn_runner_plan *p;
    QN_TRY(make_room(r, i, at.T));
    QN_TRY(qn_runner_plan_get(&r->m, scores ? QN_TASK_SCORE : QN_TASK_READ, 1, at.T, 0, &p));
    const int64_t empty = at.T - at.count, first = at_cache(r, i) - empty;
    const int32_t used[2] = { (int32_t)((int64_t)(s->read - s->gone) + at.count), (int32_t)i };
    for (int64_t t = 0; t < at.T; t++) {
        const bool is = t >= empty;
        const size_t from = s->read + (size_t)(t - empty);
        r->ids[t] = is ? s->text[from] : 0;
        r->past[t] = is ? (int32_t)(first + t) : -1;
        r->labels[t] = is && scores ? s->text[from + 1] : QN_IGNORE;
    }
    QN_TRY(qn_runner_plan_set(p, p->ids, r->ids));
    QN_TRY(qn_runner_plan_set(p, p->past, r->past));
    QN_TRY(qn_runner_plan_set(p, p->used, used));
    if (p->texts) QN_TRY(qn_runner_plan_set(p, p->texts, &used[1]));
    if (scores) QN_TRY(qn_runner_plan_set(p, p->labels, r->labels));
    QN_TRY(qn_plan_run(p->plan));
    if (scores) QN_TRY(take_scores(p, &at, scores));
    s->read += (size_t)at.count;
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
        const bool known = s->read + 1 < before; // what follows was there already
        const size_t n = known ? before - 1 - s->read : s->count - 1 - s->read;
        QN_TRY(read_piece(r, i, piece_of(r, n), known ? NULL : out + (s->read + 1 - before)));
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ writing

// What biases and penalties do to a slot's logits; returns how many entries were written.
static size_t changes_of(qn_runner *r, const slot *s, qn_sample_change *out)
{
    const qn_sampling *h = &s->how;
    size_t recent = 0, n = 0;
    if (h->repeat_penalty != 1 || h->frequency_penalty != 0 || h->presence_penalty != 0)
        recent = h->repeat_last_n < 0 || (size_t)h->repeat_last_n > s->count
                     ? s->count
                     : (size_t)h->repeat_last_n;
    // Entries are found by their token: seen holds the number of the entry plus one.
    for (size_t i = 0; i < s->bias_count; i++) {
        const qn_token_bias *b = &s->bias[i];
        if (!r->seen[b->token]) {
            out[n] = (qn_sample_change){ .token = b->token, .factor = 1 };
            r->seen[b->token] = (int32_t)++n;
        }
        out[r->seen[b->token] - 1].bias += b->bias;
    }
    for (size_t i = s->count - recent; i < s->count; i++) {
        const int32_t token = s->text[i];
        if (!r->seen[token]) {
            out[n] = (qn_sample_change){ .token = token, .factor = 1 };
            r->seen[token] = (int32_t)++n;
        }
        qn_sample_change *c = &out[r->seen[token] - 1];
        if (c->factor == 1 && c->less == 0) {
            c->factor = (float)h->repeat_penalty;
            c->less = (float)h->presence_penalty;
        }
        c->less += (float)h->frequency_penalty;
    }
    for (size_t i = 0; i < n; i++) r->seen[out[i].token] = 0;
    return n;
}

static qn_sample_how how_of(const slot *s)
{
    const qn_sampling *h = &s->how;
    const int64_t k = h->top_k < 0 || h->top_k > INT32_MAX ? 0 : h->top_k;
    return (qn_sample_how){ .temperature = (float)h->temperature, .top_p = (float)h->top_p,
                            .min_p = (float)h->min_p, .top_k = (int32_t)k,
                            .seed = { (uint32_t)h->seed, (uint32_t)(h->seed >> 32) },
                            .place = (int32_t)s->count, .top = s->top };
}

// Fills in row `row` of the step's inputs for a slot.
static size_t prepare(qn_runner *r, int64_t i, int64_t row)
{
    const slot *s = &r->slot[i];
    r->rows[row] = (int32_t)i;
    r->ids[row] = s->text[s->read];
    r->past[row] = (int32_t)at_cache(r, i);
    r->used[2 * row] = (int32_t)(s->count - s->gone);
    r->used[2 * row + 1] = (int32_t)i;
    r->how[row] = how_of(s);
    return changes_of(r, s, r->changes + row * r->most_changes);
}

static void no_change(qn_sample_change *c, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) c[i] = (qn_sample_change){ .token = -1, .factor = 1 };
}

// One token for each of the first `count` rows.
static qn_result write_rows(qn_runner *r, int64_t count, const size_t *changes)
{
    const int64_t rows = power_of_two(count);
    size_t most = 0;
    for (int64_t b = 0; b < count; b++)
        if (changes[b] > most) most = changes[b];
    const int64_t M = most == 0 ? 0 : most <= FEW_CHANGES ? FEW_CHANGES : r->most_changes;
    for (int64_t b = count; b < rows; b++) { // rows without a slot write nowhere and see nothing
        r->ids[b] = 0;
        r->past[b] = -1;
        r->rows[b] = -1;
        r->used[2 * b] = r->used[2 * b + 1] = 0;
        r->how[b] = (qn_sample_how){ 0 };
    }
    for (int64_t b = 0; M && b < rows; b++) { // close up to [rows, M]
        qn_sample_change *to = r->changes + b * M;
        if (b < count) memmove(to, r->changes + b * r->most_changes, changes[b] * sizeof *to);
        no_change(to, b < count ? changes[b] : 0, (size_t)M);
    }
    qn_runner_plan *p;
    QN_TRY(qn_runner_plan_get(&r->m, QN_TASK_WRITE, rows, 1, M, &p));
    QN_TRY(qn_runner_plan_set(p, p->ids, r->ids));
    QN_TRY(qn_runner_plan_set(p, p->past, r->past));
    QN_TRY(qn_runner_plan_set(p, p->used, r->used));
    QN_TRY(qn_runner_plan_set(p, p->how, r->how));
    if (p->texts) QN_TRY(qn_runner_plan_set(p, p->texts, r->rows));
    if (M) QN_TRY(qn_runner_plan_set(p, p->change, r->changes));
    QN_TRY(qn_plan_run(p->plan));
    QN_TRY(qn_runner_plan_read(p, p->chosen.token, r->token));
    QN_TRY(qn_runner_plan_read(p, p->chosen.logprob, r->logprob));
    QN_TRY(qn_runner_plan_read(p, p->chosen.top, r->top));
    return qn_runner_plan_read(p, p->chosen.chance, r->chance);
}

static qn_result report(qn_runner *r, int64_t row, qn_runner_event *e)
{
    slot *s = &r->slot[r->rows[row]];
    s->read++;
    *e = (qn_runner_event){ .slot = r->rows[row], .token = r->token[row],
                            .logprob = r->logprob[row] };
    if (e->token < 0) {
        s->running = false;
        return QN_OK;
    }
    const int32_t *top = r->top + row * QN_SAMPLE_TOP;
    for (; e->top_count < s->top && top[e->top_count] >= 0; e->top_count++)
        e->top[e->top_count] = (qn_token_chance){ top[e->top_count],
                                                  r->chance[row * QN_SAMPLE_TOP + e->top_count] };
    QN_TRY(append(r, s, &e->token, 1));
    e->full = s->count == (size_t)r->context;
    if (e->full) s->running = false;
    return QN_OK;
}

// Up to a chunk of what a slot has not read yet, but for the last token.
static qn_result read_on(qn_runner *r, int64_t i)
{
    slot *s = &r->slot[i];
    for (int64_t left = r->chunk; left > 0 && s->count - s->read > 1;) {
        const size_t unread = s->count - s->read - 1;
        const piece next = piece_of(r, unread < (size_t)left ? unread : (size_t)left);
        QN_TRY(read_piece(r, i, next, NULL));
        left -= next.count;
    }
    return QN_OK;
}

qn_result qn_runner_step(qn_runner *r, qn_runner_event *events, size_t *count)
{
    *count = 0;
    size_t changes[MOST_SLOTS];
    int64_t rows = 0;
    for (int64_t i = 0; i < r->m.slots; i++)
        if (r->slot[i].running) QN_TRY(read_on(r, i));
    for (int64_t i = 0; i < r->m.slots; i++) {
        if (!r->slot[i].running || r->slot[i].count - r->slot[i].read > 1) continue;
        QN_TRY(make_room(r, i, 1));
        changes[rows] = prepare(r, i, rows);
        rows++;
    }
    if (!rows) return QN_OK;
    QN_TRY(write_rows(r, rows, changes));
    for (int64_t row = 0; row < rows; row++) QN_TRY(report(r, row, &events[row]));
    *count = (size_t)rows;
    return QN_OK;
}

// ------------------------------------------------------------------------------------ memories

bool qn_runner_remembers(const qn_runner *r)
{
    return r->m.memory != NULL;
}

qn_result qn_runner_memory_load(qn_runner *r, int64_t i, const char *path)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    if (s->read)
        return qn_fail(QN_ERR_INVALID, "slot %lld has read %zu tokens: a memory is loaded before",
                       (long long)i, s->read);
    return qn_memory_bank_load(r->m.memory, i, path);
}

qn_result qn_runner_memory_save(qn_runner *r, int64_t i, const char *path, bool long_term)
{
    slot *s;
    QN_TRY(find(r, i, &s));
    while (r->m.memory && s->read < s->count)
        QN_TRY(read_piece(r, i, piece_of(r, s->count - s->read), NULL));
    return qn_memory_bank_save(r->m.memory, i, s->read, path, long_term);
}
