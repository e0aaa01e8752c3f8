// quoin tab: small tables with HyperTab. Options, fit, predict and tune.
#include "cli/report.h"
#include "cli/term.h"
#include "fail.h"
#include "io/textbuf.h"
#include "platform.h"
#include "tab/command.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const qn_opt options[] = {
    { "out", 'o', QN_AT_PATH(tab_opts, out), .value = "FILE",
      .help = "fit: the model file; predict: the CSV, default standard output; demo: a folder" },
    { "label", 'l', QN_AT_STRING(tab_opts, label), .value = "COLUMN",
      .help = "the column to be predicted; default: the last one" },
    { "regression", 0, QN_AT_FLAG(tab_opts, regression),
      .help = "the label is a number to be predicted, not a class" },
    { "published", 0, QN_AT_FLAG(tab_opts, published), .section = "Training",
      .help = "exactly the published program's defaults: one network, no choosing" },
    { "folds", 0, QN_AT_INT(tab_opts, folds), .initial = "3", .min = 0, .max = 20,
      .help = "folds of the inner cross-validation that chooses settings; 0: none" },
    { "seeds", 0, QN_AT_INT(tab_opts, seeds), .initial = "3", .min = 1, .max = 100,
      .help = "networks whose logits are averaged" },
    { "subsample", 0, QN_AT_FLOAT(tab_opts, subsample), .min = 0, .max = 1,
      .help = "share of the columns that a view sees; default: chosen" },
    { "hidden", 0, QN_AT_INT(tab_opts, hidden), .min = 1, .max = QN_TARGET_MAX_HIDDEN,
      .help = "hidden units of a view's network; default: chosen" },
    { "depth", 0, QN_AT_INT(tab_opts, depth), .min = 1, .max = QN_TARGET_MAX_DEPTH,
      .help = "hidden layers of a view's network; default: chosen" },
    { "views", 0, QN_AT_INT(tab_opts, views), .initial = "100", .min = 1, .max = 10000,
      .help = "views" },
    { "views-per-step", 0, QN_AT_INT(tab_opts, views_per_step), .initial = "10", .min = 1,
      .max = 10000, .help = "views in one optimiser step" },
    { "epochs", 0, QN_AT_INT(tab_opts, epochs), .initial = "50", .min = 1, .max = 100000,
      .help = "passes over the rows" },
    { "batch", 0, QN_AT_INT(tab_opts, batch), .initial = "128", .min = 1, .max = 65536,
      .help = "rows in a batch, at most" },
    { "rate", 0, QN_AT_FLOAT(tab_opts, rate), .initial = "0.003", .min = 1e-9, .max = 10,
      .help = "learning rate" },
    { "no-balance", 0, QN_AT_FLAG(tab_opts, no_balance),
      .help = "do not repeat the rows of rare classes" },
    { "uneven", 0, QN_AT_FLAG(tab_opts, uneven), .help = "keep a short last batch" },
    { "model", 'm', QN_AT_PATH(tab_opts, model), .value = "FILE", .section = "Evaluation",
      .help = "evaluate this model on the table instead of training on parts of it" },
    { "splits", 0, QN_AT_PATH(tab_opts, splits), .value = "FILE",
      .help = "JSON with {\"splits\":[{\"train\":[...],\"test\":[...]}]}, rows counted from 0" },
    { "outer", 0, QN_AT_INT(tab_opts, outer), .initial = "5", .min = 2, .max = 100,
      .help = "folds of the stratified cross-validation without --splits" },
    { "repeats", 0, QN_AT_INT(tab_opts, repeats), .initial = "1", .min = 1, .max = 100,
      .help = "how often that is repeated" },
    { "baselines", 0, QN_AT_FLAG(tab_opts, baselines),
      .help = "evaluate: also a logistic regression and a one-hidden-layer network" },
    { "compare", 0, QN_AT_PATH(tab_opts, compare), .value = "CSV",
      .help = "evaluate --model: predictions of others, a column each, compared row by row" },
    { "pictures", 0, QN_AT_PATH(tab_opts, pictures), .value = "DIR",
      .help = "write calibration, ROC and importance as SVG" },
    { 0 },
};

// ------------------------------------------------------------------------------ settings

char *tab_settings_text(const qn_tab_settings *s, char text[160])
{
    snprintf(text, 160, "subsample %g, hidden %d x %d, %d views, %d a step, %d epochs, rate %g%s%s%s",
             s->subsample, s->hidden, s->depth, s->views, s->views_per_step, s->epochs, s->rate,
             s->anneal ? " annealed" : "", s->balance ? ", balanced" : "", s->even ? ", even" : "");
    return text;
}

static void override(const tab_run *r, qn_tab_settings *s)
{
    const tab_opts *o = r->o;
    const qn_opts *given = r->cli->parsed;
    if (qn_opts_given(given, "subsample")) s->subsample = o->subsample;
    if (qn_opts_given(given, "hidden")) s->hidden = (int)o->hidden;
    if (qn_opts_given(given, "depth")) s->depth = (int)o->depth;
    if (qn_opts_given(given, "views")) s->views = (int)o->views;
    if (qn_opts_given(given, "views-per-step")) s->views_per_step = (int)o->views_per_step;
    if (qn_opts_given(given, "epochs")) s->epochs = (int)o->epochs;
    if (qn_opts_given(given, "batch")) s->batch = (int)o->batch;
    if (qn_opts_given(given, "rate")) s->rate = o->rate;
    if (o->no_balance) s->balance = false;
    if (o->uneven) s->even = false;
}

// The candidates: what was found to win by inner cross-validation over 16 tables, docs/hypertab.md.
static void make_grid(tab_run *r)
{
    size_t n = 0;
    if (r->o->published) {
        r->grid[n++] = qn_tab_published();
    } else {
        r->grid[n++] = qn_tab_default();
        qn_tab_settings small = qn_tab_default();
        small.hidden = 10;
        small.depth = 2;
        small.anneal = false;
        r->grid[n++] = small;
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        qn_tab_settings s = r->grid[i];
        bool twice = false;
        override(r, &s);
        for (size_t k = 0; k < kept; k++) twice |= !memcmp(&r->grid[k], &s, sizeof s);
        if (!twice) r->grid[kept++] = s;
    }
    r->fit = (qn_tab_fit_opts){ .grid = r->grid, .grid_count = kept, .folds = (int)r->o->folds,
                                .seeds = (int)r->o->seeds, .seed = (uint64_t)r->cli->seed };
    if (r->o->published && !qn_opts_given(r->cli->parsed, "folds")) r->fit.folds = 0;
    if (r->o->published && !qn_opts_given(r->cli->parsed, "seeds")) r->fit.seeds = 1;
}

// ------------------------------------------------------------------------------ shared

static bool on_progress(void *user, double done, double total, double loss)
{
    tab_run *r = user;
    char note[48];
    snprintf(note, sizeof note, "loss %.4f", loss);
    qn_progress_update(&r->progress, 100 * done / total, note);
    return !qn_interrupted();
}

qn_result tab_train(tab_run *r, const char *what, const qn_tab_problem *problems, size_t count,
                    qn_tab_choice *choices)
{
    qn_tab_hooks hooks = { .progress = on_progress, .user = r };
    qn_progress_start(&r->progress, what, "%", 0, 100, r->cli->quiet);
    qn_result result = qn_tab_fit(r->dev, problems, count, &r->fit, &hooks, choices);
    qn_progress_end(&r->progress, NULL);
    return result;
}

qn_result tab_rows_prepare(const tab_run *r, const qn_tab_table *t, const int32_t *rows,
                           int64_t count, tab_rows *out)
{
    QN_TRY(qn_tab_prep_fit(t, r->o->label, r->o->regression, rows, count, &out->prep));
    size_t cells = t->rows * out->prep->features;
    out->x = qn_malloc(cells * sizeof *out->x);
    out->y = qn_malloc(t->rows * sizeof *out->y);
    out->all = qn_malloc(t->rows * sizeof *out->all);
    if (!out->x || !out->y || !out->all) return qn_no_memory(cells * sizeof *out->x);
    QN_TRY(qn_tab_prep_apply(out->prep, t, out->x, NULL, NULL));
    QN_TRY(qn_tab_prep_labels(out->prep, t, out->y));
    for (size_t i = 0; i < t->rows; i++) out->all[i] = (int32_t)i;
    out->data = (qn_tab_data){ .rows = (int64_t)t->rows, .columns = (int64_t)out->prep->features,
                               .x = out->x, .y = out->y, .classes = out->prep->class_count };
    return QN_OK;
}

void tab_rows_free(tab_rows *t)
{
    qn_tab_prep_free(&t->prep);
    qn_free(t->x);
    qn_free(t->y);
    qn_free(t->all);
}

// ------------------------------------------------------------------------------ fit

// Takes over what the choice has.
static void to_model(const tab_run *r, tab_rows *t, qn_tab_choice *c, qn_tab_model *m)
{
    *m = (qn_tab_model){ .prep = t->prep, .settings = r->grid[c->chosen],
                         .seed = (uint64_t)r->cli->seed, .temperature = c->temperature,
                         .inner_score = c->scores[c->chosen], .stopped = c->stopped,
                         .nets = c->nets, .net_count = (size_t)r->fit.seeds };
    t->prep = NULL;
    c->nets = NULL;
}

static void say_choice(const tab_run *r, const qn_tab_choice *c, bool regression)
{
    char text[160];
    qn_cli_note(r->cli, "settings: %s", tab_settings_text(&r->grid[c->chosen], text));
    if (isfinite(c->scores[c->chosen]))
        qn_cli_note(r->cli, "%s on held-out rows of %d inner folds: %.4f",
                    regression ? "R2" : "balanced accuracy", r->fit.folds, c->scores[c->chosen]);
}

qn_result tab_fit(tab_run *r)
{
    tab_rows t = { 0 };
    qn_tab_choice c = { 0 };
    qn_tab_model m = { 0 };
    qn_result result = qn_tab_table_open(r->cli->args[1], &t.table);
    if (result == QN_OK) result = tab_rows_prepare(r, t.table, NULL, 0, &t);
    if (result == QN_OK)
        qn_cli_note(r->cli, "%zu rows, %zu columns, %zu features, label %s%s", t.table->rows,
                    t.prep->column_count, t.prep->features, t.prep->label,
                    t.prep->regression ? " (a number)" : "");
    qn_tab_problem p = { &t.data, t.all, (int64_t)(t.table ? t.table->rows : 0) };
    if (result == QN_OK) result = tab_train(r, "fit", &p, 1, &c);
    if (result == QN_OK && (!c.nets || !c.nets[0].theta))
        result = qn_fail(QN_ERR_CANCELLED, "interrupted before a network was trained; nothing written");
    if (result == QN_OK) {
        say_choice(r, &c, t.prep->regression);
        to_model(r, &t, &c, &m);
        for (size_t i = 0; i < m.net_count; i++)
            if (!m.nets[i].theta) m.net_count = i; // stopped: those that were begun
        result = qn_tab_model_save(&m, r->o->out);
    }
    if (result == QN_OK)
        qn_cli_note(r->cli, "%s %s", m.stopped ? "interrupted: kept as far as it came in" : "wrote",
                    r->o->out);
    qn_tab_choice_free(&c, r->fit.seeds);
    qn_tab_model_free(&m);
    tab_rows_free(&t);
    qn_tab_table_close(&t.table);
    return result;
}

// ------------------------------------------------------------------------------ tune

qn_result tab_tune(tab_run *r)
{
    static const qn_column columns[] = { { "settings", QN_COLUMN_TEXT, 0 },
                                         { "score", QN_COLUMN_REAL, 4 },
                                         { "chosen", QN_COLUMN_BOOL, 0 } };
    // A wider grid than `fit` tries.
    static const double shares[] = { 0.3, 0.5, 0.8 };
    static const struct {
        int hidden, depth;
    } nets[] = { { 10, 2 }, { 32, 1 }, { 64, 1 } };
    size_t n = 0;
    for (size_t s = 0; s < 3; s++)
        for (size_t h = 0; h < 3; h++)
            for (int slow = 0; slow < 2; slow++) {
                qn_tab_settings g = qn_tab_default();
                g.subsample = shares[s];
                g.hidden = nets[h].hidden;
                g.depth = nets[h].depth;
                if (slow) g.rate /= 3;
                override(r, &g);
                bool twice = false;
                for (size_t k = 0; k < n; k++) twice |= !memcmp(&r->grid[k], &g, sizeof g);
                if (!twice) r->grid[n++] = g;
            }
    r->fit.grid_count = n;
    if (!r->fit.folds) r->fit.folds = 3;
    tab_rows t = { 0 };
    qn_tab_choice c = { 0 };
    qn_report *report = NULL;
    qn_result result = qn_tab_table_open(r->cli->args[1], &t.table);
    if (result == QN_OK) result = tab_rows_prepare(r, t.table, NULL, 0, &t);
    qn_tab_problem p = { &t.data, t.all, (int64_t)(t.table ? t.table->rows : 0) };
    if (result == QN_OK) result = tab_train(r, "tune", &p, 1, &c);
    if (result == QN_OK && !isfinite(c.scores[0]))
        result = qn_fail(QN_ERR_CANCELLED, "interrupted before every candidate was tried");
    if (result == QN_OK)
        result = qn_report_open(stdout, r->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 3,
                                &report);
    for (size_t i = 0; result == QN_OK && i < n; i++) {
        char text[160];
        const qn_value row[] = { QN_TEXT(tab_settings_text(&r->grid[i], text)),
                                 QN_REAL(c.scores[i]), QN_INT(i == c.chosen) };
        result = qn_report_row(report, row);
    }
    if (report && qn_report_close(&report) != QN_OK && result == QN_OK) result = QN_ERR_IO;
    if (result == QN_OK && r->o->out && c.nets[0].theta) {
        qn_tab_model m;
        to_model(r, &t, &c, &m);
        result = qn_tab_model_save(&m, r->o->out);
        qn_tab_model_free(&m);
    }
    qn_tab_choice_free(&c, r->fit.seeds);
    tab_rows_free(&t);
    qn_tab_table_close(&t.table);
    return result;
}

// ------------------------------------------------------------------------------ predict

// A CSV cell, quoted where it must be.
static void put_cell(qn_textbuf *b, const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        qn_textbuf_printf(b, "%s", s);
        return;
    }
    qn_textbuf_printf(b, "\"");
    for (; *s; s++) qn_textbuf_printf(b, *s == '"' ? "\"\"" : "%c", *s);
    qn_textbuf_printf(b, "\"");
}

static void put_predictions(const qn_tab_model *m, const qn_tab_prediction *p, qn_textbuf *b)
{
    const qn_tab_prep *prep = m->prep;
    char name[32] = "";
    put_cell(b, prep->label);
    for (int c = 0; c < prep->class_count; c++) {
        qn_textbuf_printf(b, ",");
        qn_textbuf_printf(b, "p_");
        put_cell(b, prep->classes[c]);
    }
    qn_textbuf_printf(b, ",doubt\n");
    for (int64_t i = 0; i < p->rows; i++) {
        const double *out = p->out + i * (prep->regression ? 1 : prep->class_count);
        if (prep->regression)
            qn_textbuf_printf(b, "%.9g", out[0]);
        else
            put_cell(b, prep->classes[qn_tab_largest(out, prep->class_count)]);
        for (int c = 0; c < prep->class_count; c++) {
            snprintf(name, sizeof name, ",%.6f", out[c]);
            qn_textbuf_printf(b, "%s", name);
        }
        qn_textbuf_printf(b, ",%.6g\n", p->doubt[i]);
    }
}

qn_result tab_predict(tab_run *r)
{
    qn_tab_model m = { 0 };
    qn_tab_table *t = NULL;
    qn_tab_prediction p = { 0 };
    qn_textbuf b = { 0 };
    qn_result result = qn_tab_model_load(r->cli->args[1], &m);
    if (result == QN_OK) result = qn_tab_table_open(r->cli->args[2], &t);
    if (result == QN_OK) result = qn_tab_predict(r->dev, &m, t, &p);
    if (result == QN_OK && p.views_used < p.views)
        qn_cli_note(r->cli, "columns are missing: %zu of %zu views see all that they need",
                    p.views_used, p.views);
    if (result == QN_OK && p.unseen)
        qn_cli_note(r->cli, "%lld cells hold categories that training did not have",
                    (long long)p.unseen);
    if (result == QN_OK) {
        put_predictions(&m, &p, &b);
        result = qn_textbuf_status(&b);
        if (result == QN_OK && r->o->out)
            result = qn_textbuf_save(&b, r->o->out);
        else if (result == QN_OK)
            fwrite(qn_textbuf_get(&b), 1, b.size, stdout);
    }
    qn_textbuf_free(&b);
    qn_tab_prediction_free(&p);
    qn_tab_table_close(&t);
    qn_tab_model_free(&m);
    return result;
}

// ------------------------------------------------------------------------------ the command

static const struct {
    qn_result (*run)(tab_run *r);
    size_t args; // beside the word itself
    bool needs_out;
    const char *usage;
} words[] = {
    { tab_fit, 1, true, "tab fit TABLE.csv --out MODEL" },
    { tab_predict, 2, false, "tab predict MODEL TABLE.csv" },
    { tab_evaluate, 1, false, "tab evaluate TABLE.csv" },
    { tab_tune, 1, false, "tab tune TABLE.csv" },
    { tab_explain, 2, false, "tab explain MODEL TABLE.csv" },
    { tab_demo, 0, true, "tab demo --out DIR" },
};

static int run(const qn_cli *cli, const void *opts)
{
    tab_run r = { .cli = cli, .o = opts };
    int word = qn_cli_word(cli);
    if (word < 0) return QN_EXIT_MISUSED;
    if (cli->arg_count != words[word].args + 1 || (words[word].needs_out && !r.o->out))
        return qn_cli_misuse(cli, "expected: %s", words[word].usage);
    if (qn_opts_given(cli->parsed, "subsample") && r.o->subsample <= 0)
        return qn_cli_misuse(cli, "--subsample: found %g, expected more than 0", r.o->subsample);
    make_grid(&r);
    for (size_t i = 0; i < r.fit.grid_count; i++)
        if (r.grid[i].views_per_step > r.grid[i].views) r.grid[i].views_per_step = r.grid[i].views;
    qn_interrupt_watch();
    qn_result result = qn_cli_open(cli, &r.ctx, &r.dev);
    if (result == QN_OK) result = words[word].run(&r);
    qn_device_destroy(&r.dev);
    qn_context_destroy(&r.ctx);
    int status = qn_cli_result(result);
    return qn_interrupted() ? QN_EXIT_INTERRUPTED : status;
}

const qn_command qn_command_tab = {
    .args = "WORD [FILE...]",
    .arg_words = "fit|predict|evaluate|tune|explain|demo",
    .args_min = 1,
    .args_max = 3,
    .about =
        "Learns small tables (some hundred rows) with HyperTab: a hypernetwork makes the weights of "
        "many small networks, each of which sees some of the columns, and their logits are "
        "averaged.\n\n"
        "fit TABLE.csv --out MODEL chooses settings by cross-validation within the table, trains, "
        "and writes one file. predict MODEL TABLE.csv writes the predicted label, probabilities and "
        "a measure of doubt for every row; columns may be missing. evaluate TABLE.csv measures "
        "by cross-validation, by given splits or, with --model, a model on a labelled table. tune "
        "compares more settings. explain MODEL TABLE.csv tells how much each column matters. demo "
        "makes two tables and shows all of it.\n\n"
        "A table is CSV with a header (comma, semicolon or tab). Empty cells are missing values, "
        "texts become categories; everything is scaled, and what was learnt for that is kept in the "
        "model. Ctrl-C ends training and keeps what there is. docs/hypertab.md has the rules.",
    .examples = "quoin tab fit iris.csv --out iris.tab\n"
                "quoin tab predict iris.tab new.csv --out answers.csv\n"
                "quoin tab evaluate iris.csv --baselines --pictures pictures\n"
                "quoin tab fit houses.csv --regression --label price --out houses.tab",
    .options = options,
    .opts_size = sizeof(tab_opts),
    .run = run,
};
