// Learning and applying what a table's columns become.
#include "tab/prep.h"
#include "fail.h"
#include "io/json.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool same_word(const char *cell, const char *const *words)
{
    char low[12];
    size_t n = strlen(cell);
    if (n >= sizeof low) return false;
    for (size_t i = 0; i <= n; i++) low[i] = (char)tolower((unsigned char)cell[i]);
    for (; *words; words++)
        if (!strcmp(low, *words)) return true;
    return false;
}

// Texts that stand for "missing" in a column of numbers.
static bool is_missing(const char *cell)
{
    static const char *const words[] = { "", "nan", "na", "n/a", "null", "none", "?", NULL };
    return same_word(cell, words);
}

static bool is_infinite(const char *cell)
{
    static const char *const words[] = { "inf", "+inf", "-inf", "infinity", "-infinity", NULL };
    return same_word(cell, words);
}

// "1,5": a number for those who write the decimal point as a comma.
static bool has_comma(const char *cell)
{
    const char *s = cell + (*cell == '-' || *cell == '+');
    size_t whole = strspn(s, "0123456789");
    if (!whole || s[whole] != ',') return false;
    size_t part = strspn(s + whole + 1, "0123456789");
    return part && !s[whole + 1 + part];
}

static qn_result refuse_cell(const qn_tab_table *t, size_t row, size_t column, const char *expected)
{
    qn_result r = qn_fail(QN_ERR_FORMAT, "%s: line %lld, column %zu (%.60s): found '%.60s', expected %s", t->name,
                   (long long)t->lines[row], column + 1, t->header[column],
                   qn_tab_cell(t, row, column), expected);
    return qn_fail_printable(r);
}

// Whether the column is one of numbers; *strict_only tells that it holds no text at all.
static qn_result column_kind(const qn_tab_table *t, size_t column, bool *categorical)
{
    size_t numbers = 0, text = 0, commas = 0, missing = 0, a_comma = 0, infinite = 0, an_infinite = 0;
    double x;
    for (size_t r = 0; r < t->rows; r++) {
        const char *cell = qn_tab_cell(t, r, column);
        if (qn_tab_number(cell, &x)) {
            numbers++;
        } else if (is_missing(cell)) {
            missing++;
        } else if (is_infinite(cell)) {
            if (!infinite++) an_infinite = r;
        } else if (has_comma(cell)) {
            if (!commas++) a_comma = r;
        } else {
            text++;
        }
    }
    if (!text && commas)
        return refuse_cell(t, a_comma, column, "a number with a decimal point, not a comma");
    if (!text && infinite) return refuse_cell(t, an_infinite, column, "a finite number");
    *categorical = text > 0 || (!numbers && missing && strlen(qn_tab_cell(t, 0, column)));
    // A column without any cell is one of numbers, all missing.
    for (size_t r = 0; !text && !numbers && r < t->rows; r++)
        *categorical |= qn_tab_cell(t, r, column)[0] != 0;
    return QN_OK;
}

// Distinct texts of some rows in byte order.
static qn_result distinct(qn_arena *arena, const qn_tab_table *t, size_t column, const int32_t *rows,
                          int64_t count, const char ***out, size_t *found)
{
    const char **all = qn_malloc((size_t)(count + 1) * sizeof *all);
    if (!all) return qn_no_memory((size_t)count * sizeof *all);
    for (int64_t i = 0; i < count; i++)
        all[i] = qn_tab_cell(t, rows ? (size_t)rows[i] : (size_t)i, column);
    qsort(all, (size_t)count, sizeof *all, by_text);
    size_t n = 0;
    for (int64_t i = 0; i < count; i++)
        if (!n || strcmp(all[n - 1], all[i])) all[n++] = all[i];
    qn_result r = QN_OK;
    *out = qn_arena_alloc(arena, (n + 1) * sizeof **out);
    if (!*out) r = qn_no_memory(n * sizeof **out);
    for (size_t i = 0; r == QN_OK && i < n; i++) {
        (*out)[i] = qn_arena_printf(arena, "%s", all[i]);
        if (!(*out)[i]) r = qn_no_memory(strlen(all[i]));
    }
    *found = n;
    qn_free(all);
    return r;
}

static qn_result median_of(const qn_tab_table *t, size_t column, const int32_t *rows, int64_t count,
                           double *out)
{
    double *seen = qn_malloc((size_t)(count + 1) * sizeof *seen);
    if (!seen) return qn_no_memory((size_t)count * sizeof *seen);
    size_t n = 0;
    for (int64_t i = 0; i < count; i++)
        n += qn_tab_number(qn_tab_cell(t, rows ? (size_t)rows[i] : (size_t)i, column), &seen[n]);
    qsort(seen, n, sizeof *seen, by_value);
    *out = !n ? 0 : n % 2 ? seen[n / 2] : (seen[n / 2 - 1] + seen[n / 2]) / 2;
    qn_free(seen);
    return QN_OK;
}

// A cell as its column's features, before scaling.
static bool cell_features(const qn_tab_column *c, const char *cell, double *out)
{
    if (!c->categorical) {
        if (!qn_tab_number(cell, out)) *out = c->median;
        return true;
    }
    bool seen = false;
    for (size_t i = 0; i < c->level_count; i++) {
        out[i] = !strcmp(cell, c->levels[i]);
        seen |= out[i] == 1;
    }
    return seen;
}

static qn_result fit_classes(qn_tab_prep *p, const qn_tab_table *t, size_t label,
                             const int32_t *rows, int64_t count)
{
    if (p->regression) {
        double sum = 0, squares = 0, v;
        for (int64_t i = 0; i < count; i++) {
            size_t r = rows ? (size_t)rows[i] : (size_t)i;
            if (!qn_tab_number(qn_tab_cell(t, r, label), &v))
                return refuse_cell(t, r, label, "a number to be predicted");
            sum += v;
        }
        p->target_mean = sum / (double)count;
        for (int64_t i = 0; i < count; i++) {
            qn_tab_number(qn_tab_cell(t, rows ? (size_t)rows[i] : (size_t)i, label), &v);
            squares += (v - p->target_mean) * (v - p->target_mean);
        }
        p->target_deviation = sqrt(squares / (double)count);
        if (p->target_deviation == 0) p->target_deviation = 1;
        return QN_OK;
    }
    for (size_t r = 0; r < t->rows; r++)
        if (!qn_tab_cell(t, r, label)[0]) return refuse_cell(t, r, label, "a label");
    size_t classes;
    QN_TRY(distinct(&p->arena, t, label, NULL, (int64_t)t->rows, &p->classes, &classes));
    if (classes == 1)
        return qn_fail(QN_ERR_INVALID, "%s: column %s holds one class only ('%.60s'), expected at least two",
                       t->name, p->label, p->classes[0]);
    if (classes > QN_TAB_MOST_CLASSES)
        return qn_fail(QN_ERR_INVALID,
                       "%s: column %s holds %zu classes, expected at most %d (--regression predicts "
                       "numbers)",
                       t->name, p->label, classes, QN_TAB_MOST_CLASSES);
    p->class_count = (int)classes;
    return QN_OK;
}

static qn_result fit_columns(qn_tab_prep *p, const qn_tab_table *t, size_t label,
                             const int32_t *rows, int64_t count)
{
    p->columns = qn_arena_alloc(&p->arena, t->columns * sizeof *p->columns);
    if (!p->columns) return qn_no_memory(t->columns * sizeof *p->columns);
    for (size_t j = 0; j < t->columns; j++) {
        if (j == label) continue;
        qn_tab_column *c = &p->columns[p->column_count++];
        c->name = qn_arena_printf(&p->arena, "%s", t->header[j]);
        if (!c->name) return qn_no_memory(strlen(t->header[j]));
        QN_TRY(column_kind(t, j, &c->categorical));
        if (c->categorical)
            QN_TRY(distinct(&p->arena, t, j, rows, count, &c->levels, &c->level_count));
        else
            QN_TRY(median_of(t, j, rows, count, &c->median));
        c->first = p->features;
        c->count = c->categorical ? c->level_count : 1;
        p->features += c->count;
    }
    if (!p->features)
        return qn_fail(QN_ERR_INVALID, "%s: there is no column beside the label %s", t->name, p->label);
    if (p->features > QN_TAB_MOST_COLUMNS)
        return qn_fail(QN_ERR_INVALID,
                       "%s: its columns become %zu features, expected at most %d; a text column with "
                       "another value in every row is none to learn from",
                       t->name, p->features, QN_TAB_MOST_COLUMNS);
    return QN_OK;
}

static qn_result fit_scales(qn_tab_prep *p, const qn_tab_table *t, const int32_t *rows, int64_t count)
{
    p->mean = qn_arena_alloc(&p->arena, p->features * sizeof *p->mean);
    p->deviation = qn_arena_alloc(&p->arena, p->features * sizeof *p->deviation);
    double *v = qn_malloc(p->features * sizeof *v);
    if (!p->mean || !p->deviation || !v) {
        qn_free(v);
        return qn_no_memory(p->features * sizeof *v);
    }
    for (size_t k = 0; k < p->column_count; k++) {
        const qn_tab_column *c = &p->columns[k];
        size_t at = (size_t)qn_tab_column_find(t, c->name);
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t i = 0; i < count; i++) {
                size_t r = rows ? (size_t)rows[i] : (size_t)i;
                cell_features(c, qn_tab_cell(t, r, at), v);
                for (size_t f = 0; f < c->count; f++) {
                    double shift = v[f] - p->mean[c->first + f];
                    if (pass)
                        p->deviation[c->first + f] += shift * shift / (double)count;
                    else
                        v[f] /= (double)count;
                }
                // The mean is complete only after the first pass: sums are kept beside it.
                for (size_t f = 0; !pass && f < c->count; f++) p->deviation[c->first + f] += v[f];
            }
            for (size_t f = c->first; f < c->first + c->count; f++) {
                if (!pass) p->mean[f] = p->deviation[f];
                p->deviation[f] = pass ? sqrt(p->deviation[f]) : 0;
                // What is left of equal values is rounding, not spread.
                if (pass && p->deviation[f] <= 1e-12 * (1 + fabs(p->mean[f]))) p->deviation[f] = 1;
            }
        }
    }
    qn_free(v);
    return QN_OK;
}

qn_result qn_tab_prep_fit(const qn_tab_table *t, const char *label, bool regression,
                          const int32_t *rows, int64_t count, qn_tab_prep **out)
{
    *out = NULL;
    size_t at = t->columns - 1;
    if (!rows) count = (int64_t)t->rows;
    if (label) QN_TRY(qn_tab_column_need(t, label, &at));
    if (count < 2)
        return qn_fail(QN_ERR_INVALID, "%s: %lld rows to learn from, expected at least 2", t->name,
                       (long long)count);
    qn_tab_prep *p = qn_calloc(1, sizeof *p);
    if (!p) return qn_no_memory(sizeof *p);
    p->regression = regression;
    p->label = qn_arena_printf(&p->arena, "%s", t->header[at]);
    qn_result r = p->label ? QN_OK : qn_no_memory(strlen(t->header[at]));
    if (r == QN_OK) r = fit_classes(p, t, at, rows, count);
    if (r == QN_OK) r = fit_columns(p, t, at, rows, count);
    if (r == QN_OK) r = fit_scales(p, t, rows, count);
    if (r != QN_OK) {
        qn_tab_prep_free(&p);
        return r;
    }
    *out = p;
    return QN_OK;
}

void qn_tab_prep_free(qn_tab_prep **p)
{
    if (*p) qn_arena_free(&(*p)->arena);
    qn_free(*p);
    *p = NULL;
}

qn_result qn_tab_prep_apply(const qn_tab_prep *p, const qn_tab_table *t, float *x, bool *absent,
                            int64_t *unseen)
{
    double *v = qn_malloc(p->features * sizeof *v);
    if (!v) return qn_no_memory(p->features * sizeof *v);
    qn_result r = QN_OK;
    if (absent) memset(absent, 0, p->features * sizeof *absent);
    if (unseen) *unseen = 0;
    for (size_t k = 0; k < p->column_count && r == QN_OK; k++) {
        const qn_tab_column *c = &p->columns[k];
        size_t at = 0;
        int64_t found = qn_tab_column_find(t, c->name);
        if (found < 0 && !absent) {
            r = qn_tab_column_need(t, c->name, &at);
            break;
        }
        for (size_t f = 0; absent && f < c->count; f++) absent[c->first + f] = found < 0;
        for (size_t i = 0; i < t->rows && r == QN_OK; i++) {
            double number;
            const char *cell = found < 0 ? "" : qn_tab_cell(t, i, (size_t)found);
            if (!c->categorical && !is_missing(cell) && !qn_tab_number(cell, &number)) {
                r = refuse_cell(t, i, (size_t)found, "a number, as in training");
                break;
            }
            bool seen = cell_features(c, cell, v);
            if (unseen) *unseen += found >= 0 && !seen;
            for (size_t f = 0; f < c->count; f++)
                x[i * p->features + c->first + f] =
                    found < 0 ? 0
                              : (float)((v[f] - p->mean[c->first + f]) / p->deviation[c->first + f]);
        }
    }
    qn_free(v);
    return r;
}

qn_result qn_tab_prep_labels(const qn_tab_prep *p, const qn_tab_table *t, float *y)
{
    size_t at;
    QN_TRY(qn_tab_column_need(t, p->label, &at));
    for (size_t i = 0; i < t->rows; i++) {
        const char *cell = qn_tab_cell(t, i, at);
        double v;
        if (p->regression) {
            if (!qn_tab_number(cell, &v)) return refuse_cell(t, i, at, "a number");
            y[i] = (float)((v - p->target_mean) / p->target_deviation);
            continue;
        }
        const char **found = bsearch(&cell, p->classes, (size_t)p->class_count, sizeof cell, by_text);
        if (!found) return refuse_cell(t, i, at, "one of the classes of the training table");
        y[i] = (float)(found - p->classes);
    }
    return QN_OK;
}

const char *qn_tab_feature_name(qn_tab_prep *p, size_t feature)
{
    for (size_t k = 0; k < p->column_count; k++) {
        const qn_tab_column *c = &p->columns[k];
        if (feature < c->first || feature >= c->first + c->count) continue;
        if (!c->categorical) return c->name;
        return qn_arena_printf(&p->arena, "%s=%s", c->name, c->levels[feature - c->first]);
    }
    return "";
}
