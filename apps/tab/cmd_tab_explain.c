// quoin tab explain and demo.
#include "cli/report.h"
#include "cli/term.h"
#include "fail.h"
#include "io/svg.h"
#include "platform.h"
#include "random.h"
#include "tab/command.h"
#include "tab/timings.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct weighed {
    const char *name;
    double importance;
} weighed;

static int by_importance(const void *a, const void *b)
{
    double x = ((const weighed *)a)->importance, y = ((const weighed *)b)->importance;
    return (x < y) - (x > y);
}

// A column's importance is the sum over its features.
static qn_result columns_of(tab_run *r, qn_tab_model *m, const qn_tab_table *t, weighed *out)
{
    size_t d = m->prep->features;
    float *x = qn_malloc((t->rows * d + 1) * sizeof *x), *y = qn_malloc((t->rows + 1) * sizeof *y);
    double *each = qn_calloc(d, sizeof *each);
    qn_result result = x && y && each ? QN_OK : qn_no_memory(t->rows * d * sizeof *x);
    if (result == QN_OK && !t->rows) result = qn_fail(QN_ERR_INVALID, "%s holds no rows", t->name);
    if (result == QN_OK) result = qn_tab_prep_apply(m->prep, t, x, NULL, NULL);
    if (result == QN_OK) result = qn_tab_prep_labels(m->prep, t, y);
    if (result == QN_OK) result = qn_tab_importance(r->dev, m, x, y, (int64_t)t->rows, each);
    for (size_t k = 0; result == QN_OK && k < m->prep->column_count; k++) {
        const qn_tab_column *c = &m->prep->columns[k];
        out[k] = (weighed){ c->name, 0 };
        for (size_t f = c->first; f < c->first + c->count; f++) out[k].importance += each[f];
    }
    qn_free(x);
    qn_free(y);
    qn_free(each);
    return result;
}

static qn_result draw(const char *dir, const weighed *w, size_t count)
{
    enum { MOST = 40 };
    const char *names[MOST];
    double values[MOST];
    if (count > MOST) count = MOST;
    for (size_t i = 0; i < count; i++) {
        names[i] = w[i].name;
        values[i] = w[i].importance;
    }
    qn_svg_bars c = { .title = "Importance of columns", .names = names, .values = values,
                      .count = count };
    qn_textbuf b = { 0 };
    qn_svg_bars_text(&c, &b);
    char *path = qn_path_join(dir, "importance.svg");
    qn_result r = path ? qn_make_dirs(dir) : qn_no_memory(strlen(dir));
    if (r == QN_OK) r = qn_textbuf_save(&b, path);
    qn_textbuf_free(&b);
    qn_free(path);
    return r;
}

static qn_result explain(tab_run *r, const char *model, const char *table, const char *pictures)
{
    static const qn_column columns[] = { { "column", QN_COLUMN_TEXT, 0 },
                                         { "importance", QN_COLUMN_REAL, 4 } };
    qn_tab_model m = { 0 };
    qn_tab_table *t = NULL;
    weighed *w = NULL;
    qn_report *report = NULL;
    qn_result result = qn_tab_model_load(model, &m);
    if (result == QN_OK) result = qn_tab_table_open(table, &t);
    if (result == QN_OK && !(w = qn_calloc(m.prep->column_count, sizeof *w)))
        result = qn_no_memory(m.prep->column_count * sizeof *w);
    if (result == QN_OK) result = columns_of(r, &m, t, w);
    if (result == QN_OK) {
        qsort(w, m.prep->column_count, sizeof *w, by_importance);
        result = qn_report_open(stdout, r->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT, columns, 2,
                                &report);
    }
    for (size_t i = 0; result == QN_OK && i < m.prep->column_count; i++)
        result = qn_report_row(report, (qn_value[]){ QN_TEXT(w[i].name), QN_REAL(w[i].importance) });
    if (report) {
        qn_result closed = qn_report_close(&report);
        if (result == QN_OK) result = closed;
    }
    if (result == QN_OK && pictures) result = draw(pictures, w, m.prep->column_count);
    qn_free(w);
    qn_tab_table_close(&t);
    qn_tab_model_free(&m);
    return result;
}

qn_result tab_explain(tab_run *r)
{
    return explain(r, r->cli->args[1], r->cli->args[2], r->o->pictures);
}

// ------------------------------------------------------------------------------ demo

// 200 rows of 10 columns of noise; the class is the sign of one of them.
static qn_result write_one_useful(const char *path, uint64_t seed)
{
    enum { ROWS = 200, COLUMNS = 10, USEFUL = 6, STREAM = 31 };
    qn_random rnd = qn_random_start(seed, STREAM);
    qn_textbuf b = { 0 };
    for (int c = 0; c < COLUMNS; c++) qn_textbuf_printf(&b, "%s%d,", c == USEFUL ? "useful" : "noise", c);
    qn_textbuf_printf(&b, "class\n");
    for (int i = 0; i < ROWS; i++) {
        double useful = 0;
        for (int c = 0; c < COLUMNS; c++) {
            double v = qn_random_normal(&rnd);
            if (c == USEFUL) useful = v;
            qn_textbuf_printf(&b, "%.4f,", v);
        }
        qn_textbuf_printf(&b, "%s\n", useful > 0 ? "above" : "below");
    }
    qn_result r = qn_textbuf_status(&b);
    if (r == QN_OK) r = qn_textbuf_save(&b, path);
    qn_textbuf_free(&b);
    return r;
}

static qn_result show(tab_run *r, const char *table, const char *model, const char *pictures)
{
    const char *const args[] = { "fit", table };
    qn_cli cli = *r->cli;
    tab_opts o = *r->o;
    tab_run own = *r;
    cli.args = args;
    cli.arg_count = 2;
    o.out = model;
    own.cli = &cli;
    own.o = &o;
    own.fit.grid = own.grid;
    qn_cli_note(r->cli, "%s:", table);
    QN_TRY(tab_fit(&own));
    if (qn_interrupted()) return QN_OK;
    return explain(&own, model, table, pictures);
}

qn_result tab_demo(tab_run *r)
{
    static const char *const names[] = { "useful", "timings" };
    qn_result result = qn_make_dirs(r->o->out);
    for (int i = 0; result == QN_OK && i < 2 && !qn_interrupted(); i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.csv", names[i]);
        char *table = qn_path_join(r->o->out, name);
        snprintf(name, sizeof name, "%s.tab", names[i]);
        char *model = qn_path_join(r->o->out, name), *pictures = qn_path_join(r->o->out, names[i]);
        if (!table || !model || !pictures) result = qn_no_memory(strlen(r->o->out));
        if (result == QN_OK && i == 0) result = write_one_useful(table, (uint64_t)r->cli->seed);
        if (result == QN_OK && i == 1)
            result = qn_write_file(table, qn_tab_timings, strlen(qn_tab_timings));
        if (result == QN_OK) result = show(r, table, model, pictures);
        qn_free(table);
        qn_free(model);
        qn_free(pictures);
    }
    return result;
}
