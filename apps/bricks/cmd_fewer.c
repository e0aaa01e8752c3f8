// `quoin bricks prune-experts` and `merge-experts`: fewer experts, chosen by what a text uses.
#include "bricks/align.h"
#include "bricks/edit.h"
#include "bricks/loss.h"
#include "bricks/probe.h"
#include "bricks/score.h"
#include "bricks/stack.h"
#include "cli/command.h"
#include "cli/report.h"
#include "io/svg.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// A command at work.
typedef struct fewer {
    const qn_cli *cli;
    qn_context *ctx;
    qn_device *dev;
    qn_folder f;
    qn_brick_model m;
    qn_edit *e;
    qn_usage usage;
} fewer;

static const char *const kind_keys[2] = { "n_att_experts", "n_mlp_experts" };

static qn_brick_kind brick_of(int kind)
{
    return kind ? QN_BRICK_FFN : QN_BRICK_ATTENTION;
}

static int64_t chosen_of(const fewer *w, int kind)
{
    return kind ? w->m.config.k_mlp : w->m.config.k_att;
}

static qn_result open_fewer(fewer *w, const char *data, int64_t tokens, bool every)
{
    QN_TRY(qn_brick_open(w->cli->args[0], &w->m));
    if (!w->m.moduleformer)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s is a %s model; this needs a ModuleFormer", w->m.dir,
                       w->m.type);
    QN_TRY(qn_edit_start(&w->m, w->cli->args[1], &w->e));
    QN_TRY(qn_cli_open(w->cli, &w->ctx, &w->dev));
    QN_TRY(qn_folder_open(w->dev, w->cli->args[0], QN_F32, &w->f));
    qn_tokens t;
    QN_TRY(qn_probe_text(&w->f, data, (uint64_t)tokens, &t));
    qn_result r = qn_usage_measure(w->dev, &w->f, t.id, t.count, every, &w->usage);
    qn_tokens_free(&t);
    return r;
}

static void close_fewer(fewer *w)
{
    qn_usage_free(&w->usage);
    qn_folder_close(&w->f);
    qn_device_destroy(&w->dev);
    qn_context_destroy(&w->ctx);
    qn_edit_free(&w->e);
    qn_brick_close(&w->m);
}

// The heat map of a kind's usage: layers down, experts across.
static qn_result usage_svg(const fewer *w, const char *dir)
{
    for (int kind = 0; kind < 2; kind++) {
        const size_t E = (size_t)w->usage.experts[kind], L = (size_t)w->usage.layers;
        double *v = qn_malloc(L * E * sizeof *v);
        char path[1024];
        if (!v) return qn_no_memory(L * E * sizeof *v);
        for (size_t i = 0; i < L * E; i++)
            v[i] = qn_usage_share(&w->usage, kind, (int64_t)(i / E), (int64_t)(i % E));
        qn_textbuf t = { 0 };
        qn_svg_heat_text(&(qn_svg_heat){ .title = kind ? "Load of the MLP experts"
                                                       : "Load of the attention experts",
                                         .x_label = "expert", .y_label = "layer", .values = v,
                                         .rows = L, .columns = E, .value_label = "share" },
                         &t);
        snprintf(path, sizeof path, "%s/usage-%s.svg", dir, kind ? "mlp" : "attention");
        qn_result r = qn_textbuf_save(&t, path);
        qn_textbuf_free(&t);
        qn_free(v);
        QN_TRY(r);
    }
    return QN_OK;
}

static qn_result finish_fewer(fewer *w, const char *data, const qn_opt_list *general,
                              const char *svg, int64_t tokens)
{
    QN_TRY(qn_edit_write(w->e, 0));
    qn_cli_note(w->cli, "%s is written", w->cli->args[1]);
    if (svg) QN_TRY(qn_make_dirs(svg));
    if (svg) QN_TRY(usage_svg(w, svg));
    const char *items[32] = { data };
    size_t count = 1;
    for (size_t i = 0; i < general->count && count < 32; i++) items[count++] = general->items[i];
    return qn_brick_compare(w->cli, w->dev, w->cli->args[0], w->cli->args[1],
                            &(qn_brick_texts){ .paths = &(qn_opt_list){ items, count },
                                               .tokens = tokens });
}

// Biases of routers follow their rows: those of experts that remain, or of the group's leader.
typedef struct biases {
    const int64_t *from;
} biases;

static qn_result make_bias(void *user, const qn_edit_tensor *t, float *out)
{
    const biases *b = user;
    for (int64_t e = 0; e < t->dim[0]; e++)
        QN_TRY(qn_safetensor_f32(t->source, (uint64_t)b->from[e], 1, &out[e]));
    return QN_OK;
}

static qn_result follow_bias(fewer *w, int kind, int64_t layer, const qn_expert_plan *plan,
                             int64_t count)
{
    char name[QN_BRICK_NAME];
    snprintf(name, sizeof name, "transformer.h.%lld.%s.gate.bias", (long long)layer,
             kind ? "mlpf" : "attn.q_proj");
    qn_edit_tensor *t = qn_edit_find(w->e, name);
    if (!t) return QN_OK;
    biases *b = qn_edit_keep(w->e, sizeof *b);
    int64_t *from = qn_edit_keep(w->e, (size_t)count * sizeof *from);
    if (!b || !from) return qn_no_memory((size_t)count * sizeof *from);
    for (int64_t e = 0; e < count; e++) from[e] = plan[e].from;
    b->from = from;
    t->dim[0] = count;
    t->make = make_bias;
    t->user = b;
    return QN_OK;
}

// ------------------------------------------------------------------------------ prune-experts

typedef struct prune_opts {
    const char *data, *svg;
    qn_opt_list general;
    int64_t keep, tokens;
    double min_usage;
    int where;
} prune_opts;

static const qn_opt prune_options[] = {
    { "data", 0, QN_AT_PATH(prune_opts, data), .value = "FILE|DIR",
      .help = "the text that says which experts are used" },
    { "keep", 'n', QN_AT_INT(prune_opts, keep), .initial = "0", .min = 0, .max = 256,
      .help = "experts of each router that stay; 0: by --min-usage" },
    { "min-usage", 0, QN_AT_FLOAT(prune_opts, min_usage), .initial = "0.01", .min = 0, .max = 1,
      .help = "share of the slots below which an expert may go (with one count for all layers)" },
    { "where", 0, QN_AT_CHOICE(prune_opts, where), .words = "both|mlp|attention", .initial = "both",
      .help = "which experts" },
    { "general", 0, QN_AT_LIST(prune_opts, general), .value = "FILE,...",
      .help = "further texts whose perplexity is reported" },
    { "tokens", 0, QN_AT_INT(prune_opts, tokens), .initial = "0", .min = 0, .max = 1e12,
      .help = "tokens of each text at most; 0: all" },
    { "svg", 0, QN_AT_PATH(prune_opts, svg), .value = "DIR",
      .help = "heat maps of the experts' load go there" },
    { 0 },
};

// How many experts of a kind stay: asked for, or the most that any layer needs.
static qn_result count_kept(const fewer *w, const prune_opts *o, int kind, int64_t *out)
{
    const int64_t E = w->usage.experts[kind], k = chosen_of(w, kind);
    int64_t keep = o->keep;
    for (int64_t l = 0; !o->keep && l < w->usage.layers; l++) {
        int64_t used = 0;
        for (int64_t e = 0; e < E; e++)
            used += qn_usage_share(&w->usage, kind, l, e) >= o->min_usage;
        if (used > keep) keep = used;
    }
    if (o->keep && keep < k)
        return qn_fail(QN_ERR_INVALID, "--keep %lld is less than the %lld %s experts that a token "
                                       "uses", (long long)keep, (long long)k,
                       kind ? "mlp" : "attention");
    if (keep < k) keep = k;
    *out = keep > E ? E : keep;
    return QN_OK;
}

static qn_result prune_kind(fewer *w, const prune_opts *o, int kind)
{
    static const qn_stack_opts none;
    const int64_t E = w->usage.experts[kind];
    int64_t keep;
    QN_TRY(count_kept(w, o, kind, &keep));
    for (int64_t l = 0; l < w->usage.layers; l++) {
        qn_expert_plan *plan = qn_edit_keep(w->e, (size_t)keep * sizeof *plan);
        float *usage = qn_edit_keep(w->e, (size_t)E * sizeof *usage);
        int32_t *top = qn_edit_keep(w->e, (size_t)E * sizeof *top);
        if (!plan || !usage || !top) return qn_no_memory((size_t)E * sizeof *plan);
        for (int64_t e = 0; e < E; e++) usage[e] = (float)qn_usage_share(&w->usage, kind, l, e);
        QN_TRY(qn_score_top(usage, (size_t)E, (size_t)keep, top));
        for (int64_t e = 0; e < keep; e++) plan[e].from = top[e];
        QN_TRY(qn_stack_plan(w->e, &w->m, brick_of(kind), l, plan, keep, &none));
        QN_TRY(follow_bias(w, kind, l, plan, keep));
    }
    qn_cli_note(w->cli, "%s experts: %lld of %lld stay", kind ? "mlp" : "attention",
                (long long)keep, (long long)E);
    return qn_edit_set(w->e, kind_keys[kind], keep);
}

static int run_prune(const qn_cli *cli, const void *opts)
{
    const prune_opts *o = opts;
    if (!o->data) return qn_cli_misuse(cli, "--data FILE is missing: a text that shows what is used");
    fewer w = { .cli = cli };
    qn_result r = open_fewer(&w, o->data, o->tokens, false);
    for (int kind = 0; r == QN_OK && kind < 2; kind++)
        if (o->where == 0 || (o->where == 1) == (kind == 1)) r = prune_kind(&w, o, kind);
    if (r == QN_OK) r = finish_fewer(&w, o->data, &o->general, o->svg, o->tokens);
    close_fewer(&w);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_prune_experts = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Removes the experts of a ModuleFormer that a text uses least, and their router rows, "
             "which raises the gates of those that stay. Every layer keeps the same number, and at "
             "least as many as a token uses. Reports the perplexity before and after.",
    .examples = "quoin bricks prune-experts run/book run/small --data book.txt --keep 4\n"
                "quoin bricks prune-experts run/book run/small --data book.txt --min-usage 0.02",
    .options = prune_options,
    .opts_size = sizeof(prune_opts),
    .run = run_prune,
};

// ------------------------------------------------------------------------------ merge-experts

typedef struct merge_opts {
    const char *data, *svg;
    qn_opt_list general;
    int64_t experts, tokens;
    int where, distance, weights, router;
    bool lead, no_align;
} merge_opts;

static const qn_opt merge_options[] = {
    { "data", 0, QN_AT_PATH(merge_opts, data), .value = "FILE|DIR",
      .help = "the text on which experts are compared and their use is counted" },
    { "experts", 'n', QN_AT_INT(merge_opts, experts), .initial = "0", .min = 0, .max = 256,
      .help = "experts of each router that remain" },
    { "where", 0, QN_AT_CHOICE(merge_opts, where), .words = "both|mlp|attention", .initial = "both",
      .help = "which experts" },
    { "distance", 0, QN_AT_CHOICE(merge_opts, distance), .words = "output|router|weight",
      .initial = "output",
      .help = "between experts: of mean outputs, of router rows (1 - cosine), of aligned weights" },
    { "lead", 0, QN_AT_FLAG(merge_opts, lead),
      .help = "the most used experts lead and the others join the nearest, instead of clustering" },
    { "no-align", 0, QN_AT_FLAG(merge_opts, no_align),
      .help = "average hidden units as they are numbered, without matching them first" },
    { "weights", 0, QN_AT_CHOICE(merge_opts, weights), .words = "usage|mean", .initial = "usage",
      .help = "of the members of a group" },
    { "router", 0, QN_AT_CHOICE(merge_opts, router), .words = "mean|map", .initial = "mean",
      .help = "rows of a group: averaged, or kept while the members share one body" },
    { "general", 0, QN_AT_LIST(merge_opts, general), .value = "FILE,...",
      .help = "further texts whose perplexity is reported" },
    { "tokens", 0, QN_AT_INT(merge_opts, tokens), .initial = "0", .min = 0, .max = 1e12,
      .help = "tokens of each text at most; 0: all" },
    { "svg", 0, QN_AT_PATH(merge_opts, svg), .value = "DIR",
      .help = "heat maps of the experts' load go there" },
    { 0 },
};

static double euclid(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

// Mean outputs: mean activations through the output matrices. dist [E, E].
static qn_result output_distance(const fewer *w, int kind, int64_t l, const float *out, double *dist)
{
    const size_t E = (size_t)w->usage.experts[kind], h = (size_t)w->usage.width[kind];
    const size_t d = (size_t)w->m.width;
    double *mean = qn_calloc(E * d, sizeof *mean);
    if (!mean) return qn_no_memory(E * d * sizeof *mean);
    for (size_t e = 0; e < E; e++)
        for (size_t i = 0; i < h; i++) {
            const double a = w->usage.sums[kind][((size_t)l * E + e) * h + i] / w->usage.tokens;
            for (size_t k = 0; k < d; k++) mean[e * d + k] += a * (double)out[(e * h + i) * d + k];
        }
    for (size_t i = 0; i < E * E; i++) dist[i] = euclid(mean + i / E * d, mean + i % E * d, d);
    qn_free(mean);
    return QN_OK;
}

static qn_result router_distance(const fewer *w, const qn_brick_names *names, size_t E, double *dist)
{
    float *rows;
    const qn_safetensor *t;
    QN_TRY(qn_brick_tensor(&w->m, names->router, &t));
    QN_TRY(qn_brick_f32(&w->m, names->router, &rows));
    const size_t n = (size_t)t->count / E;
    for (size_t i = 0; i < E * E; i++) {
        const float *a = rows + i / E * n, *b = rows + i % E * n;
        double ab = 0, aa = 0, bb = 0;
        for (size_t k = 0; k < n; k++) {
            ab += (double)a[k] * (double)b[k];
            aa += (double)a[k] * (double)a[k];
            bb += (double)b[k] * (double)b[k];
        }
        dist[i] = aa > 0 && bb > 0 ? 1 - ab / sqrt(aa * bb) : 1;
    }
    qn_free(rows);
    return QN_OK;
}

// Squared differences of weights after the hidden units of one are matched to the other's.
static qn_result weight_distance(const fewer *w, int kind, const float *in, const float *out,
                                 bool align, double *dist)
{
    const size_t E = (size_t)w->usage.experts[kind], h = (size_t)w->usage.width[kind];
    const size_t d = (size_t)w->m.width, n = d * h;
    int32_t *p = qn_malloc(h * sizeof *p);
    if (!p) return qn_no_memory(h * sizeof *p);
    qn_result r = QN_OK;
    for (size_t a = 0; r == QN_OK && a < E; a++)
        for (size_t b = a; r == QN_OK && b < E; b++) {
            for (size_t i = 0; i < h; i++) p[i] = (int32_t)i;
            if (align && a != b)
                r = qn_align_units((qn_expert){ in + a * n, out + a * n },
                                   (qn_expert){ in + b * n, out + b * n }, d, h, p);
            double sum = 0;
            for (size_t k = 0; k < d; k++)
                for (size_t i = 0; i < h; i++) {
                    const size_t u = (size_t)p[i];
                    const double x = (double)in[a * n + k * h + i] - (double)in[b * n + k * h + u];
                    const double y = (double)out[a * n + i * d + k] - (double)out[b * n + u * d + k];
                    sum += x * x + y * y;
                }
            dist[a * E + b] = dist[b * E + a] = sqrt(sum);
        }
    qn_free(p);
    return r;
}

static qn_result distances(const fewer *w, const merge_opts *o, int kind, int64_t l, double *dist)
{
    qn_brick_names names;
    qn_brick_names_of(&w->m, brick_of(kind), l, 0, &names);
    const size_t E = (size_t)w->usage.experts[kind];
    if (o->distance == 1) return router_distance(w, &names, E, dist);
    float *in = NULL, *out = NULL;
    qn_result r = qn_brick_f32(&w->m, names.out, &out);
    if (r == QN_OK && o->distance == 0) r = output_distance(w, kind, l, out, dist);
    if (r == QN_OK && o->distance == 2) r = qn_brick_f32(&w->m, names.in, &in);
    if (r == QN_OK && o->distance == 2)
        r = weight_distance(w, kind, in, out, kind == 1 && !o->no_align, dist);
    qn_free(in);
    qn_free(out);
    return r;
}

// The members of a group, most used first among equals the lower number.
static qn_result plan_group(fewer *w, const merge_opts *o, int kind, int64_t l, const int32_t *labels,
                            int32_t group, qn_expert_plan *plan)
{
    const int64_t E = w->usage.experts[kind];
    int64_t *members = qn_edit_keep(w->e, (size_t)E * sizeof *members);
    double *usage = qn_edit_keep(w->e, (size_t)E * sizeof *usage);
    double *weight = qn_edit_keep(w->e, (size_t)E * sizeof *weight);
    if (!members || !usage || !weight) return qn_no_memory((size_t)E * sizeof *members);
    size_t count = 0, lead = 0;
    for (int64_t e = 0; e < E; e++) {
        if (labels[e] != group) continue;
        members[count] = e;
        usage[count] = qn_usage_share(&w->usage, kind, l, e);
        weight[count] = o->weights == 0 ? usage[count] : 1;
        if (usage[count] > usage[lead]) lead = count;
        count++;
    }
    *plan = (qn_expert_plan){ .kind = QN_EXPERT_MEAN, .from = members[lead], .members = members,
                              .usage = usage, .weight = weight, .count = count,
                              .align = !o->no_align };
    return QN_OK;
}

static qn_result merge_layer(fewer *w, const merge_opts *o, int kind, int64_t l, int64_t groups)
{
    static const qn_stack_opts none;
    const size_t E = (size_t)w->usage.experts[kind];
    double *dist = qn_edit_keep(w->e, E * E * sizeof *dist);
    double *usage = qn_edit_keep(w->e, E * sizeof *usage);
    int32_t *labels = qn_edit_keep(w->e, E * sizeof *labels);
    qn_expert_plan *plan = qn_edit_keep(w->e, E * sizeof *plan);
    if (!dist || !usage || !labels || !plan) return qn_no_memory(E * E * sizeof *dist);
    for (size_t e = 0; e < E; e++) usage[e] = qn_usage_share(&w->usage, kind, l, (int64_t)e);
    QN_TRY(distances(w, o, kind, l, dist));
    if (o->lead)
        QN_TRY(qn_align_lead(dist, usage, E, (size_t)groups, labels));
    else
        QN_TRY(qn_align_cluster(dist, E, (size_t)groups, labels));
    for (int32_t g = 0; g < groups; g++)
        QN_TRY(plan_group(w, o, kind, l, labels, g, &plan[g]));
    if (o->router == 0) {
        QN_TRY(qn_stack_plan(w->e, &w->m, brick_of(kind), l, plan, groups, &none));
        return follow_bias(w, kind, l, plan, groups);
    }
    // Rows stay; every member gets the body of its group.
    qn_expert_plan *all = qn_edit_keep(w->e, E * sizeof *all);
    if (!all) return qn_no_memory(E * sizeof *all);
    qn_brick_names names;
    qn_brick_names_of(&w->m, brick_of(kind), l, 0, &names);
    for (size_t e = 0; e < E; e++) all[e] = plan[labels[e]];
    QN_TRY(qn_stack_plan(w->e, &w->m, brick_of(kind), l, all, (int64_t)E, &none));
    qn_edit_find(w->e, names.router)->make = NULL;
    return QN_OK;
}

static qn_result merge_kind(fewer *w, const merge_opts *o, int kind)
{
    const int64_t E = w->usage.experts[kind], k = chosen_of(w, kind);
    const int64_t groups = o->experts < E ? o->experts : E;
    if (groups < k && o->router == 0)
        return qn_fail(QN_ERR_INVALID, "--experts %lld is less than the %lld %s experts that a token "
                                       "uses", (long long)groups, (long long)k,
                       kind ? "mlp" : "attention");
    for (int64_t l = 0; l < w->usage.layers; l++) QN_TRY(merge_layer(w, o, kind, l, groups));
    qn_cli_note(w->cli, "%s experts: %lld become %lld", kind ? "mlp" : "attention", (long long)E,
                (long long)groups);
    return o->router == 0 ? qn_edit_set(w->e, kind_keys[kind], groups) : QN_OK;
}

static int run_merge(const qn_cli *cli, const void *opts)
{
    const merge_opts *o = opts;
    if (!o->data) return qn_cli_misuse(cli, "--data FILE is missing: a text to compare experts on");
    if (!o->experts) return qn_cli_misuse(cli, "--experts N is missing: how many remain");
    fewer w = { .cli = cli };
    qn_result r = open_fewer(&w, o->data, o->tokens, o->distance == 0);
    for (int kind = 0; r == QN_OK && kind < 2; kind++)
        if (o->where == 0 || (o->where == 1) == (kind == 1)) r = merge_kind(&w, o, kind);
    if (r == QN_OK) r = finish_fewer(&w, o->data, &o->general, o->svg, o->tokens);
    close_fewer(&w);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_merge_experts = {
    .args = "MODEL OUT",
    .args_min = 2,
    .args_max = 2,
    .about = "Merges experts of a ModuleFormer that do alike: those whose mean outputs on a text are "
             "near each other (every expert applied to every token) are grouped by average linkage, "
             "their hidden units are matched to the most used member's by the Hungarian method, and "
             "weights and router rows are averaged by use. Attention experts are averaged without "
             "matching. Reports the perplexity before and after.",
    .examples = "quoin bricks merge-experts run/book run/small --data book.txt --experts 4\n"
                "quoin bricks merge-experts run/book run/same --data book.txt --experts 4",
    .options = merge_options,
    .opts_size = sizeof(merge_opts),
    .run = run_merge,
};
