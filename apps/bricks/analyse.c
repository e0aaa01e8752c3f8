// Running instances through a model and scoring its neurons.
#include "analyse.h"
#include "fail.h"
#include "mem.h"
#include "random.h"
#include "score.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 8 };

static void free_layer(qn_layer_scores *l)
{
    qn_free(l->mean);
    qn_free(l->score);
    qn_free(l->expert_score);
    qn_free(l->attribution);
    qn_free(l->resident);
}

void qn_analysis_free(qn_analysis *a)
{
    for (size_t l = 0; a->layer && l < a->layers; l++) free_layer(&a->layer[l]);
    qn_free(a->layer);
    qn_free(a->random);
    *a = (qn_analysis){ 0 };
}

// ------------------------------------------------------------------------------ one pass

// Host copies of one batch.
typedef struct pass {
    const qn_analysis *a;
    qn_probe *p;
    size_t slots, width, choices; // N*K, F, K
    int32_t *ids, *labels, *experts;
    float *h, *dh, *gates, *rows;
    double *ind, *norm; // [K*F]; norms of the output rows [layers, neurons]
    float *gate_mean;   // [layers, instances, experts]
} pass;

static void free_pass(pass *s)
{
    qn_probe_destroy(&s->p);
    qn_free(s->ids);
    qn_free(s->labels);
    qn_free(s->experts);
    qn_free(s->h);
    qn_free(s->dh);
    qn_free(s->gates);
    qn_free(s->rows);
    qn_free(s->ind);
    qn_free(s->norm);
    qn_free(s->gate_mean);
}

static qn_result open_pass(const qn_analysis *a, uint32_t parts, pass *s)
{
    const qn_model_config *c = &a->f->config;
    *s = (pass){ .a = a, .width = (size_t)c->ffd_hidden, .choices = (size_t)c->k_mlp };
    const size_t N = a->rows * a->length, most = s->choices * s->width;
    s->slots = N * s->choices;
    s->ids = qn_malloc(N * sizeof *s->ids);
    s->labels = qn_malloc(N * sizeof *s->labels);
    s->experts = qn_malloc(s->slots * sizeof *s->experts);
    s->gates = qn_malloc(s->slots * sizeof *s->gates);
    s->h = qn_malloc(s->slots * s->width * sizeof *s->h);
    s->rows = qn_malloc(N * sizeof *s->rows);
    s->ind = qn_malloc((most + 1) * sizeof *s->ind);
    s->norm = qn_malloc(a->layers * a->neurons * sizeof *s->norm);
    if (!s->ids || !s->labels || !s->experts || !s->gates || !s->h || !s->rows || !s->ind || !s->norm)
        return qn_no_memory(s->slots * s->width * 4);
    return qn_probe_create(a->dev, a->f, (int64_t)a->rows, (int64_t)a->length, parts, &s->p);
}

// Norms of what each neuron writes: rows of the output matrices [E, F, C].
static qn_result read_norms(pass *s)
{
    const qn_analysis *a = s->a;
    const size_t C = (size_t)a->f->config.n_embd;
    float *w = qn_malloc(a->neurons * C * sizeof *w);
    if (!w) return qn_no_memory(a->neurons * C * sizeof *w);
    qn_result r = QN_OK;
    for (size_t l = 0; r == QN_OK && l < a->layers; l++) {
        char name[160];
        snprintf(name, sizeof name, "transformer.h.%zu.mlpf.output_experts.weight", l);
        r = qn_store_read(a->f->weights, name, w, a->neurons * C * sizeof *w);
        for (size_t n = 0; r == QN_OK && n < a->neurons; n++) {
            double sum = 0;
            for (size_t k = 0; k < C; k++) sum += (double)w[n * C + k] * (double)w[n * C + k];
            s->norm[l * a->neurons + n] = sqrt(sum);
        }
    }
    qn_free(w);
    return r;
}

// The indicators of one token's active neurons, [K*F]; returns the largest.
static double indicators(const pass *s, size_t layer, size_t token, bool magnitude, double *ind)
{
    const double *norm = s->norm + layer * s->a->neurons;
    double most = 0;
    for (size_t k = 0; k < s->choices; k++) {
        const size_t slot = token * s->choices + k;
        const double *own = norm + (size_t)s->experts[slot] * s->width;
        double *at = ind + k * s->width;
        qn_score_indicator(s->h + slot * s->width, magnitude ? own : NULL, s->width, at);
        for (size_t i = 0; i < s->width; i++) most = at[i] > most ? at[i] : most;
    }
    return most;
}

// ------------------------------------------------------------------------------ collecting

typedef struct histogram {
    double count[2][QN_CDF_POINTS + 1], below[2], all;
} histogram;

static void count_token(pass *s, size_t layer, size_t token, histogram *hist)
{
    const size_t n = s->choices * s->width, idle = s->a->neurons - n;
    for (int kind = 0; kind < 2; kind++) {
        const double most = indicators(s, layer, token, kind, s->ind);
        hist->count[kind][0] += (double)idle;
        hist->below[kind] += (double)idle;
        for (size_t i = 0; i < n; i++) {
            const double x = most > 0 ? s->ind[i] / most : 0;
            hist->count[kind][(size_t)ceil(x * (QN_CDF_POINTS - 1))]++;
            hist->below[kind] += x < 0.2;
        }
    }
    hist->all += (double)s->a->neurons;
}

static void add_token(pass *s, size_t layer, size_t instance, size_t token, double share)
{
    const qn_analysis *a = s->a;
    float *mean = a->layer[layer].mean + instance * a->neurons;
    float *gates = s->gate_mean + (layer * a->in->count + instance) * a->experts;
    for (size_t k = 0; k < s->choices; k++) {
        const size_t slot = token * s->choices + k, e = (size_t)s->experts[slot];
        const float *h = s->h + slot * s->width;
        for (size_t i = 0; i < s->width; i++)
            mean[e * s->width + i] += (float)(share * fabs((double)h[i]));
        gates[e] += (float)(share * (double)s->gates[slot]);
    }
}

static void add_attribution(pass *s, size_t layer, int function, size_t token, double scale)
{
    float *sum = s->a->layer[layer].attribution + (size_t)function * s->a->neurons;
    for (size_t k = 0; k < s->choices; k++) {
        const size_t slot = token * s->choices + k, e = (size_t)s->experts[slot];
        for (size_t i = 0; i < s->width; i++)
            sum[e * s->width + i] += (float)fabs(scale * (double)s->h[slot * s->width + i] *
                                                 (double)s->dh[slot * s->width + i]);
    }
}

static qn_result collect_layer(pass *s, size_t layer, size_t first, size_t placed, histogram *hist,
                               double predicted)
{
    const qn_analysis *a = s->a;
    QN_TRY(qn_probe_experts(s->p, (int64_t)layer, 1, s->experts));
    QN_TRY(qn_probe_gates(s->p, (int64_t)layer, 1, s->gates));
    QN_TRY(qn_probe_neurons(s->p, (int64_t)layer, s->h));
    if (s->dh) QN_TRY(qn_probe_gradient(s->p, (int64_t)layer, s->dh));
    for (size_t r = 0; r < placed; r++) {
        const qn_instance *one = &a->in->items[first + r];
        for (size_t t = 0; t < one->count; t++) {
            const size_t token = r * a->length + t;
            count_token(s, layer, token, &hist[layer]);
            if (t < one->prompt) add_token(s, layer, first + r, token, 1 / (double)one->prompt);
            if (s->dh) add_attribution(s, layer, one->function, token, predicted);
        }
    }
    return QN_OK;
}

static qn_result collect(pass *s, histogram *hist)
{
    const qn_analysis *a = s->a;
    for (size_t first = 0; first < a->in->count; first += a->rows) {
        const size_t N = a->rows * a->length;
        const size_t placed =
            qn_instances_batch(a->in, first, a->rows, a->length, s->ids, s->labels);
        double predicted = 0;
        for (size_t i = 0; i < N; i++) predicted += s->labels[i] != QN_IGNORE;
        QN_TRY(qn_probe_run(s->p, s->ids, s->labels));
        for (size_t l = 0; l < a->layers; l++)
            QN_TRY(collect_layer(s, l, first, placed, hist, predicted));
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------ scoring

static qn_result score_columns(const qn_analysis *a, const float *values, size_t columns,
                               const uint8_t *labels, float *score)
{
    for (size_t f = 0; f < a->functions; f++)
        for (size_t n = 0; n < columns; n++) {
            double x;
            QN_TRY(qn_score_precision(values + n, columns, labels + f, a->functions, a->in->count,
                                      &x));
            score[f * columns + n] = (float)x;
        }
    return QN_OK;
}

// More than half of the layer's largest on at least four fifths of the instances.
static void find_residents(const qn_analysis *a, qn_layer_scores *l)
{
    for (size_t i = 0; i < a->in->count; i++) {
        float most = 0;
        for (size_t n = 0; n < a->neurons; n++)
            if (l->mean[i * a->neurons + n] > most) most = l->mean[i * a->neurons + n];
        for (size_t n = 0; n < a->neurons; n++)
            if (l->mean[i * a->neurons + n] > most / 2) l->score[n] += 1; // counts, for now
    }
    for (size_t n = 0; n < a->neurons; n++) {
        l->resident[n] = (double)l->score[n] >= 0.8 * (double)a->in->count;
        l->score[n] = 0;
    }
}

static qn_result score_random(qn_analysis *a, const uint8_t *labels)
{
    enum { DRAWS = 64 };
    float *x = qn_malloc(a->in->count * sizeof *x);
    if (!x) return qn_no_memory(a->in->count * sizeof *x);
    qn_random rng = qn_random_start(1, 0);
    qn_result r = QN_OK;
    for (int d = 0; r == QN_OK && d < DRAWS; d++) {
        for (size_t i = 0; i < a->in->count; i++) x[i] = (float)qn_random_unit(&rng);
        for (size_t f = 0; r == QN_OK && f < a->functions; f++) {
            double one = 0;
            r = qn_score_precision(x, 1, labels + f, a->functions, a->in->count, &one);
            a->random[f] += one / DRAWS;
        }
    }
    qn_free(x);
    return r;
}

static qn_result score_all(qn_analysis *a, const pass *s)
{
    uint8_t *labels = qn_calloc(a->in->count * a->functions, 1);
    if (!labels) return qn_no_memory(a->in->count * a->functions);
    for (size_t i = 0; i < a->in->count; i++)
        labels[i * a->functions + (size_t)a->in->items[i].function] = 1;
    qn_result r = score_random(a, labels);
    for (size_t l = 0; r == QN_OK && l < a->layers; l++) {
        qn_layer_scores *at = &a->layer[l];
        find_residents(a, at);
        r = score_columns(a, at->mean, a->neurons, labels, at->score);
        if (r == QN_OK)
            r = score_columns(a, s->gate_mean + l * a->in->count * a->experts, a->experts, labels,
                              at->expert_score);
    }
    qn_free(labels);
    return r;
}

static qn_result allocate(qn_analysis *a, bool attribution)
{
    a->layer = qn_calloc(a->layers, sizeof *a->layer);
    a->random = qn_calloc(a->functions, sizeof *a->random);
    if (!a->layer || !a->random) return qn_no_memory(a->layers * sizeof *a->layer);
    for (size_t l = 0; l < a->layers; l++) {
        qn_layer_scores *at = &a->layer[l];
        at->mean = qn_calloc(a->in->count * a->neurons, sizeof *at->mean);
        at->score = qn_calloc(a->functions * a->neurons, sizeof *at->score);
        at->expert_score = qn_calloc(a->functions * a->experts, sizeof *at->expert_score);
        at->resident = qn_calloc(a->neurons, 1);
        if (attribution) at->attribution = qn_calloc(a->functions * a->neurons, sizeof *at->score);
        if (!at->mean || !at->score || !at->expert_score || !at->resident ||
            (attribution && !at->attribution))
            return qn_no_memory(a->in->count * a->neurons * sizeof *at->mean);
    }
    return QN_OK;
}

static void finish_histogram(const histogram *hist, qn_layer_scores *l)
{
    for (int kind = 0; kind < 2; kind++) {
        double sum = 0;
        for (int i = 0; i < QN_CDF_POINTS; i++) {
            sum += hist->count[kind][i];
            l->cdf[kind][i] = hist->all > 0 ? sum / hist->all : 0;
        }
        l->below[kind] = hist->all > 0 ? hist->below[kind] / hist->all : 0;
    }
}

// Sums of |a dL/da| become means over the tokens of each function.
static void finish_attribution(qn_analysis *a)
{
    double *tokens = qn_calloc(a->functions, sizeof *tokens);
    for (size_t i = 0; tokens && i < a->in->count; i++)
        tokens[a->in->items[i].function] += (double)a->in->items[i].count;
    for (size_t l = 0; tokens && l < a->layers; l++)
        for (size_t i = 0; a->layer[l].attribution && i < a->functions * a->neurons; i++)
            a->layer[l].attribution[i] =
                (float)((double)a->layer[l].attribution[i] / tokens[i / a->neurons]);
    qn_free(tokens);
}

qn_result qn_analysis_run(qn_device *dev, const qn_folder *f, const qn_instances *in, size_t length,
                          bool attribution, qn_analysis *out)
{
    const qn_model_config *c = &f->config;
    qn_analysis *a = out;
    *a = (qn_analysis){ .f = f, .in = in, .dev = dev, .layers = (size_t)c->n_layer,
                        .neurons = (size_t)(c->n_mlp_experts * c->ffd_hidden),
                        .experts = (size_t)c->n_mlp_experts, .functions = in->function_count,
                        .length = length, .rows = ROWS };
    pass s = { 0 };
    histogram *hist = qn_calloc(a->layers, sizeof *hist);
    qn_result r = hist ? allocate(a, attribution) : qn_no_memory(a->layers * sizeof *hist);
    if (r == QN_OK)
        r = open_pass(a, QN_PROBE_NEURONS | (attribution ? QN_PROBE_GRADIENT : 0), &s);
    if (r == QN_OK && attribution && !(s.dh = qn_malloc(s.slots * s.width * sizeof *s.dh)))
        r = qn_no_memory(s.slots * s.width * sizeof *s.dh);
    if (r == QN_OK) {
        s.gate_mean = qn_calloc(a->layers * in->count * a->experts, sizeof *s.gate_mean);
        if (!s.gate_mean) r = qn_no_memory(in->count * a->experts * sizeof *s.gate_mean);
    }
    if (r == QN_OK) r = read_norms(&s);
    if (r == QN_OK) r = collect(&s, hist);
    for (size_t l = 0; r == QN_OK && l < a->layers; l++) finish_histogram(&hist[l], &a->layer[l]);
    if (r == QN_OK) finish_attribution(a);
    if (r == QN_OK) r = score_all(a, &s);
    free_pass(&s);
    qn_free(hist);
    if (r != QN_OK) qn_analysis_free(a);
    return r;
}

// ------------------------------------------------------------------------------ sets and losses

qn_result qn_analysis_top(const qn_analysis *a, size_t function, const qn_top_opts *opts,
                          uint8_t *out)
{
    const size_t ranked = opts->whole_model ? a->layers * a->neurons : a->neurons;
    const size_t count = qn_score_top_count(opts->share, ranked);
    float *score = qn_malloc(a->layers * a->neurons * sizeof *score);
    int32_t *top = qn_malloc((count + 1) * sizeof *top);
    qn_result r = score && top ? QN_OK : qn_no_memory(a->layers * a->neurons * sizeof *score);
    for (size_t i = 0; r == QN_OK && i < a->layers * a->neurons; i++) {
        const qn_layer_scores *l = &a->layer[i / a->neurons];
        const bool skip = opts->skip_resident && l->resident[i % a->neurons];
        score[i] = skip ? -1 : l->score[function * a->neurons + i % a->neurons];
    }
    if (r == QN_OK) memset(out, 0, a->layers * a->neurons);
    for (size_t at = 0; r == QN_OK && at < a->layers * a->neurons; at += ranked) {
        r = qn_score_top(score + at, ranked, count, top);
        for (size_t i = 0; r == QN_OK && i < count; i++)
            if (score[at + (size_t)top[i]] >= 0) out[at + (size_t)top[i]] = 1;
    }
    qn_free(score);
    qn_free(top);
    return r;
}

// Adds the losses of a batch to the sums of each function.
static qn_result add_losses(pass *s, size_t first, size_t placed, double *sum, double *count)
{
    QN_TRY(qn_probe_losses(s->p, s->rows));
    for (size_t r = 0; r < placed; r++) {
        const int f = s->a->in->items[first + r].function;
        for (size_t t = 0; t < s->a->length; t++) {
            if (s->labels[r * s->a->length + t] == QN_IGNORE) continue;
            sum[f] += (double)s->rows[r * s->a->length + t];
            count[f]++;
        }
    }
    return QN_OK;
}

static qn_result set_tables(pass *s, const uint8_t *zeroed)
{
    const qn_analysis *a = s->a;
    float *table = qn_malloc(a->neurons * sizeof *table);
    if (!table) return qn_no_memory(a->neurons * sizeof *table);
    qn_result r = QN_OK;
    for (size_t l = 0; r == QN_OK && l < a->layers; l++) {
        for (size_t n = 0; n < a->neurons; n++) table[n] = zeroed[l * a->neurons + n] ? 0 : 1;
        r = qn_probe_set_table(s->p, (int64_t)l, table);
    }
    qn_free(table);
    return r;
}

// Factors of layer l's slots from its activations in the run before.
static qn_result mask_layer(pass *s, size_t layer, bool magnitude, size_t count, uint8_t *mask)
{
    const size_t n = s->choices * s->width, N = s->a->rows * s->a->length;
    QN_TRY(qn_probe_experts(s->p, (int64_t)layer, 1, s->experts));
    QN_TRY(qn_probe_neurons(s->p, (int64_t)layer, s->h));
    for (size_t t = 0; t < N; t++) {
        indicators(s, layer, t, magnitude, s->ind);
        QN_TRY(qn_score_lowest(s->ind, n, count, mask));
        for (size_t i = 0; i < n; i++) s->h[t * n + i] = mask[i] ? 0 : 1;
    }
    return qn_probe_set_slots(s->p, (int64_t)layer, s->h);
}

static qn_result clear_slots(pass *s)
{
    for (size_t i = 0; i < s->slots * s->width; i++) s->h[i] = 1;
    for (size_t l = 0; l < s->a->layers; l++) QN_TRY(qn_probe_set_slots(s->p, (int64_t)l, s->h));
    return QN_OK;
}

typedef struct masking {
    bool magnitude;
    size_t count; // of the neurons that ran
    uint8_t *mask;
} masking;

// A batch; with `m` the masks of a layer follow from a run under the masks of those before it.
static qn_result run_batch(pass *s, const masking *m)
{
    if (!m) return qn_probe_run(s->p, s->ids, s->labels);
    QN_TRY(clear_slots(s));
    for (size_t l = 0; l < s->a->layers; l++) {
        QN_TRY(qn_probe_run(s->p, s->ids, s->labels));
        QN_TRY(mask_layer(s, l, m->magnitude, m->count, m->mask));
    }
    return qn_probe_run(s->p, s->ids, s->labels);
}

static qn_result measure(pass *s, const masking *m, double *loss)
{
    const qn_analysis *a = s->a;
    double *sum = qn_calloc(a->functions, sizeof *sum), *count = qn_calloc(a->functions, sizeof *count);
    qn_result r = sum && count ? QN_OK : qn_no_memory(a->functions * sizeof *sum);
    for (size_t first = 0; r == QN_OK && first < a->in->count; first += a->rows) {
        const size_t placed =
            qn_instances_batch(a->in, first, a->rows, a->length, s->ids, s->labels);
        r = run_batch(s, m);
        if (r == QN_OK) r = add_losses(s, first, placed, sum, count);
    }
    for (size_t f = 0; r == QN_OK && f < a->functions; f++) loss[f] = sum[f] / count[f];
    qn_free(sum);
    qn_free(count);
    return r;
}

qn_result qn_analysis_loss(const qn_analysis *a, const uint8_t *zeroed, double *loss)
{
    pass s;
    qn_result r = open_pass(a, zeroed ? QN_PROBE_TABLE : 0, &s);
    if (r == QN_OK && zeroed) r = set_tables(&s, zeroed);
    if (r == QN_OK) r = measure(&s, NULL, loss);
    free_pass(&s);
    return r;
}

qn_result qn_analysis_masked(const qn_analysis *a, bool magnitude, double percent, bool ran,
                             double *loss)
{
    pass s;
    masking m = { .magnitude = magnitude };
    qn_result r = open_pass(a, QN_PROBE_NEURONS | QN_PROBE_SLOTS, &s);
    const size_t n = s.choices * s.width, idle = ran ? 0 : a->neurons - n;
    const size_t lowest = (size_t)(percent / 100 * (double)(n + idle));
    m.count = lowest > idle ? lowest - idle : 0;
    if (r == QN_OK && !(m.mask = qn_malloc(s.choices * s.width + 1)))
        r = qn_no_memory(s.choices * s.width);
    if (r == QN_OK) r = read_norms(&s);
    if (r == QN_OK) r = measure(&s, &m, loss);
    qn_free(m.mask);
    free_pass(&s);
    return r;
}
