// Golden cases of whole models: forward, gradients and greedy decoding, and training traces.
// [moduleformer] section 13.
#include "decoder.h"
#include "fail.h"
#include "golden.h"
#include "io/json.h"
#include "mem.h"
#include "parameters.h"
#include "platform.h"
#include "trainer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const double forward_tolerance = 2e-5, gradient_tolerance = 1e-4;

static qn_result load_config(const char *dir, qn_model_config *out)
{
    char *path = qn_path_join(dir, "config.json");
    if (!path) return qn_no_memory(strlen(dir));
    qn_result r = qn_model_config_read(path, out);
    qn_free(path);
    return r;
}

static qn_result load_weights(qn_golden_case *c, const qn_model_config *config, qn_store **out)
{
    QN_TRY(qn_store_create(c->dev, "weights", out));
    QN_TRY(qn_model_declare(config, *out, QN_F32));
    QN_TRY(qn_store_allocate(*out));
    return qn_model_load(config, *out, c->dir);
}

// ------------------------------------------------------------------------------ forward

// What a model case compares: a name in the file, the tensor, and how.
typedef struct expectation {
    char name[160];
    const qn_tensor *tensor;
    double floor, tolerance;
} expectation;

typedef struct expectations {
    expectation *items;
    size_t count, cap;
} expectations;

static qn_result expect(expectations *e, const qn_tensor *t, double floor, double tolerance,
                        const char *fmt, ...) QN_PRINTF(5, 6);
static qn_result expect(expectations *e, const qn_tensor *t, double floor, double tolerance,
                        const char *fmt, ...)
{
    if (!t) return QN_OK;
    QN_TRY(qn_grow((void **)&e->items, &e->cap, e->count + 1, sizeof *e->items));
    expectation *x = &e->items[e->count++];
    *x = (expectation){ .tensor = t, .floor = floor, .tolerance = tolerance };
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(x->name, sizeof x->name, fmt, ap);
    va_end(ap);
    return QN_OK;
}

static qn_result expect_router(expectations *e, int layer, const char *which, const qn_routing *r,
                               const qn_tensor *aux)
{
    const double f = forward_tolerance;
    QN_TRY(expect(e, r->probs, 1e-3, f, "router.%d.%s.probs", layer, which));
    QN_TRY(expect(e, r->gates, 1e-3, f, "router.%d.%s.gates", layer, which));
    QN_TRY(expect(e, r->experts, 0, f, "router.%d.%s.indices", layer, which));
    return expect(e, aux, 1, f, "aux.%d.%s", layer, which);
}

static qn_result expect_network(expectations *e, const qn_lm *lm, int64_t layers)
{
    const double f = forward_tolerance;
    QN_TRY(expect(e, lm->embedding, 1e-3, f, "hidden.embed"));
    for (int i = 0; i < layers; i++) {
        const struct qn_lm_layer *l = &lm->layer[i];
        QN_TRY(expect_router(e, i, "attn", &l->attn, l->attn_aux));
        QN_TRY(expect_router(e, i, "mlp", &l->mlp, l->mlp_aux));
        QN_TRY(expect(e, l->attn_out, 1e-3, f, "attn_out.%d", i));
        QN_TRY(expect(e, l->mlp_out, 1e-3, f, "mlp_out.%d", i));
        QN_TRY(expect(e, l->hidden, 1e-3, f, "hidden.%d", i));
    }
    QN_TRY(expect(e, lm->final, 1e-3, f, "hidden.ln_f"));
    return expect(e, lm->logits, 1e-3, f, "logits");
}

static qn_result expect_gradients(expectations *e, qn_graph *g, const qn_tensor *loss,
                                  qn_store *weights)
{
    size_t n = qn_store_count(weights);
    const qn_tensor **wrt = qn_calloc(n, sizeof *wrt), **grads = qn_calloc(n, sizeof *grads);
    qn_result r = wrt && grads ? QN_OK : qn_no_memory(n * sizeof *wrt);
    for (size_t i = 0; r == QN_OK && i < n; i++)
        wrt[i] = qn_param(g, weights, qn_store_at(weights, i)->name);
    if (r == QN_OK) r = qn_backward(g, loss, NULL, wrt, n, grads);
    for (size_t i = 0; r == QN_OK && i < n; i++)
        r = expect(e, grads[i], 1e-3, gradient_tolerance, "grad.%s", wrt[i]->name);
    qn_free(wrt);
    qn_free(grads);
    return r;
}

typedef struct model_case {
    qn_golden_case *c;
    qn_model_config config;
    qn_store *weights;
    int64_t B, T;
    int32_t *ids, *labels, *keep; // labels shifted; keep NULL: all visible
} model_case;

// Position t predicts label t + 1; the last position of a row predicts nothing.
static void shift(int32_t *labels, int64_t B, int64_t T)
{
    for (int64_t b = 0; b < B; b++) {
        memmove(labels + b * T, labels + b * T + 1, (size_t)(T - 1) * sizeof *labels);
        labels[b * T + T - 1] = QN_IGNORE;
    }
}

static qn_result compare_attention_weights(model_case *m, int layer, float *const qkv[2])
{
    char name[64];
    snprintf(name, sizeof name, "attn_weights.%d", layer);
    if (!qn_safetensors_find(m->c->io, name)) return QN_OK;
    const int64_t B = m->B, T = m->T, H = m->config.n_head, K = m->config.k_att;
    const size_t count = (size_t)(B * T * K * H * T);
    float *rows = qn_malloc(count * sizeof *rows), *golden = qn_malloc(count * sizeof *golden);
    qn_stickbreaking_opts o = { .batch = (int)B, .heads = (int)H, .slots = (int)K };
    qn_result r = rows && golden ? QN_OK : qn_no_memory(count * sizeof *rows);
    if (r == QN_OK)
        r = qn_attention_weights(m->c->dev, qkv[0], qkv[1], &o, B * T * K, T, m->config.att_hidden,
                                 m->keep, rows);
    // Rows (b, t, s, h) to the file's (b, s, h, t).
    for (int64_t i = 0; r == QN_OK && i < B * T * K * H; i++) {
        int64_t h = i % H, s = i / H % K, t = i / (H * K) % T, b = i / (H * K * T);
        memcpy(golden + (((b * K + s) * H + h) * T + t) * T, rows + i * T,
               (size_t)T * sizeof *rows);
    }
    if (r == QN_OK)
        r = qn_golden_compare(m->c, name, golden, count, 1e-3, forward_tolerance);
    qn_free(rows);
    qn_free(golden);
    return r;
}

static qn_result compare_all(model_case *m, const expectations *e, void **got)
{
    for (size_t i = 0; i < e->count; i++) {
        const expectation *x = &e->items[i];
        const uint64_t count = (uint64_t)qn_shape_count(x->tensor->shape);
        if (x->tensor->dtype == QN_I32)
            QN_TRY(qn_golden_compare_int(m->c, x->name, got[i], count));
        else
            QN_TRY(qn_golden_compare(m->c, x->name, got[i], count, x->floor, x->tolerance));
    }
    float *const *tail = (float *const *)(got + e->count);
    for (int i = 0; i < m->config.n_layer; i++)
        QN_TRY(compare_attention_weights(m, i, tail + 2 * i));
    return QN_OK;
}

// Runs for the expectations, then q and k of every layer behind them.
static qn_result run_expectations(model_case *m, qn_graph *g, const expectations *e,
                                  const qn_lm *lm, const qn_feed *feeds, size_t feed_count)
{
    const size_t count = e->count + 2 * (size_t)m->config.n_layer;
    const qn_tensor **out = qn_calloc(count, sizeof *out);
    void **got = qn_calloc(count, sizeof *got);
    qn_result r = out && got ? QN_OK : qn_no_memory(count * sizeof *out);
    for (size_t i = 0; r == QN_OK && i < e->count; i++) out[i] = e->items[i].tensor;
    for (int i = 0; r == QN_OK && i < m->config.n_layer; i++) {
        out[e->count + 2 * (size_t)i] = lm->layer[i].q;
        out[e->count + 2 * (size_t)i + 1] = lm->layer[i].k;
    }
    if (r == QN_OK) r = qn_run_once(g, feeds, feed_count, out, count, got);
    if (r == QN_OK) r = compare_all(m, e, got);
    if (got) qn_free_all(got, count);
    qn_free(out);
    qn_free(got);
    return r;
}

static qn_result run_forward(model_case *m, qn_graph *g, qn_lm *lm, expectations *e)
{
    const qn_model_config *c = &m->config;
    const qn_tensor *ids = qn_input(g, "ids", QN_I32, QN_SHAPE(m->B, m->T));
    const qn_tensor *labels = qn_input(g, "labels", QN_I32, QN_SHAPE(m->B * m->T));
    const qn_tensor *keep = m->keep ? qn_input(g, "keep", QN_I32, QN_SHAPE(m->B, m->T)) : NULL;
    qn_lm_opts o = { .batch = m->B, .positions = m->T, .keep = keep, .capture = true };
    QN_TRY(qn_lm_build(g, m->weights, c, ids, &o, lm));
    const qn_tensor *ce = qn_cross_entropy(g, lm->logits, labels, NULL);
    const qn_tensor *loss =
        qn_add(g, ce, qn_scale(g, lm->aux, (float)c->aux_loss_weight, 0));
    QN_TRY(qn_graph_status(g));
    QN_TRY(expect_network(e, lm, c->n_layer));
    QN_TRY(expect(e, ce, 1, forward_tolerance, "ce_loss"));
    QN_TRY(expect(e, lm->aux, 1, forward_tolerance, "aux_loss"));
    QN_TRY(expect(e, loss, 1, forward_tolerance, "loss"));
    QN_TRY(expect_gradients(e, g, loss, m->weights));
    qn_feed feeds[] = { { ids, m->ids }, { labels, m->labels }, { keep, m->keep } };
    return run_expectations(m, g, e, lm, feeds, keep ? 3 : 2);
}

static qn_result check_forward(model_case *m)
{
    qn_graph *g = NULL;
    expectations e = { 0 };
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    qn_result r = lm ? qn_graph_create(m->c->dev, &g) : qn_no_memory(sizeof *lm);
    if (r == QN_OK) r = run_forward(m, g, lm, &e);
    qn_free(e.items);
    qn_free(lm);
    qn_graph_destroy(&g);
    return r;
}

// ------------------------------------------------------------------------------ decoding

static int32_t largest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static qn_result compare_cache(model_case *m, qn_decoder *d)
{
    const size_t count = (size_t)(m->B * qn_decoder_used(d) * m->config.att_hidden);
    float *cache = qn_malloc(count * sizeof *cache);
    if (!cache) return qn_no_memory(count * sizeof *cache);
    qn_result r = QN_OK;
    for (int64_t i = 0; r == QN_OK && i < 2 * m->config.n_layer; i++) {
        char name[64];
        snprintf(name, sizeof name, "decode.cache.%lld.%c", (long long)(i / 2), i % 2 ? 'v' : 'k');
        r = qn_decoder_cache(d, i / 2, (int)(i % 2), cache);
        if (r == QN_OK)
            r = qn_golden_compare(m->c, name, cache, count, 1e-3, forward_tolerance);
    }
    qn_free(cache);
    return r;
}

// Greedy decoding: the prompt, then each row's most likely token.
static qn_result decode(model_case *m, qn_decoder *d, const int32_t *prompt, const int32_t *keep,
                        int64_t prompt_count, int64_t steps)
{
    const int64_t B = m->B, V = m->config.vocab_size;
    int32_t *ids = qn_malloc((size_t)(B * steps) * sizeof *ids);
    int32_t *next = qn_malloc((size_t)B * sizeof *next);
    float *logits = qn_malloc((size_t)(B * V) * sizeof *logits);
    float *all = qn_malloc((size_t)(B * steps * V) * sizeof *all);
    qn_result r = ids && next && logits && all ? QN_OK : qn_no_memory((size_t)(B * steps * V) * 4);
    for (int64_t s = 0; r == QN_OK && s < steps; s++) {
        r = s == 0 ? qn_decoder_feed(d, prompt, keep, prompt_count, logits)
                   : qn_decoder_feed(d, next, NULL, 1, logits);
        for (int64_t b = 0; r == QN_OK && b < B; b++) {
            next[b] = ids[b * steps + s] = largest(logits + b * V, V);
            memcpy(all + (b * steps + s) * V, logits + b * V, (size_t)V * sizeof *all);
        }
    }
    if (r == QN_OK) r = qn_golden_compare_int(m->c, "decode.ids", ids, (uint64_t)(B * steps));
    if (r == QN_OK)
        r = qn_golden_compare(m->c, "decode.logits", all, (uint64_t)(B * steps * V), 1e-3,
                              forward_tolerance);
    if (r == QN_OK) r = compare_cache(m, d);
    qn_free(ids);
    qn_free(next);
    qn_free(logits);
    qn_free(all);
    return r;
}

static qn_result check_decoding(model_case *m)
{
    const qn_safetensor *p = qn_safetensors_find(m->c->io, "decode.prompt_ids");
    const qn_safetensor *out = qn_safetensors_find(m->c->io, "decode.ids");
    if (!p || !out) return QN_OK;
    if (p->rank != 2 || out->rank != 2 || p->dim[0] != out->dim[0])
        return qn_fail(QN_ERR_FORMAT, "%s: decode.prompt_ids and decode.ids do not fit together",
                       m->c->dir);
    const int64_t count = p->dim[1], steps = out->dim[1];
    const bool masked = qn_safetensors_find(m->c->io, "decode.prompt_attention_mask") != NULL;
    model_case rows = *m;
    rows.B = p->dim[0];
    int32_t *prompt = NULL, *keep = NULL;
    qn_decoder *d = NULL;
    qn_result r = qn_golden_i32(m->c, "decode.prompt_ids", (uint64_t)(rows.B * count), &prompt, NULL);
    if (r == QN_OK && masked)
        r = qn_golden_i32(m->c, "decode.prompt_attention_mask", (uint64_t)(rows.B * count), &keep,
                          NULL);
    qn_decoder_opts o = { .batch = rows.B, .context = count + steps, .masked = masked };
    if (r == QN_OK) r = qn_decoder_create(m->c->dev, &m->config, m->weights, &o, &d);
    if (r == QN_OK) r = decode(&rows, d, prompt, keep, count, steps);
    qn_decoder_destroy(&d);
    if (r == QN_OK)
        r = qn_golden_runner(m->c, &m->config, m->weights, prompt, keep, rows.B, count, steps);
    qn_free(prompt);
    qn_free(keep);
    return r;
}

qn_result qn_golden_model(qn_golden_case *c)
{
    const qn_safetensor *ids = qn_safetensors_find(c->io, "input_ids");
    if (ids->rank != 2) return qn_fail(QN_ERR_FORMAT, "%s: input_ids has no rows", c->dir);
    model_case m = { .c = c, .B = ids->dim[0], .T = ids->dim[1] };
    const uint64_t N = ids->count;
    qn_result r = load_config(c->dir, &m.config);
    if (r == QN_OK) r = load_weights(c, &m.config, &m.weights);
    if (r == QN_OK) r = qn_golden_i32(c, "input_ids", N, &m.ids, NULL);
    if (r == QN_OK) r = qn_golden_i32(c, "labels", N, &m.labels, NULL);
    if (r == QN_OK && qn_safetensors_find(c->io, "attention_mask"))
        r = qn_golden_i32(c, "attention_mask", N, &m.keep, NULL);
    if (r == QN_OK) {
        shift(m.labels, m.B, m.T);
        r = check_forward(&m);
    }
    if (r == QN_OK) r = check_decoding(&m);
    qn_free(m.ids);
    qn_free(m.labels);
    qn_free(m.keep);
    qn_store_destroy(&m.weights);
    return r;
}

// ------------------------------------------------------------------------------ traces

typedef struct trace {
    double lr, loss_abs, mean_abs; // mean_abs 0: not asked for
    bool final_weights;            // routing near-ties may flip in long traces: not compared then
    qn_trainer_opts opts;
    qn_model_config config;
    int64_t steps;
} trace;

static qn_result read_trace(const char *dir, trace *t)
{
    char *path = qn_path_join(dir, "meta.json");
    if (!path) return qn_no_memory(strlen(dir));
    qn_json_doc *doc = NULL;
    qn_result r = qn_json_open(path, NULL, &doc);
    qn_free(path);
    QN_TRY(r);
    qn_json o = qn_json_root(doc), betas, tolerance = { 0 };
    r = qn_json_number(o, "lr", 0, 1e3, &t->lr);
    if (r == QN_OK) r = qn_json_array(o, "betas", &betas);
    if (r == QN_OK) r = qn_json_number(qn_json_first(betas), NULL, 0, 1, &t->opts.beta1);
    if (r == QN_OK)
        r = qn_json_number(qn_json_next(qn_json_first(betas)), NULL, 0, 1, &t->opts.beta2);
    if (r == QN_OK) r = qn_json_number(o, "eps", 0, 1, &t->opts.epsilon);
    if (r == QN_OK) r = qn_json_number(o, "weight_decay", 0, 1e3, &t->opts.weight_decay);
    if (r == QN_OK) r = qn_json_number(o, "grad_clip_norm", 0, 1e9, &t->opts.clip);
    if (r == QN_OK) r = qn_json_object_or(o, "tolerance", &tolerance);
    t->final_weights = qn_json_kind_of(tolerance) != QN_JSON_OBJECT;
    t->loss_abs = 1e-4;
    if (r == QN_OK && !t->final_weights) {
        r = qn_json_number(tolerance, "loss_abs", 0, 1e3, &t->loss_abs);
        if (r == QN_OK)
            r = qn_json_number_or(tolerance, "mean_loss_last_20_abs", 0, 1e3, 0, &t->mean_abs);
    }
    t->opts.decay_everything = true; // the traces decay norms and biases, too
    qn_json_close(&doc);
    return r;
}

// Largest absolute difference from the stored series, and that of the means of the last 20.
static qn_result compare_series(qn_golden_case *c, const char *name, const double *got,
                                int64_t steps, double tolerance, double mean_tolerance)
{
    if (!qn_safetensors_find(c->io, name)) return QN_OK;
    float *want;
    QN_TRY(qn_golden_f32(c, name, (uint64_t)steps, &want, NULL));
    double most = 0, mean = 0;
    const int64_t last = steps < 20 ? steps : 20;
    for (int64_t i = 0; i < steps; i++) {
        double d = fabs(got[i] - (double)want[i]);
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
        if (i >= steps - last) mean += (got[i] - (double)want[i]) / (double)last;
    }
    qn_free(want);
    qn_golden_bound(c, name, most, tolerance);
    if (mean_tolerance > 0) {
        char what[96];
        snprintf(what, sizeof what, "mean of the last %lld of %s", (long long)last, name);
        qn_golden_bound(c, what, fabs(mean), mean_tolerance);
    }
    return QN_OK;
}

static qn_result compare_final(qn_golden_case *c, qn_trainer *t)
{
    char *path = qn_path_join(c->dir, "final.safetensors");
    if (!path) return qn_no_memory(strlen(c->dir));
    qn_golden_case last = *c;
    qn_result r = qn_file_exists(path) ? qn_safetensors_open(path, &last.io) : QN_OK;
    qn_free(path);
    if (r != QN_OK || last.io == c->io) return r;
    const qn_store *w = qn_trainer_weights(t);
    for (size_t i = 0; r == QN_OK && i < qn_store_count(w); i++) {
        const qn_store_entry *e = qn_store_at(w, i);
        float *got = qn_malloc((size_t)e->size), *want = NULL;
        const uint64_t n = e->size / sizeof *got;
        r = got ? qn_store_read(w, e->name, got, e->size) : qn_no_memory((size_t)e->size);
        if (r == QN_OK) r = qn_golden_f32(&last, e->name, n, &want, NULL);
        double most = 0;
        for (uint64_t k = 0; r == QN_OK && k < n; k++) {
            double d = fabs((double)got[k] - (double)want[k]);
            if (!(d <= most)) most = isnan(d) ? INFINITY : d;
        }
        char name[200];
        snprintf(name, sizeof name, "final %s", e->name);
        if (r == QN_OK) qn_golden_bound(c, name, most, 1e-3);
        qn_free(got);
        qn_free(want);
    }
    qn_safetensors_close(&last.io);
    return r;
}

static qn_result run_trace(qn_golden_case *c, const trace *tr, qn_trainer *t, const int32_t *ids)
{
    const int64_t N = tr->opts.batch * tr->opts.positions;
    int32_t *labels = qn_malloc((size_t)N * sizeof *labels);
    double *series = qn_calloc((size_t)tr->steps * 4, sizeof *series);
    double *loss = series, *ce = loss + tr->steps, *aux = ce + tr->steps, *norm = aux + tr->steps;
    qn_result r = labels && series ? QN_OK : qn_no_memory((size_t)N * sizeof *labels);
    for (int64_t s = 0; r == QN_OK && s < tr->steps; s++) {
        memcpy(labels, ids + s * N, (size_t)N * sizeof *labels);
        shift(labels, tr->opts.batch, tr->opts.positions);
        qn_step_report report;
        r = qn_trainer_step(t, s + 1, tr->lr, ids + s * N, labels, &report);
        if (r != QN_OK) break;
        loss[s] = report.loss;
        ce[s] = report.ce;
        aux[s] = report.aux;
        norm[s] = report.grad_norm;
    }
    if (r == QN_OK) r = compare_series(c, "train.loss", loss, tr->steps, tr->loss_abs, tr->mean_abs);
    if (r == QN_OK) r = compare_series(c, "train.ce_loss", ce, tr->steps, tr->loss_abs, 0);
    if (r == QN_OK && tr->final_weights) {
        // The other series have no tolerance of their own: an order of magnitude above the loss's.
        r = compare_series(c, "train.aux_loss", aux, tr->steps, 10 * tr->loss_abs, 0);
        if (r == QN_OK)
            r = compare_series(c, "train.grad_norm", norm, tr->steps, 10 * tr->loss_abs, 0);
        if (r == QN_OK) r = compare_final(c, t);
    }
    qn_free(labels);
    qn_free(series);
    return r;
}

qn_result qn_golden_trace(qn_golden_case *c)
{
    const qn_safetensor *x = qn_safetensors_find(c->io, "train.input_ids");
    if (x->rank != 3) return qn_fail(QN_ERR_FORMAT, "%s: train.input_ids has no steps", c->dir);
    trace tr = { .steps = x->dim[0], .opts = { .batch = x->dim[1], .positions = x->dim[2] } };
    qn_trainer *t = NULL;
    int32_t *ids = NULL;
    qn_result r = load_config(c->dir, &tr.config);
    if (r == QN_OK) r = read_trace(c->dir, &tr);
    if (r == QN_OK) r = qn_golden_i32(c, "train.input_ids", x->count, &ids, NULL);
    if (r == QN_OK) r = qn_trainer_create(c->dev, &tr.config, &tr.opts, &t);
    if (r == QN_OK) r = qn_model_load(&tr.config, qn_trainer_weights(t), c->dir);
    if (r == QN_OK) r = run_trace(c, &tr, t, ids);
    qn_trainer_destroy(&t);
    qn_free(ids);
    return r;
}
