// `quoin bricks list` and `show`: what a model is made of.
#include "bricks/model.h"
#include "cli/command.h"
#include "cli/report.h"
#include "llm/pattern.h"
#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// ------------------------------------------------------------------------------------ list

static const qn_column list_columns[] = {
    { .key = "layer", .type = QN_COLUMN_INT },     { .key = "brick", .type = QN_COLUMN_TEXT },
    { .key = "count", .type = QN_COLUMN_INT },     { .key = "chosen", .type = QN_COLUMN_INT },
    { .key = "neurons", .type = QN_COLUMN_INT },   { .key = "parameters", .type = QN_COLUMN_INT },
    { .key = "share", .type = QN_COLUMN_REAL, .digits = 3 },
};
enum { LIST_COLUMNS = sizeof list_columns / sizeof *list_columns };

typedef struct listing {
    const qn_brick_model *m;
    qn_report *report;
    int64_t total;
} listing;

static int64_t count_of(const qn_brick_model *m, const char *name)
{
    const qn_safetensor *t = *name ? qn_safetensors_find(m->weights, name) : NULL;
    return t ? (int64_t)t->count : 0;
}

static qn_result list_row(listing *l, int64_t layer, const char *brick, int64_t count,
                          int64_t chosen, int64_t neurons, int64_t parameters)
{
    return qn_report_row(
        l->report, (qn_value[]){ layer < 0 ? QN_NONE : QN_INT(layer), QN_TEXT(brick), QN_INT(count),
                                 chosen ? QN_INT(chosen) : QN_NONE,
                                 neurons ? QN_INT(neurons) : QN_NONE, QN_INT(parameters),
                                 QN_REAL(l->total ? (double)parameters / (double)l->total : 0) });
}

static int64_t expert_parameters(const qn_brick_model *m, qn_brick_kind kind, int64_t layer,
                                 int64_t experts)
{
    int64_t sum = 0;
    for (int64_t e = 0; e < (m->moduleformer ? 1 : experts); e++) {
        qn_brick_names n;
        qn_brick_names_of(m, kind, layer, e, &n);
        sum += count_of(m, n.in) + count_of(m, n.gate) + count_of(m, n.out);
    }
    return sum;
}

static qn_result list_layer(listing *l, int64_t layer)
{
    const qn_brick_model *m = l->m;
    int64_t all = 0;
    for (size_t i = 0; i < qn_safetensors_count(m->weights); i++) {
        const qn_safetensor *t = qn_safetensors_at(m->weights, i);
        if (qn_brick_layer_of(t->name) == layer) all += (int64_t)t->count;
    }
    int64_t ffn = expert_parameters(m, QN_BRICK_FFN, layer, m->experts), attention = 0;
    if (m->moduleformer) {
        attention = expert_parameters(m, QN_BRICK_ATTENTION, layer, m->config.n_att_experts);
        QN_TRY(list_row(l, layer, "attention experts", m->config.n_att_experts, m->config.k_att,
                        m->config.att_hidden, attention));
    }
    const bool dense = m->experts == 1;
    QN_TRY(list_row(l, layer, dense ? "feed-forward" : "feed-forward experts", m->experts,
                    m->choices, m->hidden, ffn));
    return list_row(l, layer, "everything else", 1, 0, 0, all - ffn - attention);
}

static qn_result list_model(listing *l)
{
    int64_t outside = 0;
    for (size_t i = 0; i < qn_safetensors_count(l->m->weights); i++) {
        const qn_safetensor *t = qn_safetensors_at(l->m->weights, i);
        l->total += (int64_t)t->count;
        if (qn_brick_layer_of(t->name) < 0) outside += (int64_t)t->count;
    }
    for (int64_t i = 0; i < l->m->layers; i++) QN_TRY(list_layer(l, i));
    return list_row(l, -1, "embeddings, head, final norm", 1, 0, 0, outside);
}

static qn_result list(const qn_cli *cli)
{
    qn_brick_model m;
    QN_TRY(qn_brick_open(cli->args[0], &m));
    listing l = { .m = &m };
    if (!cli->json)
        printf("%s: %s, %lld layers, width %lld\n", cli->args[0], m.type, (long long)m.layers,
               (long long)m.width);
    qn_result r = qn_report_open(stdout, cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, list_columns,
                                 LIST_COLUMNS, &l.report);
    if (r == QN_OK) r = list_model(&l);
    qn_result closed = l.report ? qn_report_close(&l.report) : QN_OK;
    if (r == QN_OK && !cli->json) printf("%lld parameters\n", (long long)l.total);
    qn_brick_close(&m);
    return r == QN_OK ? closed : r;
}

static int run_list(const qn_cli *cli, const void *opts)
{
    (void)opts;
    return qn_cli_result(list(cli));
}

const qn_command qn_command_bricks_list = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Shows, for each layer, its experts or its feed-forward block: how many, how many a "
             "token uses, their neurons and parameters. MODEL is a folder with config.json and "
             "safetensors: a ModuleFormer or a Llama-like checkpoint.",
    .examples = "quoin bricks list run/book\nquoin bricks list run/book --json",
    .run = run_list,
};

// ------------------------------------------------------------------------------------ show

typedef struct show_opts {
    qn_opt_list pattern;
} show_opts;

static const qn_opt show_options[] = {
    { "pattern", 'p', QN_AT_LIST(show_opts, pattern), .value = "GLOB[#ROWS],...",
      .help = "tensors by name (* and ?), and rows of them: 'transformer.h.0.*#1,3-5'" },
    { 0 },
};

static const qn_column show_columns[] = {
    { .key = "tensor", .type = QN_COLUMN_TEXT },  { .key = "row", .type = QN_COLUMN_INT },
    { .key = "type", .type = QN_COLUMN_TEXT },    { .key = "shape", .type = QN_COLUMN_TEXT },
    { .key = "norm", .type = QN_COLUMN_REAL },    { .key = "mean", .type = QN_COLUMN_REAL },
    { .key = "largest", .type = QN_COLUMN_REAL },
};
enum { SHOW_COLUMNS = sizeof show_columns / sizeof *show_columns };

// Elements first .. first + count of the tensor; dims from `from` on are its shape.
static qn_result show_part(qn_report *report, const qn_safetensor *t, int64_t row, int from,
                           uint64_t first, uint64_t count)
{
    enum { CHUNK = 4096 };
    double part[CHUNK], squares = 0, sum = 0, most = 0;
    for (uint64_t done = 0; done < count;) {
        const uint64_t n = count - done < CHUNK ? count - done : CHUNK;
        QN_TRY(qn_safetensor_f64(t, first + done, n, part));
        for (uint64_t i = 0; i < n; i++) {
            squares += part[i] * part[i];
            sum += part[i];
            if (fabs(part[i]) > most) most = fabs(part[i]);
        }
        done += n;
    }
    char shape[128] = "[";
    size_t at = 1;
    for (int i = from; i < t->rank && at < sizeof shape - 24; i++)
        at += (size_t)snprintf(shape + at, sizeof shape - at, i > from ? ",%lld" : "%lld",
                               (long long)t->dim[i]);
    snprintf(shape + at, sizeof shape - at, "]");
    return qn_report_row(report, (qn_value[]){ QN_TEXT(t->name), row < 0 ? QN_NONE : QN_INT(row),
                                               QN_TEXT(qn_st_dtype_name(t->dtype)), QN_TEXT(shape),
                                               QN_REAL(sqrt(squares)),
                                               QN_REAL(count ? sum / (double)count : 0),
                                               QN_REAL(most) });
}

static qn_result show_tensor(qn_report *report, const qn_selection *s, const qn_safetensor *t)
{
    const int64_t rows = t->rank ? t->dim[0] : 1;
    if (!qn_st_dtype_is_float(t->dtype) || !rows) return QN_OK;
    uint8_t *keep = qn_malloc((size_t)rows);
    if (!keep) return qn_no_memory((size_t)rows);
    int64_t selected;
    qn_result r = qn_selection_rows(s, t->name, rows, keep, &selected);
    const bool stack = t->rank == 3; // experts are bricks of their own
    const uint64_t size = t->count / (uint64_t)rows;
    if (r == QN_OK && selected == rows && !stack) r = show_part(report, t, -1, 0, 0, t->count);
    for (int64_t i = 0; r == QN_OK && i < rows && (stack || selected < rows); i++)
        if (keep[i]) r = show_part(report, t, i, 1, (uint64_t)i * size, size);
    qn_free(keep);
    return r;
}

static qn_result check_names(const qn_selection *s, const qn_brick_model *m)
{
    const size_t count = qn_safetensors_count(m->weights);
    const char **names = qn_malloc((count + 1) * sizeof *names);
    if (!names) return qn_no_memory(count * sizeof *names);
    for (size_t i = 0; i < count; i++) names[i] = qn_safetensors_at(m->weights, i)->name;
    qn_result r = qn_selection_check(s, names, count);
    qn_free(names);
    return r;
}

static qn_result show(const qn_cli *cli, const show_opts *o)
{
    static const char *const everything[] = { "*" };
    qn_brick_model m = { 0 };
    qn_selection s;
    qn_report *report = NULL;
    QN_TRY(qn_selection_parse(o->pattern.count ? o->pattern.items : (const char **)everything,
                              o->pattern.count ? o->pattern.count : 1, &s));
    qn_result r = qn_brick_open(cli->args[0], &m);
    if (r == QN_OK) r = check_names(&s, &m);
    if (r == QN_OK)
        r = qn_report_open(stdout, cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, show_columns,
                           SHOW_COLUMNS, &report);
    for (size_t i = 0; r == QN_OK && i < qn_safetensors_count(m.weights); i++)
        r = show_tensor(report, &s, qn_safetensors_at(m.weights, i));
    qn_result closed = report ? qn_report_close(&report) : QN_OK;
    qn_brick_close(&m);
    qn_selection_free(&s);
    return r == QN_OK ? closed : r;
}

static int run_show(const qn_cli *cli, const void *opts)
{
    return qn_cli_result(show(cli, opts));
}

const qn_command qn_command_bricks_show = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Shows tensors of a model, expert stacks one expert a row, with type, shape, Euclidean "
             "norm, mean and largest magnitude. --pattern is what `train --train-only` takes: try "
             "a pattern here first.",
    .examples = "quoin bricks show run/book --pattern 'transformer.h.0.mlpf.*'\n"
                "quoin bricks show run/book -p '*.mlpf.experts.weight#0,2-3'",
    .options = show_options,
    .opts_size = sizeof(show_opts),
    .run = run_show,
};
