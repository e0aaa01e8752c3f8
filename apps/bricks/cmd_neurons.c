// `quoin bricks prune-neurons`: a smaller feed-forward block, for good.
#include "bricks/edit.h"
#include "bricks/loss.h"
#include "bricks/score.h"
#include "bricks/scores.h"
#include "cli/command.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

typedef struct prune_opts {
    const char *from, *function;
    double percent;
    bool idle;
    qn_opt_list data;
} prune_opts;

static const qn_opt options[] = {
    { "from", 0, QN_AT_PATH(prune_opts, from), .value = "FILE",
      .help = "scores: a file of `bricks analyse --save-scores`" },
    { "function", 0, QN_AT_STRING(prune_opts, function), .value = "NAME",
      .help = "remove the neurons with the highest score for it" },
    { "idle", 0, QN_AT_FLAG(prune_opts, idle),
      .help = "remove the neurons with the lowest mean activation" },
    { "percent", 'p', QN_AT_FLOAT(prune_opts, percent), .initial = "5", .min = 0.01, .max = 99,
      .help = "how many, of each expert" },
    { "data", 0, QN_AT_LIST(prune_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported" },
    { 0 },
};

typedef struct pruning {
    const qn_brick_model *m;
    qn_safetensors *scores;
    const char *path;
    int function; // -1: idle ones
    size_t removed, kept; // of each expert
    int32_t *keep;        // [layers, experts, kept]
} pruning;

static qn_result choose_layer(pruning *p, int64_t layer)
{
    const size_t E = (size_t)p->m->experts, F = (size_t)p->m->hidden;
    float *value = NULL;
    uint8_t *gone = qn_malloc(F);
    int32_t *top = qn_malloc(F * sizeof *top);
    qn_result r = gone && top ? QN_OK : qn_no_memory(F);
    if (r == QN_OK)
        r = p->function < 0 ? qn_scores_mean(p->scores, p->path, layer, E * F, &value)
                            : qn_scores_layer(p->scores, p->path, layer, p->function, E * F, &value);
    for (size_t i = 0; r == QN_OK && p->function < 0 && i < E * F; i++) value[i] = -value[i];
    for (size_t e = 0; r == QN_OK && e < E; e++) {
        r = qn_score_top(value + e * F, F, p->removed, top);
        memset(gone, 0, F);
        for (size_t i = 0; r == QN_OK && i < p->removed; i++) gone[top[i]] = 1;
        int32_t *keep = p->keep + ((size_t)layer * E + e) * p->kept;
        for (size_t i = 0; r == QN_OK && i < F; i++)
            if (!gone[i]) *keep++ = (int32_t)i;
    }
    qn_free(value);
    qn_free(gone);
    qn_free(top);
    return r;
}

// in [E, d, F] and out [E, F, d] without the removed units.
static qn_result make_smaller(void *user, const qn_edit_tensor *t, float *out)
{
    const pruning *p = user;
    qn_brick_names names;
    qn_brick_names_of(p->m, QN_BRICK_FFN, t->layer, 0, &names);
    const bool in = !strcmp(t->name, names.in);
    const size_t E = (size_t)t->dim[0], rows = (size_t)t->dim[1], columns = (size_t)t->dim[2];
    const size_t F = (size_t)p->m->hidden;
    float *old;
    QN_TRY(qn_brick_f32(p->m, t->name, &old));
    for (size_t e = 0; e < E; e++) {
        const int32_t *keep = p->keep + ((size_t)t->layer * E + e) * p->kept;
        const float *from = old + e * (in ? rows * F : F * columns);
        for (size_t i = 0; i < rows * columns; i++) {
            const size_t r = i / columns, c = i % columns;
            out[e * rows * columns + i] =
                in ? from[r * F + (size_t)keep[c]] : from[(size_t)keep[r] * columns + c];
        }
    }
    qn_free(old);
    return QN_OK;
}

static qn_result change(pruning *p, qn_edit *e)
{
    for (int64_t l = 0; l < p->m->layers; l++) {
        QN_TRY(choose_layer(p, l));
        qn_brick_names n;
        qn_brick_names_of(p->m, QN_BRICK_FFN, l, 0, &n);
        qn_edit_tensor *in = qn_edit_find(e, n.in), *out = qn_edit_find(e, n.out);
        if (!in || !out || in->rank != 3 || out->rank != 3 || in->dim[2] != p->m->hidden ||
            out->dim[1] != p->m->hidden)
            return qn_fail(QN_ERR_FORMAT, "%s: the experts of layer %lld have not the shape that "
                                          "config.json asks for", p->m->dir, (long long)l);
        in->dim[2] = out->dim[1] = (int64_t)p->kept;
        in->make = out->make = make_smaller;
        in->user = out->user = p;
    }
    return qn_edit_set(e, "ffd_hidden", (int64_t)p->kept);
}

static qn_result prune(const qn_cli *cli, const prune_opts *o)
{
    qn_brick_model m = { 0 };
    qn_edit *e = NULL;
    pruning p = { .m = &m, .path = o->from, .function = -1 };
    qn_result r = qn_brick_open(cli->args[0], &m);
    if (r == QN_OK && !m.moduleformer)
        r = qn_fail(QN_ERR_UNSUPPORTED, "%s is a %s model; this needs a ModuleFormer", m.dir, m.type);
    if (r == QN_OK) r = qn_edit_start(&m, cli->args[1], &e);
    if (r == QN_OK) r = qn_safetensors_open(o->from, &p.scores);
    if (r == QN_OK && o->function)
        r = qn_scores_function(p.scores, o->from, o->function, &p.function);
    if (r == QN_OK) {
        p.removed = qn_score_top_count(o->percent / 100, (size_t)m.hidden);
        p.kept = (size_t)m.hidden - p.removed;
        if (!p.kept) r = qn_fail(QN_ERR_INVALID, "--percent %g leaves no neuron", o->percent);
    }
    if (r == QN_OK) {
        p.keep = qn_edit_keep(e, (size_t)(m.layers * m.experts) * p.kept * sizeof *p.keep);
        r = p.keep ? change(&p, e) : qn_no_memory(p.kept);
    }
    if (r == QN_OK) r = qn_edit_write(e, 0);
    if (r == QN_OK)
        qn_cli_note(cli, "%s is written: %zu of %lld neurons of each expert stay", cli->args[1],
                    p.kept, (long long)m.hidden);
    qn_safetensors_close(&p.scores);
    qn_edit_free(&e);
    qn_brick_close(&m);
    if (r == QN_OK)
        r = qn_brick_compare_alone(cli, cli->args[0], cli->args[1],
                                   &(qn_brick_texts){ .paths = &o->data });
    return r;
}

static int run_prune(const qn_cli *cli, const void *opts)
{
    const prune_opts *o = opts;
    if (!o->from) return qn_cli_misuse(cli, "--from FILE is missing: scores of `bricks analyse`");
    if (!o->function == !o->idle)
        return qn_cli_misuse(cli, "give --function NAME or --idle: which neurons go");
    return qn_cli_result(prune(cli, o));
}

const qn_command qn_command_bricks_prune_neurons = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Removes neurons from every expert of a ModuleFormer for good: those that serve a "
             "function best, or those that are used least. Every expert loses the same number.",
    .examples = "quoin bricks prune-neurons run/book run/less --from s.safetensors",
    .options = options,
    .opts_size = sizeof(prune_opts),
    .run = run_prune,
};
