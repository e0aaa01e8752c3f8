// `quoin bricks analyse` and `locate`: which neurons and experts serve which function.
#include "bricks/analyse.h"
#include "bricks/score.h"
#include "cli/command.h"
#include "cli/report.h"
#include "cli/term.h"
#include "io/json.h"
#include "io/svg.h"
#include "mem.h"
#include "platform.h"

#include <quoin/io.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const kinds[2] = { "activation", "magnitude" };

// What both commands open.
typedef struct study {
    const qn_cli *cli;
    qn_context *ctx;
    qn_device *dev;
    qn_folder f;
    qn_instances in;
    qn_analysis a;
} study;

static qn_result open_study(study *s, const char *data, int64_t length, int64_t instances,
                            bool attribution)
{
    QN_TRY(qn_cli_open(s->cli, &s->ctx, &s->dev));
    QN_TRY(qn_folder_open(s->dev, s->cli->args[0], QN_F32, &s->f));
    QN_TRY(qn_instances_open(data, s->f.tokenizer, (size_t)length, (size_t)instances, &s->in));
    qn_cli_note(s->cli, "%zu functions, %zu instances, %zu tokens", s->in.function_count, s->in.count,
                s->in.tokens.count);
    return qn_analysis_run(s->dev, &s->f, &s->in, (size_t)length, attribution, &s->a);
}

static void close_study(study *s)
{
    qn_analysis_free(&s->a);
    qn_instances_close(&s->in);
    qn_folder_close(&s->f);
    qn_device_destroy(&s->dev);
    qn_context_destroy(&s->ctx);
}

// Best, top 5 per mille and mean of a function's scores in a layer.
typedef struct summary {
    double best, top, mean;
} summary;

static qn_result summarise(const qn_analysis *a, size_t layer, size_t f, summary *out)
{
    double *score = qn_malloc(a->neurons * sizeof *score);
    uint32_t *order = qn_malloc(a->neurons * sizeof *order);
    qn_result r = score && order ? QN_OK : qn_no_memory(a->neurons * sizeof *score);
    *out = (summary){ 0 };
    for (size_t n = 0; r == QN_OK && n < a->neurons; n++) {
        score[n] = (double)a->layer[layer].score[f * a->neurons + n];
        out->mean += score[n] / (double)a->neurons;
    }
    if (r == QN_OK) r = qn_score_order(score, a->neurons, order);
    if (r == QN_OK) {
        out->best = score[order[0]];
        out->top = score[order[qn_score_top_count(0.005, a->neurons) - 1]];
    }
    qn_free(score);
    qn_free(order);
    return r;
}

// ------------------------------------------------------------------------------ analyse

typedef struct analyse_opts {
    const char *data, *out, *scores, *svg;
    int64_t length, instances;
    double percent, mask_step;
    int scope, mask_of;
    bool skip_resident;
} analyse_opts;

#define STUDY_OPTIONS(strct)                                                                       \
    { "data", 0, QN_AT_PATH(strct, data), .value = "DIR",                                          \
      .help = "a file for each function: NAME.txt (an instance a line) or NAME.jsonl" },           \
    { "length", 'l', QN_AT_INT(strct, length), .initial = "64", .min = 2, .max = 65536,            \
      .help = "tokens of an instance at most" },                                                   \
    { "instances", 'n', QN_AT_INT(strct, instances), .initial = "200", .min = 0, .max = 1e9,       \
      .help = "instances of a function at most; 0: all" }

static const qn_opt analyse_options[] = {
    STUDY_OPTIONS(analyse_opts),
    { "out", 'o', QN_AT_PATH(analyse_opts, out), .value = "FILE", .help = "everything, as JSON" },
    { "save-scores", 0, QN_AT_PATH(analyse_opts, scores), .value = "FILE",
      .help = "scores and instance means of all neurons as safetensors" },
    { "svg", 0, QN_AT_PATH(analyse_opts, svg), .value = "DIR",
      .help = "sparsity curves, functionality map and pruning matrix go there" },
    { "percent", 'p', QN_AT_FLOAT(analyse_opts, percent), .initial = "5", .min = 0.01, .max = 100,
      .help = "neurons with the highest scores: those set to zero, and compared" },
    { "scope", 0, QN_AT_CHOICE(analyse_opts, scope), .words = "layer|model", .initial = "layer",
      .help = "take them from each layer, or rank all layers together" },
    { "skip-resident", 0, QN_AT_FLAG(analyse_opts, skip_resident),
      .help = "leave out neurons that are strong on nearly every instance" },
    { "mask-step", 0, QN_AT_FLOAT(analyse_opts, mask_step), .initial = "10", .min = 0, .max = 100,
      .help = "percent between points of the sparsity curves, up to 90; 0: none" },
    { "mask-of", 0, QN_AT_CHOICE(analyse_opts, mask_of), .words = "all|ran", .initial = "all",
      .help = "percent of all neurons (those of experts that did not run are the lowest), or of "
              "those that ran" },
    { 0 },
};

enum { MASKS = 92 };

// All results.
typedef struct results {
    study *s;
    const analyse_opts *o;
    size_t F;
    double *base, *prune, *similar; // losses [F]; rise of perplexity in % [F, F]; [F, F]
    uint8_t *top;                   // [F, layers * neurons]
    double percent[MASKS], *mask[2]; // [masks, F]
    size_t masks;
    qn_arena mem;
} results;

static void *room(results *r, size_t count, size_t size)
{
    return qn_arena_alloc(&r->mem, (count + 1) * size);
}

static qn_result find_tops(results *r)
{
    const qn_analysis *a = &r->s->a;
    const size_t n = a->layers * a->neurons;
    const qn_top_opts opts = { r->o->percent / 100, r->o->scope == 1, r->o->skip_resident };
    for (size_t f = 0; f < r->F; f++) QN_TRY(qn_analysis_top(a, f, &opts, r->top + f * n));
    // The mean over layers; with the whole model ranked, the model is one layer.
    const size_t parts = r->o->scope == 1 ? 1 : a->layers, size = n / parts;
    for (size_t i = 0; i < r->F * r->F; i++) {
        const uint8_t *x = r->top + i / r->F * n, *y = r->top + i % r->F * n;
        double sum = 0;
        for (size_t p = 0; p < parts; p++) {
            double both = 0, all = 0;
            for (size_t k = p * size; k < (p + 1) * size; k++) {
                both += x[k] && y[k];
                all += x[k] != 0;
            }
            sum += all > 0 ? both / all : 0;
        }
        r->similar[i] = sum / (double)parts;
    }
    return QN_OK;
}

static qn_result perturb(results *r)
{
    const qn_analysis *a = &r->s->a;
    double *loss = room(r, r->F, sizeof *loss);
    if (!loss) return qn_no_memory(r->F * sizeof *loss);
    QN_TRY(qn_analysis_loss(a, NULL, r->base));
    for (size_t f = 0; f < r->F; f++) {
        if (qn_interrupted()) return qn_fail(QN_ERR_CANCELLED, "interrupted");
        QN_TRY(qn_analysis_loss(a, r->top + f * a->layers * a->neurons, loss));
        for (size_t g = 0; g < r->F; g++)
            r->prune[f * r->F + g] = 100 * (exp(loss[g] - r->base[g]) - 1);
    }
    return QN_OK;
}

static qn_result mask(results *r)
{
    const double last = 90;
    for (double p = 0; r->o->mask_step > 0 && p <= last && r->masks < MASKS; p += r->o->mask_step)
        r->percent[r->masks++] = p;
    for (int kind = 0; kind < 2; kind++) {
        r->mask[kind] = room(r, r->masks * r->F, sizeof *r->mask[kind]);
        if (!r->mask[kind]) return qn_no_memory(r->masks * r->F * sizeof(double));
        for (size_t i = 0; i < r->masks; i++) {
            if (qn_interrupted()) return qn_fail(QN_ERR_CANCELLED, "interrupted");
            QN_TRY(qn_analysis_masked(&r->s->a, kind == 1, r->percent[i], r->o->mask_of == 1,
                                      r->mask[kind] + i * r->F));
        }
    }
    return QN_OK;
}

static void put_matrix(qn_json_writer *w, const char *key, const double *x, size_t F)
{
    qn_json_put_array(w, key);
    for (size_t f = 0; f < F; f++) {
        qn_json_put_array(w, NULL);
        for (size_t g = 0; g < F; g++) qn_json_put_number(w, NULL, x[f * F + g]);
        qn_json_put_end(w, ']');
    }
    qn_json_put_end(w, ']');
}

static qn_result put_layer(const results *r, qn_json_writer *w, size_t l)
{
    const qn_analysis *a = &r->s->a;
    const qn_layer_scores *at = &a->layer[l];
    qn_json_put_object(w, NULL);
    qn_json_put_object(w, "below_0.2");
    for (int k = 0; k < 2; k++) qn_json_put_number(w, kinds[k], at->below[k]);
    qn_json_put_end(w, '}');
    qn_json_put_object(w, "cdf");
    for (int k = 0; k < 2; k++) {
        qn_json_put_array(w, kinds[k]);
        for (int i = 0; i < QN_CDF_POINTS; i++) qn_json_put_number(w, NULL, at->cdf[k][i]);
        qn_json_put_end(w, ']');
    }
    qn_json_put_end(w, '}');
    qn_json_put_object(w, "score");
    for (size_t f = 0; f < r->F; f++) {
        summary s;
        QN_TRY(summarise(a, l, f, &s));
        qn_json_put_object(w, r->s->in.functions[f]);
        qn_json_put_number(w, "best", s.best);
        qn_json_put_number(w, "top5permille", s.top);
        qn_json_put_number(w, "mean", s.mean);
        qn_json_put_number(w, "random", a->random[f]);
        qn_json_put_end(w, '}');
    }
    qn_json_put_end(w, '}');
    qn_json_put_object(w, "experts");
    for (size_t f = 0; f < r->F; f++) {
        qn_json_put_array(w, r->s->in.functions[f]);
        for (size_t e = 0; e < a->experts; e++)
            qn_json_put_number(w, NULL, (double)at->expert_score[f * a->experts + e]);
        qn_json_put_end(w, ']');
    }
    qn_json_put_end(w, '}');
    qn_json_put_object(w, "top");
    for (size_t f = 0; f < r->F; f++) {
        qn_json_put_array(w, r->s->in.functions[f]);
        const uint8_t *top = r->top + (f * a->layers + l) * a->neurons;
        for (size_t n = 0; n < a->neurons; n++)
            if (top[n]) qn_json_put_int(w, NULL, (int64_t)n);
        qn_json_put_end(w, ']');
    }
    qn_json_put_end(w, '}');
    qn_json_put_array(w, "resident");
    for (size_t n = 0; n < a->neurons; n++)
        if (at->resident[n]) qn_json_put_int(w, NULL, (int64_t)n);
    qn_json_put_end(w, ']');
    qn_json_put_end(w, '}');
    return QN_OK;
}

static qn_result save_json(const results *r)
{
    qn_json_writer w = { .compact = true };
    qn_result res = QN_OK;
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "model", r->s->cli->args[0]);
    qn_json_put_array(&w, "functions");
    for (size_t f = 0; f < r->F; f++) qn_json_put_string(&w, NULL, r->s->in.functions[f]);
    qn_json_put_end(&w, ']');
    qn_json_put_array(&w, "layers");
    for (size_t l = 0; res == QN_OK && l < r->s->a.layers; l++) res = put_layer(r, &w, l);
    qn_json_put_end(&w, ']');
    qn_json_put_array(&w, "mask");
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < r->masks; i++) {
            qn_json_put_object(&w, NULL);
            qn_json_put_string(&w, "indicator", kinds[k]);
            qn_json_put_number(&w, "percent", r->percent[i]);
            qn_json_put_object(&w, "loss");
            for (size_t f = 0; f < r->F; f++)
                qn_json_put_number(&w, r->s->in.functions[f], r->mask[k][i * r->F + f]);
            qn_json_put_end(&w, '}');
            qn_json_put_end(&w, '}');
        }
    qn_json_put_end(&w, ']');
    put_matrix(&w, "prune", r->prune, r->F);
    put_matrix(&w, "similarity", r->similar, r->F);
    qn_json_put_end(&w, '}');
    if (res == QN_OK) return qn_json_save(&w, r->o->out);
    qn_json_writer_free(&w);
    return res;
}

// ------------------------------------------------------------------------------ scores

static qn_result declare_scores(const results *r, qn_safetensors_writer *w)
{
    const qn_analysis *a = &r->s->a;
    for (size_t l = 0; l < a->layers; l++) {
        char name[64];
        snprintf(name, sizeof name, "layers.%zu.score", l);
        int64_t dim[2] = { (int64_t)r->F, (int64_t)a->neurons };
        QN_TRY(qn_safetensors_add(w, name, QN_ST_F32, 2, dim));
        snprintf(name, sizeof name, "layers.%zu.mean", l);
        dim[0] = (int64_t)r->s->in.count;
        QN_TRY(qn_safetensors_add(w, name, QN_ST_F32, 2, dim));
    }
    const qn_safetensor *t;
    qn_result res;
    while ((res = qn_safetensors_next(w, &t)) == QN_OK && t) {
        unsigned layer = 0;
        char what[8] = "";
        if (sscanf(t->name, "layers.%u.%7s", &layer, what) != 2) continue;
        const float *x = what[0] == 's' ? a->layer[layer].score : a->layer[layer].mean;
        QN_TRY(qn_safetensors_write(w, x, t->size));
    }
    return res;
}

static qn_result save_scores(const results *r)
{
    qn_textbuf names = { 0 };
    for (size_t f = 0; f < r->F; f++)
        qn_textbuf_printf(&names, "%s%s", f ? "," : "", r->s->in.functions[f]);
    qn_result res = qn_textbuf_status(&names);
    const qn_st_meta meta[] = { { "functions", qn_textbuf_get(&names) } };
    const qn_safetensors_opts opts = { .meta = meta, .meta_count = 1 };
    qn_safetensors_writer *w = NULL;
    if (res == QN_OK) res = qn_safetensors_create(r->o->scores, &opts, &w);
    if (res == QN_OK) res = declare_scores(r, w);
    qn_textbuf_free(&names);
    if (!w) return res;
    if (res == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return res;
}

// ------------------------------------------------------------------------------ pictures

static qn_result save_svg(const results *r, const char *name, qn_textbuf *t)
{
    char *path = qn_path_join(r->o->svg, name);
    qn_result res = path ? qn_textbuf_save(t, path) : qn_no_memory(strlen(name));
    qn_free(path);
    qn_textbuf_free(t);
    return res;
}

static qn_result draw_heat(const results *r, const char *file, const char *title, const double *x,
                           size_t rows, const char *const *row_names, const char *label)
{
    qn_textbuf t = { 0 };
    qn_svg_heat_text(&(qn_svg_heat){ .title = title, .values = x, .rows = rows, .columns = r->F,
                                     .row_names = row_names,
                                     .y_label = row_names ? "set to zero" : "layer",
                                     .column_names = (const char *const *)r->s->in.functions,
                                     .value_label = label },
                     &t);
    return save_svg(r, file, &t);
}

static qn_result draw_curves(results *r)
{
    for (int k = 0; k < 2 && r->masks; k++) {
        qn_svg_series *series = room(r, r->F, sizeof *series);
        double *y = room(r, r->F * r->masks, sizeof *y);
        if (!series || !y) return qn_no_memory(r->F * r->masks * sizeof *y);
        for (size_t f = 0; f < r->F; f++) {
            for (size_t i = 0; i < r->masks; i++) y[f * r->masks + i] = r->mask[k][i * r->F + f];
            series[f] = (qn_svg_series){ .name = r->s->in.functions[f], .x = r->percent,
                                         .y = y + f * r->masks, .count = r->masks };
        }
        qn_textbuf t = { 0 };
        char file[64], label[64];
        snprintf(file, sizeof file, "sparsity-%s.svg", kinds[k]);
        snprintf(label, sizeof label, "neurons masked by %s, %%", kinds[k]);
        qn_svg_lines_text(&(qn_svg_lines){ .title = "Loss with the weakest neurons masked",
                                           .x_label = label, .y_label = "loss, nats per token",
                                           .series = series, .series_count = r->F },
                          &t);
        QN_TRY(save_svg(r, file, &t));
    }
    return QN_OK;
}

static qn_result draw(results *r)
{
    const qn_analysis *a = &r->s->a;
    double *best = room(r, a->layers * r->F, sizeof *best);
    if (!best) return qn_no_memory(a->layers * r->F * sizeof *best);
    QN_TRY(qn_make_dirs(r->o->svg));
    for (size_t i = 0; i < a->layers * r->F; i++) {
        summary s;
        QN_TRY(summarise(a, i / r->F, i % r->F, &s));
        best[i] = s.best;
    }
    QN_TRY(draw_heat(r, "functionality.svg", "Best functionality score of each layer", best,
                     a->layers, NULL, "average precision"));
    QN_TRY(draw_heat(r, "prune.svg", "Rise of perplexity, %", r->prune, r->F,
                     (const char *const *)r->s->in.functions, "%"));
    return draw_curves(r);
}

// ------------------------------------------------------------------------------ the command

static qn_result print_matrix(const results *r)
{
    enum { MOST = 64 };
    qn_column columns[MOST + 1] = { { .key = "set_to_zero" } };
    qn_value values[MOST + 1];
    qn_report *report;
    if (r->F > MOST) return QN_OK;
    for (size_t f = 0; f < r->F; f++)
        columns[f + 1] = (qn_column){ .key = r->s->in.functions[f], .type = QN_COLUMN_REAL };
    if (!r->s->cli->json)
        printf("rise of perplexity in %% when the %g%% neurons of a function are set to zero\n",
               r->o->percent);
    QN_TRY(qn_report_open(stdout, r->s->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, r->F + 1,
                          &report));
    qn_result res = QN_OK;
    for (size_t f = 0; res == QN_OK && f < r->F; f++) {
        values[0] = QN_TEXT(r->s->in.functions[f]);
        for (size_t g = 0; g < r->F; g++) values[g + 1] = QN_REAL(r->prune[f * r->F + g]);
        res = qn_report_row(report, values);
    }
    qn_result closed = qn_report_close(&report);
    return res == QN_OK ? closed : res;
}

static qn_result analyse(study *s, const analyse_opts *o)
{
    QN_TRY(open_study(s, o->data, o->length, o->instances, false));
    results r = { .s = s, .o = o, .F = s->in.function_count };
    r.base = room(&r, r.F, sizeof *r.base);
    r.prune = room(&r, r.F * r.F, sizeof *r.prune);
    r.similar = room(&r, r.F * r.F, sizeof *r.similar);
    r.top = room(&r, r.F * s->a.layers * s->a.neurons, 1);
    qn_result res = r.base && r.prune && r.similar && r.top ? QN_OK : qn_no_memory(r.F * r.F * 8);
    if (res == QN_OK) res = find_tops(&r);
    if (res == QN_OK) res = perturb(&r);
    if (res == QN_OK) res = mask(&r);
    if (res == QN_OK && o->out) res = save_json(&r);
    if (res == QN_OK && o->scores) res = save_scores(&r);
    if (res == QN_OK && o->svg) res = draw(&r);
    if (res == QN_OK) res = print_matrix(&r);
    qn_arena_free(&r.mem);
    return res;
}

static int run_analyse(const qn_cli *cli, const void *opts)
{
    const analyse_opts *o = opts;
    study s = { .cli = cli };
    if (!o->data) return qn_cli_misuse(cli, "--data DIR is missing: a file for each function");
    qn_interrupt_watch();
    qn_result r = analyse(&s, o);
    close_study(&s);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_analyse = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Studies the neurons of a ModuleFormer's feed-forward experts on texts of several kinds: "
             "how sparse activations are, how well each neuron tells a kind apart (average "
             "precision of its mean activation on the prompt), what the perplexity of every kind "
             "becomes when a kind's best neurons are set to zero, and how much these sets overlap.\n\n"
             "Prints the matrix of perplexities; --out has everything.",
    .examples = "quoin bricks analyse run/book --data kinds/ --out r.json --svg pictures\n"
                "quoin bricks analyse run/book --data kinds/ --save-scores s.safetensors",
    .options = analyse_options,
    .opts_size = sizeof(analyse_opts),
    .run = run_analyse,
};

// ------------------------------------------------------------------------------ locate

typedef struct locate_opts {
    const char *data;
    int64_t length, instances, top;
    int by, what;
} locate_opts;

static const qn_opt locate_options[] = {
    STUDY_OPTIONS(locate_opts),
    { "by", 0, QN_AT_CHOICE(locate_opts, by), .words = "score|grad", .initial = "score",
      .help = "functionality score, or attribution: mean |activation x gradient of the loss|" },
    { "bricks", 0, QN_AT_CHOICE(locate_opts, what), .words = "neurons|experts", .initial = "neurons",
      .help = "what is ranked" },
    { "top", 't', QN_AT_INT(locate_opts, top), .initial = "10", .min = 1, .max = 1e9,
      .help = "how many of each function are shown" },
    { 0 },
};

static qn_result show_ranking(const study *s, const locate_opts *o, size_t f, qn_report *report)
{
    const qn_analysis *a = &s->a;
    const bool experts = o->what == 1;
    const size_t per_layer = experts ? a->experts : a->neurons, n = a->layers * per_layer;
    const size_t width = a->neurons / a->experts;
    double *value = qn_calloc(n, sizeof *value);
    uint32_t *order = qn_malloc(n * sizeof *order);
    qn_result r = value && order ? QN_OK : qn_no_memory(n * sizeof *value);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        const qn_layer_scores *l = &a->layer[i / per_layer];
        const size_t at = f * per_layer + i % per_layer;
        if (o->by == 0)
            value[i] = (double)(experts ? l->expert_score : l->score)[at];
        else if (!experts)
            value[i] = (double)l->attribution[at];
        for (size_t u = 0; o->by == 1 && experts && u < width; u++)
            value[i] += (double)l->attribution[f * a->neurons + i % per_layer * width + u];
    }
    if (r == QN_OK) r = qn_score_order(value, n, order);
    for (size_t i = 0; r == QN_OK && i < n && i < (size_t)o->top; i++) {
        const size_t at = order[i] % per_layer;
        r = qn_report_row(report, (qn_value[]){ QN_TEXT(s->in.functions[f]), QN_INT(i + 1),
                                                QN_INT(order[i] / per_layer),
                                                QN_INT(experts ? at : at / width),
                                                experts ? QN_NONE : QN_INT(at % width),
                                                QN_REAL(value[order[i]]) });
    }
    qn_free(value);
    qn_free(order);
    return r;
}

static qn_result locate(study *s, const locate_opts *o)
{
    static const qn_column columns[] = {
        { .key = "function" }, { .key = "rank", .type = QN_COLUMN_INT },
        { .key = "layer", .type = QN_COLUMN_INT }, { .key = "expert", .type = QN_COLUMN_INT },
        { .key = "unit", .type = QN_COLUMN_INT }, { .key = "value", .type = QN_COLUMN_REAL },
    };
    QN_TRY(open_study(s, o->data, o->length, o->instances, o->by == 1));
    qn_report *report;
    QN_TRY(qn_report_open(stdout, s->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 6,
                          &report));
    qn_result r = QN_OK;
    for (size_t f = 0; r == QN_OK && f < s->in.function_count; f++) r = show_ranking(s, o, f, report);
    qn_result closed = qn_report_close(&report);
    return r == QN_OK ? closed : r;
}

static int run_locate(const qn_cli *cli, const void *opts)
{
    const locate_opts *o = opts;
    study s = { .cli = cli };
    if (!o->data) return qn_cli_misuse(cli, "--data DIR is missing: a file for each function");
    qn_result r = locate(&s, o);
    close_study(&s);
    return qn_cli_result(r);
}

const qn_command qn_command_bricks_locate = {
    .args = "MODEL",
    .args_min = 1,
    .args_max = 1,
    .about = "Ranks neurons, or experts, of a ModuleFormer by what they have to do with a kind of "
             "text: by functionality score, or by attribution.",
    .examples = "quoin bricks locate run/book --data kinds/ --by grad\n"
                "quoin bricks locate run/book --data kinds/ --bricks experts",
    .options = locate_options,
    .opts_size = sizeof(locate_opts),
    .run = run_locate,
};
