// `quoin bricks partition`: dense feed-forward blocks as groups of neurons.
#include "bricks/delta.h"
#include "bricks/edit.h"
#include "bricks/groups.h"
#include "bricks/partition.h"
#include "bricks/probe.h"
#include "cli/command.h"
#include "cli/report.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct partition_opts {
    const char *out, *data, *apply;
    int64_t groups, tokens;
    int features, method;
} partition_opts;

static const qn_opt options[] = {
    { "groups", 'k', QN_AT_INT(partition_opts, groups), .initial = "8", .min = 2, .max = 4096,
      .help = "groups of each block; divides its neurons" },
    { "out", 'o', QN_AT_PATH(partition_opts, out), .value = "FILE",
      .help = "labels, order, centres and routers, as safetensors; a .json beside it" },
    { "apply", 0, QN_AT_PATH(partition_opts, apply), .value = "DIR",
      .help = "write the model with its neurons in groups: it computes the same" },
    { "features", 0, QN_AT_CHOICE(partition_opts, features), .words = "gate|input|both",
      .initial = "gate", .help = "which matrix of a gated block tells neurons apart" },
    { "method", 0, QN_AT_CHOICE(partition_opts, method), .words = "kmeans|graph", .initial = "kmeans",
      .help = "by what neurons read, or (with --data) by which are active together" },
    { "data", 0, QN_AT_PATH(partition_opts, data), .value = "FILE|DIR",
      .help = "a text: routers are trained and judged on it (dense ModuleFormer)" },
    { "tokens", 0, QN_AT_INT(partition_opts, tokens), .initial = "4096", .min = 64, .max = 1 << 24,
      .help = "tokens of it to look at" },
    { 0 },
};

enum { SHARES = 5, CHOOSERS = 4 };
static const int shares[SHARES] = { 10, 20, 30, 50, 100 };
static const char *const choosers[CHOOSERS] = { "oracle", "similarity", "mlp", "random" };

// Everything for one layer.
typedef struct layer_result {
    qn_partition_layer p;
    float *w1, *w2; // router; NULL without data
    double mass[CHOOSERS][SHARES], recall[CHOOSERS][SHARES], error[CHOOSERS][SHARES];
} layer_result;

typedef struct partitioning {
    const qn_cli *cli;
    const partition_opts *o;
    qn_brick_model m;
    layer_result *layers;
    size_t K, F, d;
    // With data: what the blocks read and what their neurons do, layer after layer.
    size_t tokens;
    float **x, **h;
} partitioning;

// ------------------------------------------------------------------------------ data

static qn_result collect(partitioning *p, qn_probe *probe, const int32_t *tokens)
{
    const size_t N = (size_t)qn_probe_rows(probe);
    for (size_t at = 0; at < p->tokens; at += N) {
        QN_TRY(qn_probe_run(probe, tokens + at, tokens + at + 1));
        for (int64_t l = 0; l < p->m.layers; l++) {
            QN_TRY(qn_probe_inputs(probe, l, p->x[l] + at * p->d));
            QN_TRY(qn_probe_neurons(probe, l, p->h[l] + at * p->F));
        }
    }
    return QN_OK;
}

static qn_result read_data(partitioning *p, qn_device *dev)
{
    enum { T = 32, B = 2 };
    qn_folder f = { 0 };
    qn_tokens t = { 0 };
    qn_probe *probe = NULL;
    QN_TRY(qn_folder_open(dev, p->cli->args[0], QN_F32, &f));
    qn_result r = qn_probe_text(&f, p->o->data, (uint64_t)p->o->tokens + 1, &t);
    if (r == QN_OK) p->tokens = (t.count - 1) / (T * B) * (T * B);
    if (r == QN_OK && !p->tokens)
        r = qn_fail(QN_ERR_INVALID, "%s: %zu tokens, expected more than %d", p->o->data, t.count,
                    T * B);
    p->x = qn_calloc((size_t)p->m.layers, sizeof *p->x);
    p->h = qn_calloc((size_t)p->m.layers, sizeof *p->h);
    if (r == QN_OK && (!p->x || !p->h)) r = qn_no_memory(64);
    for (int64_t l = 0; r == QN_OK && l < p->m.layers; l++) {
        p->x[l] = qn_malloc(p->tokens * p->d * sizeof **p->x);
        p->h[l] = qn_malloc(p->tokens * p->F * sizeof **p->h);
        if (!p->x[l] || !p->h[l]) r = qn_no_memory(p->tokens * p->F * sizeof **p->h);
    }
    if (r == QN_OK)
        r = qn_probe_create(dev, &f, B, T, QN_PROBE_INPUTS | QN_PROBE_NEURONS, &probe);
    if (r == QN_OK) r = collect(p, probe, t.id);
    qn_probe_destroy(&probe);
    qn_tokens_free(&t);
    qn_folder_close(&f);
    return r;
}

// Which neurons are on: positive where the activation is ReLU, else among the token's top tenth.
static void mark_active(const partitioning *p, int64_t l, uint8_t *on)
{
    for (size_t t = 0; t < p->tokens; t++) {
        const float *h = p->h[l] + t * p->F;
        float limit = 0;
        if (p->m.config.activation != QN_RELU) {
            // The k-th largest magnitude by bisection over the bits.
            uint32_t low = 0, high = 0x7f800000u;
            const size_t k = p->F / 10 ? p->F / 10 : 1;
            while (low + 1 < high) {
                const uint32_t mid = low + (high - low) / 2;
                size_t above = 0;
                memcpy(&limit, &mid, sizeof limit);
                for (size_t i = 0; i < p->F; i++) above += fabsf(h[i]) >= limit;
                if (above >= k)
                    low = mid;
                else
                    high = mid;
            }
            memcpy(&limit, &low, sizeof limit);
        }
        for (size_t i = 0; i < p->F; i++)
            on[t * p->F + i] =
                p->m.config.activation == QN_RELU ? h[i] > 0 : fabsf(h[i]) >= limit && h[i] != 0;
    }
}

static qn_result coactive(partitioning *p, int64_t l)
{
    qn_partition_layer *at = &p->layers[l].p;
    uint8_t *on = qn_malloc(p->tokens * p->F);
    double *w = qn_calloc(p->F * p->F, sizeof *w);
    qn_result r = on && w ? QN_OK : qn_no_memory(p->F * p->F * sizeof *w);
    if (r == QN_OK) {
        mark_active(p, l, on);
        qn_groups_coactivation(on, p->tokens, p->F, w);
        if (p->o->method == 1) {
            qn_groups_exchange(w, p->F, p->K, at->labels);
            qn_groups_order(at->labels, p->F, p->K, at->perm);
        }
        at->inside = qn_groups_inside(w, p->F, at->labels);
        at->expected = ((double)p->F / (double)p->K - 1) / (double)(p->F - 1);
    }
    qn_free(on);
    qn_free(w);
    return r;
}

// ------------------------------------------------------------------------------ choosers

// What each chooser would rank the groups by, for one token: rank[K], larger is chosen first.
static void rank_groups(const partitioning *p, const layer_result *r, int chooser, const float *x,
                        const double *score, uint64_t token, double *rank)
{
    const size_t K = p->K, d = p->d;
    double norm = 0, hidden[4096];
    for (size_t i = 0; i < d; i++) norm += (double)x[i] * (double)x[i];
    norm = norm > 0 ? sqrt(norm) : 1;
    for (size_t k = 0; k < K; k++) {
        double near = 0, dot = 0;
        for (size_t i = 0; i < d; i++) {
            const double u = (double)x[i] / norm, c = (double)r->p.centre[k * r->p.width + i];
            near += (u - c) * (u - c);
            dot += u * (double)r->w1[k * d + i];
        }
        hidden[k] = tanh(dot);
        rank[k] = chooser == QN_CHOOSE_ORACLE ? score[k] : -near;
        if (chooser == QN_CHOOSE_RANDOM)
            rank[k] = (double)qn_permute(k, K, (uint64_t)p->cli->seed + token);
    }
    for (size_t k = 0; chooser == QN_CHOOSE_MLP && k < K; k++) {
        rank[k] = 0;
        for (size_t j = 0; j < K; j++) rank[k] += (double)r->w2[k * K + j] * hidden[j];
    }
}

// Adds one token's mass, recall and squared error of the output to the sums of a chooser.
static qn_result judge_token(const partitioning *p, layer_result *r, int chooser, const double *rank,
                             const double *score, const double *parts, int32_t *chosen,
                             int32_t *truth)
{
    const size_t K = p->K, d = p->d;
    double total = 0;
    for (size_t k = 0; k < K; k++) total += score[k];
    for (int s = 0; s < SHARES && total > 0; s++) {
        const size_t m = (size_t)shares[s] * K / 100 ? (size_t)shares[s] * K / 100 : 1;
        QN_TRY(qn_groups_choose(rank, K, m, chosen));
        QN_TRY(qn_groups_choose(score, K, m, truth));
        double mass = 0, same = 0, error = 0, all = 0;
        for (size_t i = 0; i < m; i++) {
            mass += score[chosen[i]];
            for (size_t j = 0; j < m; j++) same += chosen[i] == truth[j];
        }
        for (size_t i = 0; i < d; i++) {
            double part = 0, sum = 0;
            for (size_t k = 0; k < K; k++) sum += parts[k * d + i];
            for (size_t k = 0; k < m; k++) part += parts[(size_t)chosen[k] * d + i];
            error += (sum - part) * (sum - part);
            all += sum * sum;
        }
        r->mass[chooser][s] += mass / total;
        r->recall[chooser][s] += same / (double)m;
        r->error[chooser][s] += all > 0 ? sqrt(error / all) : 0;
    }
    return QN_OK;
}

// What every group adds to the output, parts[K, d].
static void group_outputs(const partitioning *p, const layer_result *r, const float *h,
                          const float *out, double *parts)
{
    memset(parts, 0, p->K * p->d * sizeof *parts);
    for (size_t n = 0; n < p->F; n++)
        for (size_t i = 0; h[n] != 0 && i < p->d; i++)
            parts[(size_t)r->p.labels[n] * p->d + i] += (double)h[n] * (double)out[n * p->d + i];
}

static qn_result judge_layer(partitioning *p, int64_t l, const float *scores)
{
    layer_result *r = &p->layers[l];
    qn_brick_names names;
    float *out = NULL;
    double *work = qn_malloc((2 * p->K + p->K * p->d) * sizeof *work);
    int32_t *ids = qn_malloc(2 * p->K * sizeof *ids);
    qn_result res = work && ids ? QN_OK : qn_no_memory(p->K * p->d * sizeof *work);
    qn_brick_names_of(&p->m, QN_BRICK_FFN, l, 0, &names);
    if (res == QN_OK) res = qn_brick_f32(&p->m, names.out, &out); // [F, d]
    double *score = work, *rank = work + p->K, *parts = work + 2 * p->K, live = 0;
    const size_t held = p->tokens / 10 ? p->tokens / 10 : 1; // the router has not seen these
    for (size_t t = p->tokens - held; res == QN_OK && t < p->tokens; t++) {
        double total = 0;
        for (size_t k = 0; k < p->K; k++) total += score[k] = (double)scores[t * p->K + k];
        group_outputs(p, r, p->h[l] + t * p->F, out, parts);
        live += total > 0;
        for (int c = 0; res == QN_OK && c < CHOOSERS; c++) {
            rank_groups(p, r, c, p->x[l] + t * p->d, score, t, rank);
            res = judge_token(p, r, c, rank, score, parts, ids, ids + p->K);
        }
    }
    for (int i = 0; live > 0 && i < CHOOSERS * SHARES; i++) {
        r->mass[i / SHARES][i % SHARES] /= live;
        r->recall[i / SHARES][i % SHARES] /= live;
        r->error[i / SHARES][i % SHARES] /= live;
    }
    qn_free(out);
    qn_free(work);
    qn_free(ids);
    return res;
}

static qn_result study_layer(partitioning *p, int64_t l)
{
    layer_result *r = &p->layers[l];
    const size_t K = p->K;
    QN_TRY(coactive(p, l));
    float *scores = qn_malloc(p->tokens * K * sizeof *scores);
    double *one = qn_malloc(K * sizeof *one);
    r->w1 = qn_malloc(K * p->d * sizeof *r->w1);
    r->w2 = qn_malloc(K * K * sizeof *r->w2);
    qn_result res = scores && one && r->w1 && r->w2 ? QN_OK : qn_no_memory(p->tokens * K * 4);
    for (size_t t = 0; res == QN_OK && t < p->tokens; t++) {
        qn_groups_score(p->h[l] + t * p->F, p->F, r->p.labels, K, one);
        for (size_t k = 0; k < K; k++) scores[t * K + k] = (float)one[k];
    }
    for (size_t i = 0; res == QN_OK && i < K * p->d; i++)
        r->w1[i] = r->p.centre[i / p->d * r->p.width + i % p->d];
    if (res == QN_OK)
        res = qn_partition_router(p->x[l], scores, p->tokens, p->d, K, (uint64_t)p->cli->seed, r->w1,
                                  r->w2);
    if (res == QN_OK) res = judge_layer(p, l, scores);
    qn_free(scores);
    qn_free(one);
    return res;
}

// ------------------------------------------------------------------------------ files

static qn_result declare_out(const partitioning *p, qn_safetensors_writer *w)
{
    const int64_t F = (int64_t)p->F, K = (int64_t)p->K, d = (int64_t)p->d;
    for (int64_t l = 0; l < p->m.layers; l++) {
        const layer_result *r = &p->layers[l];
        const struct {
            const char *name;
            qn_st_dtype type;
            int rank;
            int64_t dim[2];
        } rows[] = { { "labels", QN_ST_I32, 1, { F, 0 } },
                     { "perm", QN_ST_I32, 1, { F, 0 } },
                     { "center", QN_ST_F32, 2, { K, (int64_t)r->p.width } },
                     { "router.w1", QN_ST_F32, 2, { K, d } },
                     { "router.w2", QN_ST_F32, 2, { K, K } } };
        for (int i = 0; i < (r->w1 ? 5 : 3); i++) {
            char name[64];
            snprintf(name, sizeof name, "layers.%lld.%s", (long long)l, rows[i].name);
            QN_TRY(qn_safetensors_add(w, name, rows[i].type, rows[i].rank, rows[i].dim));
        }
    }
    return QN_OK;
}

static qn_result write_out(const partitioning *p)
{
    qn_safetensors_writer *w;
    const qn_safetensor *t;
    QN_TRY(qn_safetensors_create(p->o->out, NULL, &w));
    qn_result r = declare_out(p, w);
    while (r == QN_OK && (r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        unsigned layer = 0;
        char what[16] = "";
        if (sscanf(t->name, "layers.%u.%15s", &layer, what) != 2) continue;
        const layer_result *at = &p->layers[layer];
        const void *data = !strcmp(what, "labels")      ? (const void *)at->p.labels
                           : !strcmp(what, "perm")      ? (const void *)at->p.perm
                           : !strcmp(what, "center")    ? (const void *)at->p.centre
                           : !strcmp(what, "router.w1") ? (const void *)at->w1
                                                        : (const void *)at->w2;
        r = qn_safetensors_write(w, data, t->size);
    }
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

static void put_table(qn_json_writer *w, const char *key, const double x[CHOOSERS][SHARES])
{
    qn_json_put_object(w, key);
    for (int c = 0; c < CHOOSERS; c++) {
        qn_json_put_array(w, choosers[c]);
        for (int s = 0; s < SHARES; s++) qn_json_put_number(w, NULL, x[c][s]);
        qn_json_put_end(w, ']');
    }
    qn_json_put_end(w, '}');
}

static qn_result write_json(const partitioning *p)
{
    char hash[QN_HASH_TEXT] = "";
    if (qn_delta_hash(p->m.weights, hash) != QN_OK) hash[0] = 0;
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "model", p->m.dir);
    qn_json_put_string(&w, "model_sha256", hash);
    qn_json_put_int(&w, "groups", (int64_t)p->K);
    qn_json_put_string(&w, "method", p->o->method ? "graph" : "kmeans");
    qn_json_put_int(&w, "seed", p->cli->seed);
    qn_json_put_array(&w, "percent");
    for (int s = 0; s < SHARES; s++) qn_json_put_int(&w, NULL, shares[s]);
    qn_json_put_end(&w, ']');
    qn_json_put_array(&w, "layers");
    for (int64_t l = 0; l < p->m.layers; l++) {
        const layer_result *r = &p->layers[l];
        qn_json_put_object(&w, NULL);
        qn_json_put_number(&w, "objective", r->p.objective);
        qn_json_put_number(&w, "objective_random", r->p.random);
        if (r->w1) {
            qn_json_put_number(&w, "inside_share", r->p.inside);
            qn_json_put_number(&w, "inside_share_random", r->p.expected);
            put_table(&w, "captured", r->mass);
            put_table(&w, "recall", r->recall);
            put_table(&w, "output_error", r->error);
        }
        qn_json_put_end(&w, '}');
    }
    qn_json_put_end(&w, ']');
    qn_json_put_end(&w, '}');
    char path[1024];
    const size_t n = strlen(p->o->out), k = strlen(".safetensors");
    const bool ends = n > k && !strcmp(p->o->out + n - k, ".safetensors");
    snprintf(path, sizeof path, "%.*s.json", (int)(ends ? n - k : n), p->o->out);
    return qn_json_save(&w, path);
}

// Neurons of a matrix in the order of the groups.
static qn_result make_ordered(void *user, const qn_edit_tensor *t, float *out)
{
    const partitioning *p = user;
    qn_brick_names n;
    qn_brick_names_of(&p->m, QN_BRICK_FFN, t->layer, 0, &n);
    // The last dimension counts neurons of a stack's input and of a linear output matrix.
    const bool last = p->m.moduleformer == (strcmp(t->name, n.out) != 0);
    const int32_t *perm = p->layers[t->layer].p.perm;
    float *old;
    QN_TRY(qn_brick_f32(&p->m, t->name, &old));
    for (size_t i = 0; i < p->F * p->d; i++)
        out[i] = last ? old[i / p->F * p->F + (size_t)perm[i % p->F]]
                      : old[(size_t)perm[i / p->d] * p->d + i % p->d];
    qn_free(old);
    return QN_OK;
}

static qn_result apply(partitioning *p)
{
    qn_edit *e;
    QN_TRY(qn_edit_start(&p->m, p->o->apply, &e));
    qn_result r = QN_OK;
    for (int64_t l = 0; r == QN_OK && l < p->m.layers; l++) {
        qn_brick_names n;
        qn_brick_names_of(&p->m, QN_BRICK_FFN, l, 0, &n);
        const char *const all[] = { n.in, n.gate, n.out };
        for (int i = 0; r == QN_OK && i < 3; i++) {
            qn_edit_tensor *t = *all[i] ? qn_edit_find(e, all[i]) : NULL;
            if (*all[i] && !t) r = qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", p->m.dir, all[i]);
            if (!t) continue;
            t->make = make_ordered;
            t->user = p;
        }
    }
    if (r == QN_OK) r = qn_edit_write(e, 0);
    qn_edit_free(&e);
    return r;
}

// ------------------------------------------------------------------------------ the command

static qn_result print(const partitioning *p)
{
    static const qn_column columns[] = {
        { .key = "layer", .type = QN_COLUMN_INT },
        { .key = "objective", .type = QN_COLUMN_REAL },
        { .key = "random_split", .type = QN_COLUMN_REAL },
        { .key = "inside_share", .type = QN_COLUMN_REAL },
        { .key = "captured_20_oracle", .type = QN_COLUMN_REAL },
        { .key = "captured_20_similarity", .type = QN_COLUMN_REAL },
        { .key = "captured_20_mlp", .type = QN_COLUMN_REAL },
        { .key = "captured_20_random", .type = QN_COLUMN_REAL },
    };
    qn_report *report;
    QN_TRY(qn_report_open(stdout, p->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 8,
                          &report));
    qn_result r = QN_OK;
    for (int64_t l = 0; r == QN_OK && l < p->m.layers; l++) {
        const layer_result *at = &p->layers[l];
        qn_value v[8] = { QN_INT(l), QN_REAL(at->p.objective), QN_REAL(at->p.random) };
        if (at->w1) {
            v[3] = QN_REAL(at->p.inside);
            for (int c = 0; c < CHOOSERS; c++) v[4 + c] = QN_REAL(at->mass[c][1]);
        }
        r = qn_report_row(report, v);
    }
    qn_result closed = qn_report_close(&report);
    return r == QN_OK ? closed : r;
}

static qn_result check(const partitioning *p)
{
    if (p->m.experts != 1)
        return qn_fail(QN_ERR_INVALID, "%s has %lld feed-forward experts a layer; dense blocks are "
                                       "partitioned", p->m.dir, (long long)p->m.experts);
    if (p->F % p->K)
        return qn_fail(QN_ERR_INVALID, "--groups %zu does not divide %zu neurons", p->K, p->F);
    if (p->o->data && !p->m.moduleformer)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s is a %s model; --data needs a ModuleFormer, which can "
                                           "be run", p->m.dir, p->m.type);
    return QN_OK;
}

static qn_result partition(partitioning *p)
{
    static const qn_features features[] = { QN_FEATURES_GATE, QN_FEATURES_IN, QN_FEATURES_BOTH };
    QN_TRY(qn_brick_open(p->cli->args[0], &p->m));
    p->F = (size_t)p->m.hidden;
    p->d = (size_t)p->m.width;
    p->K = (size_t)p->o->groups;
    QN_TRY(check(p));
    p->layers = qn_calloc((size_t)p->m.layers, sizeof *p->layers);
    if (!p->layers) return qn_no_memory((size_t)p->m.layers * sizeof *p->layers);
    if (p->o->data) {
        qn_context *ctx = NULL;
        qn_device *dev = NULL;
        qn_result r = qn_cli_open(p->cli, &ctx, &dev);
        if (r == QN_OK) r = read_data(p, dev);
        qn_device_destroy(&dev);
        qn_context_destroy(&ctx);
        QN_TRY(r);
    }
    for (int64_t l = 0; l < p->m.layers; l++) {
        QN_TRY(qn_partition_kmeans(&p->m, l, features[p->o->features], p->K,
                                   (uint64_t)p->cli->seed, &p->layers[l].p));
        if (p->o->data) QN_TRY(study_layer(p, l));
    }
    if (p->o->out) QN_TRY(write_out(p));
    if (p->o->out) QN_TRY(write_json(p));
    if (p->o->apply) QN_TRY(apply(p));
    return print(p);
}

static int run(const qn_cli *cli, const void *opts)
{
    const partition_opts *o = opts;
    if (o->method == 1 && !o->data)
        return qn_cli_misuse(cli, "--method graph needs --data: which neurons are active together");
    partitioning p = { .cli = cli, .o = o };
    qn_result r = partition(&p);
    for (int64_t l = 0; p.layers && l < p.m.layers; l++) {
        qn_partition_free(&p.layers[l].p);
        qn_free(p.layers[l].w1);
        qn_free(p.layers[l].w2);
        if (p.x) qn_free(p.x[l]);
        if (p.h) qn_free(p.h[l]);
    }
    qn_free(p.x);
    qn_free(p.h);
    qn_free(p.layers);
    qn_brick_close(&p.m);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_partition = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Splits the neurons of dense feed-forward blocks into groups of equal size, by balanced "
             "k-means over what they read or by which are active together. With a text it trains a "
             "small router for each layer and reports what the best groups of a token capture of its "
             "activations, by four choosers: oracle, similarity, the router, chance.",
    .examples = "quoin bricks partition run/dense --groups 8 --data book.txt --out b.safetensors\n"
                "quoin bricks partition llama/ --groups 32 --apply llama-grouped/",
    .options = options,
    .opts_size = sizeof(partition_opts),
    .run = run,
};
