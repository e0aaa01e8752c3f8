// Associative recall: key-value pairs, a gap of noise that the attention's window cannot see
// across, then every key is asked for once. One line of JSON with all accuracies.
//
//   recall [kind=window|delta|full] [steps=300] [batch=32] [pairs=8] [gap=64] [seed=1]
//          [corrupt=0] [rate=0.004]
//
// corrupt: share of the context (pairs and gap) that is replaced by random tokens in training; only
// pairs left whole are then asked for.
#include "llm/trainer.h"
#include "mem.h"
#include "platform.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 32, VALUES = 32, NOISE = 32, VOCABULARY = KEYS + VALUES + NOISE };

typedef struct setup {
    int kind; // qn_memory_kind
    int64_t steps, batch, pairs, gap;
    uint64_t seed;
    double corrupt, rate;
} setup;

static int64_t below(qn_random *r, int64_t n)
{
    const int64_t x = (int64_t)(qn_random_unit(r) * (double)n);
    return x < n ? x : n - 1;
}

static void shuffle(qn_random *r, int32_t *x, int64_t n)
{
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t k = below(r, i + 1);
        const int32_t t = x[i];
        x[i] = x[k];
        x[k] = t;
    }
}

// One sequence of 3 pairs + gap tokens; labels where a key is asked for whose pair is whole.
static void make_row(qn_random *r, const setup *s, int64_t gap, double corrupt, int32_t *ids,
                     int32_t *labels)
{
    int32_t keys[KEYS], order[KEYS], values[KEYS];
    bool whole[KEYS];
    const int64_t context = 2 * s->pairs + gap;
    for (int32_t i = 0; i < KEYS; i++) keys[i] = order[i] = i;
    shuffle(r, keys, KEYS);
    for (int64_t i = 0; i < s->pairs; i++) {
        values[i] = (int32_t)(KEYS + below(r, VALUES));
        ids[2 * i] = keys[i];
        ids[2 * i + 1] = values[i];
        whole[i] = true;
    }
    for (int64_t i = 2 * s->pairs; i < context; i++)
        ids[i] = (int32_t)(KEYS + VALUES + below(r, NOISE));
    for (int64_t i = 0; i < context && corrupt > 0; i++) {
        if (qn_random_unit(r) >= corrupt) continue;
        ids[i] = (int32_t)below(r, VOCABULARY);
        if (i < 2 * s->pairs) whole[i / 2] = false;
    }
    shuffle(r, order, s->pairs);
    for (int64_t i = 0; i < context; i++) labels[i] = QN_IGNORE;
    for (int64_t i = 0; i < s->pairs; i++) {
        ids[context + i] = keys[order[i]];
        labels[context + i] = whole[order[i]] ? values[order[i]] : QN_IGNORE;
    }
}

static qn_model_config describe(const setup *s)
{
    qn_model_config c;
    if (qn_model_preset("nano", VOCABULARY, &c) != QN_OK) exit(1);
    c.n_head = 4;
    c.n_att_experts = c.k_att = 1;
    c.n_mlp_experts = 4;
    c.attention_window = 16;
    for (int i = 0; i < c.n_layer; i++) c.memory[i] = (uint8_t)s->kind;
    c.memory_heads = 2;
    c.memory_keys = 16;
    c.memory_values = 32;
    return c;
}

static void stop(const char *what)
{
    fprintf(stderr, "recall: %s: %s\n", what, qn_error_message());
    exit(1);
}

// Share of right answers over some batches with another gap.
static double accuracy(qn_device *dev, const qn_model_config *c, qn_store *weights, const setup *s,
                       int64_t gap, double corrupt)
{
    const int64_t B = gap > 500 ? 8 : 32, T = 3 * s->pairs + gap;
    int32_t *ids = qn_malloc((size_t)(B * T) * 4), *labels = qn_malloc((size_t)(B * T) * 4);
    int32_t *best = qn_malloc((size_t)(B * T) * 4);
    qn_lm *lm = qn_calloc(1, sizeof *lm);
    qn_graph *g = NULL;
    qn_plan *plan = NULL;
    if (!ids || !labels || !best || !lm) stop("memory");
    if (qn_graph_create(dev, &g) != QN_OK) stop("graph");
    const qn_tensor *in = qn_input(g, "ids", QN_I32, QN_SHAPE(B, T));
    if (qn_lm_build(g, weights, c, in, &(qn_lm_opts){ .batch = B, .positions = T }, lm) != QN_OK)
        stop("network");
    const qn_tensor *out = qn_argmax(g, lm->logits);
    if (qn_plan_create(g, &(qn_plan_opts){ .outputs = &out, .output_count = 1 }, &plan) != QN_OK)
        stop("plan");
    qn_random r = qn_random_start(777, 0);
    int64_t right = 0, asked = 0;
    for (int run = 0; run < (gap > 500 ? 8 : 6); run++) {
        for (int64_t b = 0; b < B; b++) make_row(&r, s, gap, corrupt, ids + b * T, labels + b * T);
        if (qn_plan_set(plan, in, ids, (uint64_t)(B * T) * 4) != QN_OK ||
            qn_plan_run(plan) != QN_OK ||
            qn_plan_get(plan, out, best, (uint64_t)(B * T) * 4) != QN_OK)
            stop("run");
        for (int64_t i = 0; i < B * T; i++) {
            asked += labels[i] != QN_IGNORE;
            right += labels[i] == best[i];
        }
    }
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    qn_free(lm);
    qn_free(ids);
    qn_free(labels);
    qn_free(best);
    return (double)right / (double)(asked ? asked : 1);
}

static setup read_args(int argc, char **argv)
{
    setup s = { .kind = QN_MEMORY_FULL, .steps = 300, .batch = 32, .pairs = 8, .gap = 64, .seed = 1,
                .rate = 0.004 };
    for (int i = 1; i < argc; i++) {
        const char *v = strchr(argv[i], '=');
        v = v ? v + 1 : "";
        if (!strncmp(argv[i], "kind=", 5))
            s.kind = !strcmp(v, "full") ? QN_MEMORY_FULL : !strcmp(v, "delta") ? QN_MEMORY_DELTA
                                                                              : QN_MEMORY_OFF;
        else if (!strncmp(argv[i], "steps=", 6)) s.steps = atoll(v);
        else if (!strncmp(argv[i], "batch=", 6)) s.batch = atoll(v);
        else if (!strncmp(argv[i], "pairs=", 6)) s.pairs = atoll(v);
        else if (!strncmp(argv[i], "gap=", 4)) s.gap = atoll(v);
        else if (!strncmp(argv[i], "seed=", 5)) s.seed = (uint64_t)atoll(v);
        else if (!strncmp(argv[i], "corrupt=", 8)) s.corrupt = atof(v);
        else if (!strncmp(argv[i], "rate=", 5)) s.rate = atof(v);
        else {
            fprintf(stderr, "recall: unknown argument %s\n", argv[i]);
            exit(2);
        }
    }
    return s;
}

int main(int argc, char **argv)
{
    const setup s = read_args(argc, argv);
    const int64_t T = 3 * s.pairs + s.gap;
    qn_context *ctx;
    qn_device *dev;
    qn_trainer *t;
    const qn_model_config c = describe(&s);
    const qn_trainer_opts o = { .batch = s.batch, .positions = T, .beta1 = 0.9, .beta2 = 0.98,
                                .epsilon = 1e-8, .clip = 1, .seed = s.seed };
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, NULL, &dev) != QN_OK ||
        qn_trainer_create(dev, &c, &o, &t) != QN_OK ||
        qn_model_initialise(&c, qn_trainer_weights(t), s.seed, false) != QN_OK)
        stop("start");
    int32_t *ids = qn_malloc((size_t)(s.batch * T) * 4), *labels = qn_malloc((size_t)(s.batch * T) * 4);
    if (!ids || !labels) stop("memory");
    qn_random r = qn_random_start(s.seed, 99);
    qn_step_report step = { 0 };
    const double begun = qn_clock();
    for (int64_t i = 0; i < s.steps; i++) {
        for (int64_t b = 0; b < s.batch; b++)
            make_row(&r, &s, s.gap, s.corrupt, ids + b * T, labels + b * T);
        const double warm = fmin(1, (double)(i + 1) / 50);
        const double wave = 0.5 * (1 + cos(acos(-1) * (double)i / (double)s.steps));
        if (qn_trainer_step(t, i + 1, s.rate * warm * (wave * 0.95 + 0.05), ids, labels, &step) !=
            QN_OK)
            stop("step");
        if (i % 50 == 49) fprintf(stderr, "step %lld loss %.4f\n", (long long)i + 1, step.ce);
    }
    static const char *const kinds[] = { "window", "delta", "full" };
    printf("{\"kind\":\"%s\",\"seed\":%llu,\"steps\":%lld,\"corrupt\":%g,\"parameters\":%lld,"
           "\"seconds\":%.0f,\"loss\":%.4f",
           kinds[s.kind], (unsigned long long)s.seed, (long long)s.steps, s.corrupt,
           (long long)qn_model_count(&c).parameters, qn_clock() - begun, step.ce);
    static const int64_t gaps[] = { 1, 4, 16 };
    for (int i = 0; i < 3; i++)
        printf(",\"gap_%lld\":%.3f", (long long)(gaps[i] * s.gap),
               accuracy(dev, &c, qn_trainer_weights(t), &s, gaps[i] * s.gap, 0));
    for (int percent = 10; percent <= 50; percent += 20)
        printf(",\"corrupt_%d\":%.3f", percent,
               accuracy(dev, &c, qn_trainer_weights(t), &s, s.gap, percent / 100.0));
    printf("}\n");
    qn_free(ids);
    qn_free(labels);
    qn_trainer_destroy(&t);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    return 0;
}
