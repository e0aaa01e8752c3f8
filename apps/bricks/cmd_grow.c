// `quoin bricks grow-experts`, `upcycle`, `stack` and `widen`: models made larger.
#include "bricks/edit.h"
#include "bricks/groups.h"
#include "bricks/loss.h"
#include "bricks/stack.h"
#include "cli/command.h"
#include "mem.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Opens the model, starts the edit, lets `change` do its work, writes, compares.
typedef struct growth {
    const qn_cli *cli;
    const void *opts;
    qn_brick_model m;
    qn_edit *e;
    qn_arena mem;
} growth;

static qn_result need_moduleformer(const qn_brick_model *m)
{
    if (m->moduleformer) return QN_OK;
    return qn_fail(QN_ERR_UNSUPPORTED, "%s is a %s model; this needs a ModuleFormer", m->dir,
                   m->type);
}

static int grow(const qn_cli *cli, const void *opts, qn_result (*change)(growth *),
                const qn_opt_list *texts)
{
    growth g = { .cli = cli, .opts = opts };
    qn_result r = qn_brick_open(cli->args[0], &g.m);
    if (r == QN_OK) r = qn_edit_start(&g.m, cli->args[1], &g.e);
    if (r == QN_OK) r = change(&g);
    if (r == QN_OK) r = qn_edit_write(g.e, 0);
    qn_edit_free(&g.e);
    qn_arena_free(&g.mem);
    qn_brick_close(&g.m);
    if (r == QN_OK) qn_cli_note(cli, "%s is written", cli->args[1]);
    if (r == QN_OK && texts)
        r = qn_brick_compare_alone(cli, cli->args[0], cli->args[1],
                                   &(qn_brick_texts){ .paths = texts });
    return qn_cli_result(r);
}

// ------------------------------------------------------------------------------ grow-experts

typedef struct grow_opts {
    int64_t add;
    const char *init, *layer;
    int where;
    bool silent;
    qn_opt_list data;
} grow_opts;

static const qn_opt grow_options[] = {
    { "add", 'n', QN_AT_INT(grow_opts, add), .initial = "1", .min = 1, .max = 255,
      .help = "how many experts each router gets more" },
    { "where", 0, QN_AT_CHOICE(grow_opts, where), .words = "both|mlp|attention", .initial = "both",
      .help = "which experts" },
    { "layer", 0, QN_AT_STRING(grow_opts, layer), .value = "all", .initial = "all",
      .help = "which layers: all, since config.json has one count for all of them" },
    { "init", 0, QN_AT_STRING(grow_opts, init), .value = "random|copy:E|split:E",
      .initial = "random",
      .help = "the new experts: fresh, noisy copies of expert E, or its hidden units dealt out" },
    { "silent", 0, QN_AT_FLAG(grow_opts, silent),
      .help = "a bias of -30 on the new experts' logits: the model computes what it did" },
    { "data", 0, QN_AT_LIST(grow_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported" },
    { 0 },
};

// "copy:3": the kind and the expert.
static qn_result read_init(const char *text, int64_t experts, qn_expert_plan *out)
{
    static const struct {
        const char *word;
        int kind;
    } words[] = { { "copy:", QN_EXPERT_NOISY }, { "split:", QN_EXPERT_SPLIT } };
    if (!strcmp(text, "random")) {
        out->kind = QN_EXPERT_RANDOM;
        return QN_OK;
    }
    for (size_t i = 0; i < 2; i++) {
        const size_t n = strlen(words[i].word);
        if (strncmp(text, words[i].word, n) != 0) continue;
        char *end;
        out->from = strtoll(text + n, &end, 10);
        out->kind = words[i].kind;
        if (end == text + n || *end || text[n] < '0' || text[n] > '9') break;
        if (out->from >= experts)
            return qn_fail(QN_ERR_INVALID, "--init %.40s: there are experts 0 to %lld", text,
                           (long long)experts - 1);
        return QN_OK;
    }
    return qn_fail(QN_ERR_INVALID, "--init: found '%.40s', expected random, copy:E or split:E", text);
}

typedef struct silence {
    int64_t old; // experts that were there
} silence;

static qn_result make_silence(void *user, const qn_edit_tensor *t, float *out)
{
    const silence *s = user;
    const int64_t had = t->source ? (int64_t)t->source->count : 0;
    for (int64_t e = 0; e < t->dim[0]; e++) out[e] = e < s->old ? 0 : -30;
    if (!t->source) return QN_OK;
    return qn_safetensor_f32(t->source, 0, (uint64_t)(had < t->dim[0] ? had : t->dim[0]), out);
}

// The bias of a router: grown with zeros, or made with -30 for the new experts.
static qn_result grow_bias(growth *g, qn_brick_kind kind, int64_t layer, int64_t old, int64_t count,
                           bool silent)
{
    char name[QN_BRICK_NAME];
    snprintf(name, sizeof name, "transformer.h.%lld.%s.gate.bias", (long long)layer,
             kind == QN_BRICK_FFN ? "mlpf" : "attn.q_proj");
    qn_edit_tensor *t = qn_edit_find(g->e, name);
    if (!t && !silent) return QN_OK;
    if (!t) QN_TRY(qn_edit_add(g->e, name, QN_ST_F32, 1, &count, &t));
    silence *s = qn_edit_keep(g->e, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->old = silent ? old : count;
    t->dim[0] = count;
    t->make = make_silence;
    t->user = s;
    return QN_OK;
}

static qn_result grow_kind(growth *g, qn_brick_kind kind)
{
    const grow_opts *o = g->opts;
    const qn_model_config *c = &g->m.config;
    const int64_t old = kind == QN_BRICK_FFN ? c->n_mlp_experts : c->n_att_experts;
    const bool wanted = o->where == 0 || (o->where == 1) == (kind == QN_BRICK_FFN);
    const int64_t add = wanted ? o->add : 0, most = 256;
    if (old + add > most)
        return qn_fail(QN_ERR_INVALID, "%lld experts and %lld more: at most %lld are possible",
                       (long long)old, (long long)add, (long long)most);
    if (!add) {
        for (int64_t l = 0; o->silent && l < g->m.layers; l++)
            QN_TRY(grow_bias(g, kind, l, old, old, true));
        return QN_OK;
    }
    qn_expert_plan *plan = qn_edit_keep(g->e, (size_t)(old + add) * sizeof *plan);
    qn_stack_opts *s = qn_edit_keep(g->e, sizeof *s);
    if (!plan || !s) return qn_no_memory((size_t)(old + add) * sizeof *plan);
    s->seed = (uint64_t)g->cli->seed;
    for (int64_t e = 0; e < old; e++) plan[e].from = e;
    for (int64_t e = old; e < old + add; e++) {
        QN_TRY(read_init(o->init, old, &plan[e]));
        plan[e].part = e - old + 1;
        plan[e].parts = add + 1;
    }
    if (plan[old].kind == QN_EXPERT_SPLIT) {
        plan[plan[old].from] = plan[old];
        plan[plan[old].from].part = 0;
    }
    for (int64_t l = 0; l < g->m.layers; l++) {
        QN_TRY(qn_stack_plan(g->e, &g->m, kind, l, plan, old + add, s));
        QN_TRY(grow_bias(g, kind, l, old, old + add, o->silent));
    }
    return qn_edit_set(g->e, kind == QN_BRICK_FFN ? "n_mlp_experts" : "n_att_experts", old + add);
}

static qn_result change_grow(growth *g)
{
    const grow_opts *o = g->opts;
    QN_TRY(need_moduleformer(&g->m));
    if (strcmp(o->layer, "all") != 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "--layer: found '%.40s', expected all: config.json has "
                                           "one count of experts for all layers", o->layer);
    QN_TRY(grow_kind(g, QN_BRICK_FFN));
    QN_TRY(grow_kind(g, QN_BRICK_ATTENTION));
    return o->silent ? qn_edit_set_bool(g->e, "gate_bias", true) : QN_OK;
}

static int run_grow(const qn_cli *cli, const void *opts)
{
    const grow_opts *o = opts;
    return grow(cli, o, change_grow, &o->data);
}

const qn_command qn_command_bricks_grow_experts = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Adds experts, and their router rows, to every layer of a ModuleFormer. Gates are not "
             "renormalised, so new rows lower all gates and the model computes something else until "
             "it is trained; with --silent it computes the same to f32 precision. Then train the "
             "new bricks alone: `quoin train --init OUT --train-only '*.mlpf.*experts.weight#8,"
             "*.mlpf.gate.w_gate.3.weight#8'`.",
    .examples = "quoin bricks grow-experts run/book run/grown --add 2 --data new.txt\n"
                "quoin bricks grow-experts run/book run/grown --init copy:3 --where mlp",
    .options = grow_options,
    .opts_size = sizeof(grow_opts),
    .run = run_grow,
};

// ------------------------------------------------------------------------------ upcycle

typedef struct upcycle_opts {
    int64_t experts, top_k;
    double noise;
    bool slice;
    qn_opt_list data;
} upcycle_opts;

static const qn_opt upcycle_options[] = {
    { "experts", 0, QN_AT_INT(upcycle_opts, experts), .initial = "4", .min = 2, .max = 256,
      .help = "experts of each layer" },
    { "top-k", 0, QN_AT_INT(upcycle_opts, top_k), .initial = "2", .min = 1, .max = 16,
      .help = "experts that a token uses" },
    { "slice", 0, QN_AT_FLAG(upcycle_opts, slice),
      .help = "deal the neurons out by balanced k-means instead of copying all to every expert" },
    { "noise", 0, QN_AT_FLOAT(upcycle_opts, noise), .initial = "0", .min = 0, .max = 1,
      .help = "noise on the copies, relative to the size of the weights" },
    { "data", 0, QN_AT_LIST(upcycle_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported" },
    { 0 },
};

typedef struct upcycling {
    const qn_brick_model *m;
    const upcycle_opts *o;
    uint64_t seed;
    int32_t *perm; // SLICE: order of the neurons, [layers, F]
} upcycling;

static bool is_in(const qn_brick_model *m, const qn_edit_tensor *t)
{
    qn_brick_names n;
    qn_brick_names_of(m, QN_BRICK_FFN, t->layer, 0, &n);
    return !strcmp(n.in, t->name);
}

static qn_result make_upcycled(void *user, const qn_edit_tensor *t, float *out)
{
    const upcycling *u = user;
    const bool in = is_in(u->m, t);
    const size_t E = (size_t)t->dim[0], rows = (size_t)t->dim[1], columns = (size_t)t->dim[2];
    const size_t width = in ? columns : rows, hidden = (size_t)u->m->hidden;
    const size_t source_columns = in ? hidden : columns;
    float *dense;
    QN_TRY(qn_brick_f32(u->m, t->name, &dense));
    // The chosen gates sum to about k / E.
    const double scale = in ? 1 : (double)E / (double)(u->o->slice ? 1 : u->o->top_k);
    double size = 0;
    for (size_t i = 0; i < rows * columns; i++) size += (double)dense[i] * (double)dense[i];
    size = sqrt(size / (double)(rows * columns)) * u->o->noise;
    for (size_t e = 0; e < E; e++) {
        qn_random rng = qn_random_start(u->seed + (uint64_t)t->layer * 2 + in, e);
        for (size_t i = 0; i < rows * columns; i++) {
            size_t r = i / columns, c = i % columns;
            size_t *unit = in ? &c : &r;
            if (u->perm) *unit = (size_t)u->perm[(size_t)t->layer * hidden + e * width + *unit];
            double x = (double)dense[r * source_columns + c];
            if (size > 0) x += size * qn_random_normal(&rng);
            out[e * rows * columns + i] = (float)(scale * x);
        }
    }
    qn_free(dense);
    return QN_OK;
}

static qn_result make_normal(void *user, const qn_edit_tensor *t, float *out)
{
    const upcycling *u = user;
    size_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->dim[i];
    qn_random rng = qn_random_start(u->seed, 1000000 + (uint64_t)t->layer);
    for (size_t i = 0; i < n; i++) out[i] = (float)(0.02 * qn_random_normal(&rng));
    return QN_OK;
}

// The neurons of every layer, grouped by what they read.
static qn_result order_neurons(growth *g, upcycling *u)
{
    const size_t F = (size_t)g->m.hidden, d = (size_t)g->m.width, E = (size_t)u->o->experts;
    u->perm = qn_edit_keep(g->e, (size_t)g->m.layers * F * sizeof *u->perm);
    int32_t *labels = qn_edit_keep(g->e, F * sizeof *labels);
    if (!u->perm || !labels) return qn_no_memory(F * sizeof *labels);
    qn_result r = QN_OK;
    for (int64_t l = 0; r == QN_OK && l < g->m.layers; l++) {
        qn_brick_names n;
        float *in = NULL, *rows = qn_malloc(F * d * sizeof *rows);
        double *x = NULL, J;
        qn_brick_names_of(&g->m, QN_BRICK_FFN, l, 0, &n);
        r = rows ? qn_brick_f32(&g->m, n.in, &in) : qn_no_memory(F * d * sizeof *rows);
        for (size_t i = 0; r == QN_OK && i < F * d; i++) rows[i] = in[i % d * F + i / d];
        if (r == QN_OK) r = qn_groups_features(rows, F, d, &x);
        if (r == QN_OK) r = qn_groups_kmeans(x, F, d, &(qn_groups_opts){ .groups = E }, labels, &J);
        if (r == QN_OK) qn_groups_order(labels, F, E, u->perm + (size_t)l * F);
        qn_free(in);
        qn_free(rows);
        qn_free(x);
    }
    return r;
}

static qn_result change_upcycle(growth *g)
{
    const upcycle_opts *o = g->opts;
    QN_TRY(need_moduleformer(&g->m));
    if (g->m.experts != 1)
        return qn_fail(QN_ERR_INVALID, "%s has %lld feed-forward experts; a dense model has 1",
                       g->m.dir, (long long)g->m.experts);
    if (o->top_k > o->experts)
        return qn_fail(QN_ERR_INVALID, "--top-k %lld is more than --experts %lld",
                       (long long)o->top_k, (long long)o->experts);
    if (o->slice && g->m.hidden % o->experts)
        return qn_fail(QN_ERR_INVALID, "--experts %lld does not divide %lld neurons",
                       (long long)o->experts, (long long)g->m.hidden);
    upcycling *u = qn_edit_keep(g->e, sizeof *u);
    if (!u) return qn_no_memory(sizeof *u);
    *u = (upcycling){ .m = &g->m, .o = o, .seed = (uint64_t)g->cli->seed };
    if (o->slice) QN_TRY(order_neurons(g, u));
    const int64_t width = o->slice ? g->m.hidden / o->experts : g->m.hidden;
    for (int64_t l = 0; l < g->m.layers; l++) {
        qn_brick_names n;
        qn_brick_names_of(&g->m, QN_BRICK_FFN, l, 0, &n);
        qn_edit_tensor *in = qn_edit_find(g->e, n.in), *out = qn_edit_find(g->e, n.out);
        qn_edit_tensor *router = qn_edit_find(g->e, n.router);
        if (!in || !out || !router || in->rank != 3 || out->rank != 3)
            return qn_fail(QN_ERR_FORMAT, "%s: the experts of layer %lld are not complete",
                           g->m.dir, (long long)l);
        in->dim[0] = out->dim[0] = router->dim[0] = o->experts;
        in->dim[2] = out->dim[1] = width;
        in->make = out->make = make_upcycled;
        router->make = make_normal;
        in->user = out->user = router->user = u;
        QN_TRY(grow_bias(g, QN_BRICK_FFN, l, o->experts, o->experts, false));
    }
    QN_TRY(qn_edit_set(g->e, "ffd_hidden", width));
    QN_TRY(qn_edit_set(g->e, "k_mlp", o->top_k));
    return qn_edit_set(g->e, "n_mlp_experts", o->experts);
}

static int run_upcycle(const qn_cli *cli, const void *opts)
{
    const upcycle_opts *o = opts;
    return grow(cli, o, change_upcycle, &o->data);
}

const qn_command qn_command_bricks_upcycle = {
    .args = "DENSE OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Makes a mixture of experts from a dense model (a ModuleFormer with one feed-forward "
             "expert): every expert a copy of the block, or a slice of its neurons. Router rows are "
             "random (deviation 0.02). Output matrices are scaled by E/k (slices: E), since the "
             "chosen gates sum to about k/E.",
    .examples = "quoin bricks upcycle run/dense run/moe --experts 8 --top-k 2 --noise 0.01",
    .options = upcycle_options,
    .opts_size = sizeof(upcycle_opts),
    .run = run_upcycle,
};

// ------------------------------------------------------------------------------ stack

typedef struct stack_opts {
    qn_opt_list layers;
    bool zero_init;
    qn_opt_list data;
} stack_opts;

static const qn_opt stack_options[] = {
    { "layers", 'l', QN_AT_LIST(stack_opts, layers), .value = "A-B,...",
      .help = "the layers of the result in their order: 0-3,2-5 has eight" },
    { "zero-init", 0, QN_AT_FLAG(stack_opts, zero_init),
      .help = "what a repeated layer adds starts at zero: the model computes what it did" },
    { "data", 0, QN_AT_LIST(stack_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported (ModuleFormer)" },
    { 0 },
};

static qn_result make_zero(void *user, const qn_edit_tensor *t, float *out)
{
    (void)user;
    size_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= (size_t)t->dim[i];
    memset(out, 0, n * sizeof *out);
    return QN_OK;
}

// What a layer adds to the residual stream goes through these.
static bool is_branch_end(const char *name)
{
    static const char *const ends[] = { ".output_experts.weight", ".o_proj.weight",
                                        ".down_proj.weight", ".w2.weight" };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const size_t n = strlen(name), k = strlen(ends[i]);
        if (n > k && !strcmp(name + n - k, ends[i])) return true;
    }
    return false;
}

static qn_result add_layer(growth *g, int64_t from, int64_t to, bool zero)
{
    for (size_t i = 0; i < qn_safetensors_count(g->m.weights); i++) {
        const qn_safetensor *s = qn_safetensors_at(g->m.weights, i);
        if (qn_brick_layer_of(s->name) != from) continue;
        char name[512], old[32];
        const int n = snprintf(old, sizeof old, ".%lld.", (long long)from);
        const char *at = strstr(s->name, old);
        snprintf(name, sizeof name, "%.*s.%lld.%s", (int)(at - s->name), s->name, (long long)to,
                 at + n);
        qn_edit_tensor *t;
        QN_TRY(qn_edit_add(g->e, name, s->dtype, s->rank, s->dim, &t));
        t->source = s;
        if (zero && is_branch_end(name)) t->make = make_zero;
    }
    return QN_OK;
}

static qn_result read_range(const char *text, int64_t layers, int64_t *first, int64_t *last)
{
    char *end;
    *first = *last = strtoll(text, &end, 10);
    bool good = end != text && *text >= '0' && *text <= '9';
    if (good && *end == '-') {
        const char *second = end + 1;
        *last = strtoll(second, &end, 10);
        good = end != second && *second >= '0' && *second <= '9';
    }
    if (!good || *end || *last < *first)
        return qn_fail(QN_ERR_INVALID, "--layers: found '%.40s', expected a range like 0-3", text);
    if (*last >= layers)
        return qn_fail(QN_ERR_INVALID, "--layers %.40s: there are layers 0 to %lld", text,
                       (long long)layers - 1);
    return QN_OK;
}

static qn_result change_stack(growth *g)
{
    const stack_opts *o = g->opts;
    int64_t count = 0;
    uint8_t *seen = qn_edit_keep(g->e, (size_t)g->m.layers);
    if (!seen) return qn_no_memory((size_t)g->m.layers);
    if (!o->layers.count) return qn_fail(QN_ERR_INVALID, "--layers is missing: 0-3,2-5, say");
    for (size_t i = 0; i < qn_safetensors_count(g->m.weights); i++) {
        const char *name = qn_safetensors_at(g->m.weights, i)->name;
        if (qn_brick_layer_of(name) >= 0) qn_edit_remove(g->e, name);
    }
    for (size_t i = 0; i < o->layers.count; i++) {
        int64_t first, last;
        QN_TRY(read_range(o->layers.items[i], g->m.layers, &first, &last));
        for (int64_t l = first; l <= last; l++) {
            QN_TRY(add_layer(g, l, count++, o->zero_init && seen[l]));
            seen[l] = 1;
        }
    }
    if (g->m.moduleformer && count > QN_LM_MAX_LAYERS)
        return qn_fail(QN_ERR_INVALID, "%lld layers: at most %d are possible", (long long)count,
                       QN_LM_MAX_LAYERS);
    return qn_edit_set(g->e, g->m.moduleformer ? "n_layer" : "num_hidden_layers", count);
}

static int run_stack(const qn_cli *cli, const void *opts)
{
    const stack_opts *o = opts;
    return grow(cli, o, change_stack, &o->data);
}

const qn_command qn_command_bricks_stack = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Makes a deeper (or shallower) model of the layers of one, in any order and as often as "
             "wanted. With --zero-init the output matrices of a layer that is there a second time "
             "start at zero.",
    .examples = "quoin bricks stack run/book run/deep --layers 0-3,2-3 --zero-init",
    .options = stack_options,
    .opts_size = sizeof(stack_opts),
    .run = run_stack,
};

// ------------------------------------------------------------------------------ widen

typedef struct widen_opts {
    int64_t add;
    qn_opt_list data;
} widen_opts;

static const qn_opt widen_options[] = {
    { "neurons", 'n', QN_AT_INT(widen_opts, add), .initial = "64", .min = 1, .max = 1 << 20,
      .help = "hidden units that every feed-forward block, or expert, gets more" },
    { "data", 0, QN_AT_LIST(widen_opts, data), .value = "FILE,...",
      .help = "texts whose perplexity before and after is reported (ModuleFormer)" },
    { 0 },
};

// The axis that counts hidden units grows; what is new is random, or zero in output matrices.
typedef struct widening {
    uint64_t seed;
    int axis;
    bool zero;
} widening;

static double root_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return n ? sqrt(sum / (double)n) : 0;
}

static qn_result make_wide(void *user, const qn_edit_tensor *t, float *out)
{
    const widening *w = user;
    size_t inner = 1, outer = 1;
    for (int i = w->axis + 1; i < t->rank; i++) inner *= (size_t)t->dim[i];
    for (int i = 0; i < w->axis; i++) outer *= (size_t)t->dim[i];
    const size_t is = (size_t)t->dim[w->axis] * inner, was = (size_t)t->source->dim[w->axis] * inner;
    qn_random rng = qn_random_start(w->seed, (uint64_t)t->layer);
    for (size_t i = 0; i < outer; i++) {
        float *row = out + i * is;
        QN_TRY(qn_safetensor_f32(t->source, i * was, was, row));
        const double size = root_of(row, was);
        for (size_t k = was; k < is; k++)
            row[k] = w->zero ? 0 : (float)(size * qn_random_normal(&rng));
    }
    return QN_OK;
}

static qn_result widen_one(growth *g, const char *name, bool out)
{
    const widen_opts *o = g->opts;
    if (!*name) return QN_OK;
    qn_edit_tensor *t = qn_edit_find(g->e, name);
    if (!t) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", g->m.dir, name);
    const int rank = g->m.moduleformer ? 3 : 2;
    const int axis = (rank == 3) == out ? rank - 2 : rank - 1; // in [d, h], or Linear [h, d]
    if (t->rank != rank || t->dim[axis] != g->m.hidden)
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s has not the shape that config.json asks for",
                       g->m.dir, name);
    widening *w = qn_edit_keep(g->e, sizeof *w);
    if (!w) return qn_no_memory(sizeof *w);
    *w = (widening){ .seed = (uint64_t)g->cli->seed, .axis = axis, .zero = out };
    t->dim[axis] += o->add;
    t->make = make_wide;
    t->user = w;
    return QN_OK;
}

static qn_result change_widen(growth *g)
{
    const widen_opts *o = g->opts;
    for (int64_t l = 0; l < g->m.layers; l++)
        for (int64_t e = 0; e < (g->m.moduleformer ? 1 : g->m.experts); e++) {
            qn_brick_names n;
            qn_brick_names_of(&g->m, QN_BRICK_FFN, l, e, &n);
            QN_TRY(widen_one(g, n.in, false));
            QN_TRY(widen_one(g, n.gate, false));
            QN_TRY(widen_one(g, n.out, true));
        }
    const char *key = g->m.moduleformer                    ? "ffd_hidden"
                      : !strcmp(g->m.type, "qwen3_moe")    ? "moe_intermediate_size"
                                                           : "intermediate_size";
    return qn_edit_set(g->e, key, g->m.hidden + o->add);
}

static int run_widen(const qn_cli *cli, const void *opts)
{
    const widen_opts *o = opts;
    return grow(cli, o, change_widen, &o->data);
}

const qn_command qn_command_bricks_widen = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Adds hidden units to every feed-forward block, or to each of its experts. Their output "
             "weights are zero, so that the model computes what it did until it is trained.",
    .examples = "quoin bricks widen run/book run/wide --neurons 64",
    .options = widen_options,
    .opts_size = sizeof(widen_opts),
    .run = run_widen,
};
