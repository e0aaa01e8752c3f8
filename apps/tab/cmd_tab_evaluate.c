// quoin tab evaluate: splits, repeated stratified folds or a model; baselines; pictures.
#include "cli/report.h"
#include "fail.h"
#include "io/json.h"
#include "io/svg.h"
#include "platform.h"
#include "tab/baseline.h"
#include "tab/command.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct split {
    int32_t *train, *test;
    int64_t train_count, test_count;
    tab_rows rows; // prepared from its training rows
    qn_tab_choice choice;
} split;

typedef struct evaluation {
    qn_tab_table *table;
    split *splits;
    size_t count;
    double *pooled; // probabilities of all test rows one after the other, for the pictures
    float *labels;
    int64_t rows;
    int classes;
} evaluation;

static void evaluation_free(evaluation *e, int seeds)
{
    for (size_t i = 0; e->splits && i < e->count; i++) {
        split *s = &e->splits[i];
        qn_free(s->train);
        qn_free(s->test);
        tab_rows_free(&s->rows);
        qn_tab_choice_free(&s->choice, seeds);
    }
    qn_free(e->splits);
    qn_free(e->pooled);
    qn_free(e->labels);
    qn_tab_table_close(&e->table);
}

// ------------------------------------------------------------------------------ splits

static qn_result read_rows(qn_json v, const char *key, int64_t most, int32_t **out, int64_t *count)
{
    qn_json list;
    QN_TRY(qn_json_array(v, key, &list));
    *out = qn_malloc((qn_json_count(list) + 1) * sizeof **out);
    if (!*out) return qn_no_memory(sizeof **out);
    *count = 0;
    for (qn_json i = qn_json_first(list); i.node; i = qn_json_next(i)) {
        int64_t row;
        QN_TRY(qn_json_int(i, NULL, 0, most - 1, &row));
        (*out)[(*count)++] = (int32_t)row;
    }
    if (!*count) return qn_json_fail(list, "no rows, expected at least one");
    return QN_OK;
}

static qn_result check_disjoint(const split *s, size_t index, int64_t rows)
{
    bool *in = qn_calloc((size_t)rows, sizeof *in);
    if (!in) return qn_no_memory((size_t)rows);
    int64_t both = -1;
    for (int64_t i = 0; i < s->train_count; i++) in[s->train[i]] = true;
    for (int64_t i = 0; i < s->test_count; i++)
        if (in[s->test[i]]) both = s->test[i];
    qn_free(in);
    if (both < 0) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "split %zu has row %lld both among train and among test", index,
                   (long long)both);
}

static qn_result splits_from_file(const char *path, evaluation *e)
{
    qn_json_doc *doc;
    qn_json list;
    QN_TRY(qn_json_open(path, NULL, &doc));
    qn_result r = qn_json_array(qn_json_root(doc), "splits", &list);
    if (r == QN_OK && !qn_json_count(list)) r = qn_json_fail(list, "no splits");
    if (r == QN_OK) {
        e->splits = qn_calloc(qn_json_count(list), sizeof *e->splits);
        if (!e->splits) r = qn_no_memory(sizeof *e->splits);
    }
    for (qn_json v = r == QN_OK ? qn_json_first(list) : list; r == QN_OK && v.node;
         v = qn_json_next(v)) {
        split *s = &e->splits[e->count++];
        int64_t rows = (int64_t)e->table->rows;
        r = read_rows(v, "train", rows, &s->train, &s->train_count);
        if (r == QN_OK) r = read_rows(v, "test", rows, &s->test, &s->test_count);
        if (r == QN_OK) r = check_disjoint(s, e->count - 1, rows);
    }
    qn_json_close(&doc);
    return r;
}

static qn_result splits_from_folds(tab_run *r, evaluation *e)
{
    const int folds = (int)r->o->outer;
    size_t rows = e->table->rows;
    tab_rows all = { 0 };
    int *fold = qn_malloc((rows + 1) * sizeof *fold);
    qn_result result = fold ? tab_rows_prepare(r, e->table, NULL, 0, &all) : qn_no_memory(rows);
    if (result == QN_OK && rows < (size_t)folds)
        result = qn_fail(QN_ERR_INVALID, "%s: %zu rows, expected at least one for each of %d folds",
                         e->table->name, rows, folds);
    qn_tab_problem p = { &all.data, all.all, (int64_t)rows };
    if (result == QN_OK) {
        e->splits = qn_calloc((size_t)(folds * r->o->repeats), sizeof *e->splits);
        if (!e->splits) result = qn_no_memory(sizeof *e->splits);
    }
    for (int64_t k = 0; result == QN_OK && k < r->o->repeats; k++) {
        qn_tab_folds(&p, folds, (uint64_t)(r->cli->seed + 7919 * (k + 1)), fold);
        for (int f = 0; result == QN_OK && f < folds; f++) {
            split *s = &e->splits[e->count++];
            s->train = qn_malloc(rows * sizeof *s->train);
            s->test = qn_malloc(rows * sizeof *s->test);
            if (!s->train || !s->test) result = qn_no_memory(rows * sizeof *s->train);
            for (size_t i = 0; result == QN_OK && i < rows; i++) {
                if (fold[i] == f)
                    s->test[s->test_count++] = (int32_t)i;
                else
                    s->train[s->train_count++] = (int32_t)i;
            }
        }
    }
    qn_free(fold);
    tab_rows_free(&all);
    return result;
}

// ------------------------------------------------------------------------------ measuring

typedef struct line {
    const char *method;
    double sum[7], squares[7];
    int64_t count;
    int64_t confusion[64 * 64];
} line;

enum { BALANCED, ACCURACY, AUC, LOG_LOSS, CALIBRATION, R2, RMSE };

static void add_scores(line *l, const qn_tab_scores *s)
{
    const double v[7] = { s->balanced_accuracy, s->accuracy, s->auc, s->log_loss,
                          s->calibration_error, s->r2, s->rmse };
    for (int i = 0; i < 7; i++) {
        l->sum[i] += v[i];
        l->squares[i] += v[i] * v[i];
    }
    l->count++;
    for (int i = 0; i < 64 * 64; i++) l->confusion[i] += s->confusion[i];
}

static double spread(const line *l, int i)
{
    if (l->count < 2) return 0;
    double n = (double)l->count, mean = l->sum[i] / n;
    return sqrt(fmax(0, (l->squares[i] - n * mean * mean) / (n - 1)));
}

static qn_result print_lines(const tab_run *r, const line *lines, size_t count, bool regression)
{
    static const qn_column of_classes[] = {
        { "method", QN_COLUMN_TEXT, 0 },        { "balanced_accuracy", QN_COLUMN_REAL, 4 },
        { "deviation", QN_COLUMN_REAL, 2 },     { "accuracy", QN_COLUMN_REAL, 4 },
        { "auc", QN_COLUMN_REAL, 4 },           { "log_loss", QN_COLUMN_REAL, 4 },
        { "calibration_error", QN_COLUMN_REAL, 3 }, { "splits", QN_COLUMN_INT, 0 } };
    static const qn_column of_values[] = { { "method", QN_COLUMN_TEXT, 0 },
                                           { "r2", QN_COLUMN_REAL, 4 },
                                           { "deviation", QN_COLUMN_REAL, 2 },
                                           { "rmse", QN_COLUMN_REAL, 4 },
                                           { "splits", QN_COLUMN_INT, 0 } };
    qn_report *report;
    QN_TRY(qn_report_open(stdout, r->cli->json ? QN_REPORT_JSON : QN_REPORT_TEXT,
                          regression ? of_values : of_classes, regression ? 5 : 8, &report));
    qn_result result = QN_OK;
    for (size_t i = 0; result == QN_OK && i < count; i++) {
        const line *l = &lines[i];
        double n = (double)l->count;
        const qn_value classes[] = { QN_TEXT(l->method),          QN_REAL(l->sum[BALANCED] / n),
                                     QN_REAL(spread(l, BALANCED)), QN_REAL(l->sum[ACCURACY] / n),
                                     QN_REAL(l->sum[AUC] / n),     QN_REAL(l->sum[LOG_LOSS] / n),
                                     QN_REAL(l->sum[CALIBRATION] / n), QN_INT(l->count) };
        const qn_value values[] = { QN_TEXT(l->method), QN_REAL(l->sum[R2] / n),
                                    QN_REAL(spread(l, R2)), QN_REAL(l->sum[RMSE] / n),
                                    QN_INT(l->count) };
        result = qn_report_row(report, regression ? values : classes);
    }
    qn_result closed = qn_report_close(&report);
    return result == QN_OK ? closed : result;
}

static void print_confusion(const tab_run *r, const qn_tab_prep *p, const line *l)
{
    if (r->cli->json) return;
    printf("\nlabel -> prediction, rows of all splits\n");
    for (int c = 0; c < p->class_count; c++) {
        printf("  %-20.20s", p->classes[c]);
        for (int k = 0; k < p->class_count; k++)
            printf(" %6lld", (long long)l->confusion[c * p->class_count + k]);
        printf("\n");
    }
}

// y of the prepared rows, in the units of the table.
static double value_of(const qn_tab_prep *p, double y)
{
    return y * p->target_deviation + p->target_mean;
}

// Scores of outputs (probabilities or values) for test rows.
static qn_result score_rows(const qn_tab_prep *p, const float *y, const int32_t *rows, int64_t count,
                            const double *out, line *l)
{
    qn_tab_scores *s = qn_malloc(sizeof *s);
    float *own = qn_malloc((size_t)(count + 1) * sizeof *own);
    double *values = qn_malloc((size_t)(count + 1) * sizeof *values);
    qn_result r = s && own && values ? QN_OK : qn_no_memory(sizeof *s);
    for (int64_t i = 0; r == QN_OK && i < count; i++) {
        own[i] = y[rows[i]];
        values[i] = value_of(p, (double)own[i]);
    }
    if (r == QN_OK && p->regression) qn_tab_score_values(values, out, count, s);
    if (r == QN_OK && !p->regression) r = qn_tab_score(own, out, count, p->class_count, s);
    if (r == QN_OK) add_scores(l, s);
    qn_free(s);
    qn_free(own);
    qn_free(values);
    return r;
}

static qn_result test_x(const split *s, float **out)
{
    int64_t d = s->rows.data.columns;
    *out = qn_malloc((size_t)(s->test_count * d) * sizeof **out);
    if (!*out) return qn_no_memory((size_t)(s->test_count * d) * sizeof **out);
    for (int64_t i = 0; i < s->test_count; i++)
        memcpy(*out + i * d, s->rows.x + s->test[i] * d, (size_t)d * sizeof **out);
    return QN_OK;
}

static qn_result pool(evaluation *e, const split *s, const double *out)
{
    int c = s->rows.prep->class_count;
    if (!c) return QN_OK;
    int64_t all = e->rows + s->test_count;
    double *pooled = qn_realloc(e->pooled, (size_t)(all * c) * sizeof *pooled);
    if (pooled) e->pooled = pooled;
    float *labels = qn_realloc(e->labels, (size_t)all * sizeof *labels);
    if (labels) e->labels = labels;
    if (!pooled || !labels) return qn_no_memory((size_t)(all * c) * sizeof *pooled);
    memcpy(pooled + e->rows * c, out, (size_t)(s->test_count * c) * sizeof *out);
    for (int64_t i = 0; i < s->test_count; i++) labels[e->rows + i] = s->rows.y[s->test[i]];
    e->rows = all;
    e->classes = c;
    return QN_OK;
}

static qn_result score_split(tab_run *r, evaluation *e, split *s, line *l)
{
    qn_tab_model m = { .prep = s->rows.prep, .settings = r->grid[s->choice.chosen],
                       .temperature = s->choice.temperature, .nets = s->choice.nets,
                       .net_count = (size_t)r->fit.seeds };
    qn_tab_prediction p = { 0 };
    float *x = NULL;
    qn_result result = test_x(s, &x);
    if (result == QN_OK) result = qn_tab_predict_rows(r->dev, &m, x, s->test_count, NULL, &p);
    if (result == QN_OK)
        result = score_rows(s->rows.prep, s->rows.y, s->test, s->test_count, p.out, l);
    if (result == QN_OK) result = pool(e, s, p.out);
    qn_tab_prediction_free(&p);
    qn_free(x);
    return result;
}

static qn_result score_baseline(tab_run *r, split *s, int hidden, line *l)
{
    double *out = qn_malloc((size_t)(s->test_count * qn_tab_outputs(&s->rows.data)) * sizeof *out);
    float *x = NULL;
    qn_result result = out ? test_x(s, &x) : qn_no_memory((size_t)s->test_count);
    qn_tab_problem p = { &s->rows.data, s->train, s->train_count };
    qn_tab_baseline b = { .hidden = hidden, .balance = !r->o->no_balance,
                          .seed = (uint64_t)r->cli->seed };
    if (result == QN_OK) result = qn_tab_baseline_run(r->dev, &p, &b, x, s->test_count, out);
    for (int64_t i = 0; result == QN_OK && s->rows.prep->regression && i < s->test_count; i++)
        out[i] = value_of(s->rows.prep, out[i]);
    if (result == QN_OK) result = score_rows(s->rows.prep, s->rows.y, s->test, s->test_count, out, l);
    qn_free(out);
    qn_free(x);
    return result;
}

// ------------------------------------------------------------------------------ pictures

static qn_result save_picture(const char *dir, const char *name, qn_textbuf *b)
{
    char *path = qn_path_join(dir, name);
    qn_result r = path ? qn_textbuf_status(b) : qn_no_memory(strlen(dir));
    if (r == QN_OK) r = qn_textbuf_save(b, path);
    qn_free(path);
    qn_textbuf_free(b);
    return r;
}

static qn_result draw_calibration(const char *dir, const qn_tab_scores *s)
{
    double x[QN_TAB_BINS], y[QN_TAB_BINS];
    size_t n = 0;
    for (int b = 0; b < QN_TAB_BINS; b++) {
        if (!s->bin_rows[b]) continue;
        x[n] = s->bin_confidence[b];
        y[n++] = s->bin_accuracy[b];
    }
    static const double ends[2] = { 0, 1 };
    const qn_svg_series series[] = { { .name = "measured", .x = x, .y = y, .count = n },
                                     { .name = "perfect", .x = ends, .y = ends, .count = 2,
                                       .faint = true } };
    qn_svg_lines c = { .title = "Calibration", .x_label = "probability of the prediction",
                       .y_label = "share that is right", .y_max = 1, .series = series,
                       .series_count = 2 };
    qn_textbuf b = { 0 };
    qn_svg_lines_text(&c, &b);
    return save_picture(dir, "calibration.svg", &b);
}

static qn_result draw_roc(const char *dir, const evaluation *e, const qn_tab_prep *p)
{
    enum { MOST = 8 };
    int count = e->classes < MOST ? e->classes : MOST, first = e->classes == 2;
    double *points = qn_malloc((size_t)count * 2 * (size_t)(e->rows + 2) * sizeof *points);
    if (!points) return qn_no_memory((size_t)e->rows * sizeof *points);
    qn_svg_series series[MOST] = { 0 };
    qn_result r = QN_OK;
    size_t n = 0;
    for (int c = first; r == QN_OK && c < count; c++) {
        double *x = points + (size_t)c * 2 * (size_t)(e->rows + 2), *y = x + e->rows + 2;
        qn_svg_series *s = &series[n++];
        *s = (qn_svg_series){ .name = p->classes[c], .x = x, .y = y };
        r = qn_tab_roc(e->labels, e->pooled, e->rows, e->classes, c, x, y, &s->count);
    }
    qn_svg_lines c = { .title = "ROC: each class against the rest",
                       .x_label = "false positive rate", .y_label = "true positive rate", .y_max = 1,
                       .series = series, .series_count = n };
    qn_textbuf b = { 0 };
    if (r == QN_OK) qn_svg_lines_text(&c, &b);
    if (r == QN_OK) r = save_picture(dir, "roc.svg", &b);
    qn_free(points);
    return r;
}

static qn_result draw(const tab_run *r, const evaluation *e, const qn_tab_prep *p)
{
    if (!r->o->pictures || !e->classes) return QN_OK;
    qn_tab_scores *s = qn_malloc(sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    qn_result result = qn_make_dirs(r->o->pictures);
    if (result == QN_OK) result = qn_tab_score(e->labels, e->pooled, e->rows, e->classes, s);
    if (result == QN_OK) result = draw_calibration(r->o->pictures, s);
    if (result == QN_OK) result = draw_roc(r->o->pictures, e, p);
    qn_free(s);
    return result;
}

// ------------------------------------------------------------------------------ the command

// Balanced accuracy or R2 of other predictions, a column each of a CSV with as many rows.
static qn_result compare_others(const tab_run *r, const qn_tab_prep *p, const float *y, int64_t rows,
                                const line *ours)
{
    qn_tab_table *t;
    QN_TRY(qn_tab_table_open(r->o->compare, &t));
    qn_result result = QN_OK;
    if ((int64_t)t->rows != rows)
        result = qn_fail(QN_ERR_INVALID, "%s has %zu rows, the table has %lld", r->o->compare, t->rows,
                         (long long)rows);
    int outputs = p->regression ? 1 : p->class_count;
    double *out = qn_calloc((size_t)(rows * outputs) + 1, sizeof *out);
    int32_t *all = qn_malloc((size_t)(rows + 1) * sizeof *all);
    line *lines = qn_calloc(t->columns + 1, sizeof *lines);
    if (result == QN_OK && (!out || !all || !lines)) result = qn_no_memory((size_t)rows);
    if (result == QN_OK) lines[0] = *ours;
    for (int64_t i = 0; result == QN_OK && i < rows; i++) all[i] = (int32_t)i;
    for (size_t k = 0; result == QN_OK && k < t->columns; k++) {
        lines[k + 1].method = t->header[k];
        for (int64_t i = 0; result == QN_OK && i < rows; i++) {
            const char *cell = qn_tab_cell(t, (size_t)i, k);
            int found = -1;
            if (p->regression) {
                if (qn_tab_number(cell, &out[i])) found = 0;
            } else {
                for (int c = 0; c < outputs; c++) {
                    out[i * outputs + c] = !strcmp(cell, p->classes[c]);
                    if (out[i * outputs + c] == 1) found = c;
                }
            }
            if (found < 0)
                result = qn_fail(QN_ERR_FORMAT, "%s: line %lld, column %zu: found '%.60s', expected %s",
                                 t->name, (long long)t->lines[i], k + 1, cell,
                                 p->regression ? "a number" : "one of the model's classes");
        }
        if (result == QN_OK) result = score_rows(p, y, all, rows, out, &lines[k + 1]);
    }
    if (result == QN_OK) result = print_lines(r, lines, t->columns + 1, p->regression);
    qn_free(out);
    qn_free(all);
    qn_free(lines);
    qn_tab_table_close(&t);
    return result;
}

static qn_result evaluate_model(tab_run *r)
{
    qn_tab_model m = { 0 };
    qn_tab_prediction p = { 0 };
    evaluation e = { 0 };
    line *l = qn_calloc(1, sizeof *l);
    qn_result result = l ? qn_tab_model_load(r->o->model, &m) : qn_no_memory(sizeof *l);
    if (result == QN_OK) result = qn_tab_table_open(r->cli->args[1], &e.table);
    size_t rows = result == QN_OK ? e.table->rows : 0;
    float *y = qn_malloc((rows + 1) * sizeof *y);
    int32_t *all = qn_malloc((rows + 1) * sizeof *all);
    if (result == QN_OK && (!y || !all)) result = qn_no_memory(rows);
    if (result == QN_OK && !rows)
        result = qn_fail(QN_ERR_INVALID, "%s holds no rows", e.table->name);
    if (result == QN_OK) result = qn_tab_prep_labels(m.prep, e.table, y);
    if (result == QN_OK) result = qn_tab_predict(r->dev, &m, e.table, &p);
    for (size_t i = 0; result == QN_OK && i < rows; i++) all[i] = (int32_t)i;
    if (result == QN_OK) {
        l->method = "model";
        result = score_rows(m.prep, y, all, (int64_t)rows, p.out, l);
    }
    if (result == QN_OK && r->o->compare)
        result = compare_others(r, m.prep, y, (int64_t)rows, l);
    else if (result == QN_OK)
        result = print_lines(r, l, 1, m.prep->regression);
    if (result == QN_OK && !m.prep->regression) {
        print_confusion(r, m.prep, l);
        e.pooled = p.out;
        e.labels = y;
        e.rows = (int64_t)rows;
        e.classes = m.prep->class_count;
        result = draw(r, &e, m.prep);
        e.pooled = NULL;
        e.labels = NULL;
    }
    qn_free(l);
    qn_free(y);
    qn_free(all);
    qn_tab_prediction_free(&p);
    qn_tab_model_free(&m);
    evaluation_free(&e, 0);
    return result;
}

static qn_result train_splits(tab_run *r, evaluation *e)
{
    qn_tab_problem *problems = qn_calloc(e->count, sizeof *problems);
    qn_tab_choice *choices = qn_calloc(e->count, sizeof *choices);
    qn_result result = problems && choices ? QN_OK : qn_no_memory(e->count * sizeof *problems);
    for (size_t i = 0; result == QN_OK && i < e->count; i++) {
        split *s = &e->splits[i];
        result = tab_rows_prepare(r, e->table, s->train, s->train_count, &s->rows);
        problems[i] = (qn_tab_problem){ &s->rows.data, s->train, s->train_count };
    }
    if (result == QN_OK) result = tab_train(r, "evaluate", problems, e->count, choices);
    for (size_t i = 0; result == QN_OK && i < e->count; i++) e->splits[i].choice = choices[i];
    if (result == QN_OK && e->splits[0].choice.stopped)
        result = qn_fail(QN_ERR_CANCELLED, "interrupted: nothing measured");
    qn_free(problems);
    qn_free(choices);
    return result;
}

qn_result tab_evaluate(tab_run *r)
{
    if (r->o->model) return evaluate_model(r);
    if (r->o->compare)
        return qn_fail(QN_ERR_INVALID, "--compare needs --model: it goes row by row through the table");
    evaluation e = { 0 };
    line *lines = qn_calloc(3, sizeof *lines);
    size_t count = r->o->baselines ? 3 : 1;
    qn_result result = lines ? qn_tab_table_open(r->cli->args[1], &e.table) : qn_no_memory(1);
    if (result == QN_OK)
        result = r->o->splits ? splits_from_file(r->o->splits, &e) : splits_from_folds(r, &e);
    if (result == QN_OK) result = train_splits(r, &e);
    if (result == QN_OK) {
        lines[0].method = r->o->published ? "hypertab, published" : "hypertab";
        lines[1].method = e.splits[0].rows.prep->regression ? "linear" : "logistic regression";
        lines[2].method = "one hidden layer";
    }
    for (size_t i = 0; result == QN_OK && i < e.count; i++) {
        result = score_split(r, &e, &e.splits[i], &lines[0]);
        if (result == QN_OK && count > 1) result = score_baseline(r, &e.splits[i], 0, &lines[1]);
        if (result == QN_OK && count > 1) result = score_baseline(r, &e.splits[i], 100, &lines[2]);
    }
    if (result == QN_OK) {
        const qn_tab_prep *p = e.splits[0].rows.prep;
        result = print_lines(r, lines, count, p->regression);
        if (result == QN_OK && !p->regression) print_confusion(r, p, &lines[0]);
        if (result == QN_OK) result = draw(r, &e, p);
    }
    evaluation_free(&e, r->fit.seeds);
    qn_free(lines);
    return result;
}
