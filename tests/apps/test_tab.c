// Tables: what CSV is refused and how, preprocessing, scores, model files, training on the device.
#include "scratch.h"
#include "tab/baseline.h"
#include "tab/fit.h"
#include "tab/model.h"
#include "tab/score.h"

#include <math.h>

// ------------------------------------------------------------------------------ CSV

static qn_tab_table *table_of(const char *text)
{
    qn_tab_table *t;
    assert_ok(qn_tab_table_parse("t.csv", text, strlen(text), &t));
    return t;
}

static void bad_tables_get_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        { "", "t.csv: the file is empty" },
        { "\n\n", "t.csv: the file is empty" },
        { "1,2,3\n4,5,6\n", "line 1 holds only numbers, expected the columns' names" },
        { "a,b\n1,2\n3\n", "t.csv: line 3 has 1 columns, expected the header's 2" },
        { "a,b\n1,2,3\n", "t.csv: line 2 has more than the header's 2 columns" },
        { "a,\n1,2\n", "line 1, column 2: the name is empty" },
        { "a,b,a\n1,2,3\n", "line 1: two columns are called 'a'" },
        { "a,b\n1,\"x\n2,y\n", "the quote that opens on line 2 is never closed" },
        { "a,b\n\"x\n\ny\",1\n1,q\"q\n", "line 5, column 2: a quote where none may stand" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_tab_table *t = (qn_tab_table *)&t;
        assert_fails(qn_tab_table_parse("t.csv", bad[i].text, strlen(bad[i].text), &t), QN_ERR_FORMAT,
                     bad[i].message);
        assert_null(t);
    }
    qn_tab_table *t;
    assert_fails(qn_tab_table_parse("t.csv", "a,b\n1,\0\n", 8, &t), QN_ERR_FORMAT, "a NUL byte");
    assert_fails(qn_tab_table_open(scratch("no such.csv"), &t), QN_ERR_IO, "no such.csv");
}

static void tables_are_read_as_they_are(void **state)
{
    (void)state;
    qn_tab_table *t = table_of("\xef\xbb\xbf" "a;\"b;c\"\r\n\"x\ny\";\"q\"\"q\"\r\n;2\r\n");
    assert_int_equal(t->columns, 2);
    assert_int_equal(t->rows, 2);
    assert_string_equal(t->header[0], "a");
    assert_string_equal(t->header[1], "b;c");
    assert_string_equal(qn_tab_cell(t, 0, 0), "x\ny");
    assert_string_equal(qn_tab_cell(t, 0, 1), "q\"q");
    assert_string_equal(qn_tab_cell(t, 1, 0), "");
    assert_int_equal(t->lines[1], 4);
    qn_tab_table_close(&t);
    size_t n = 10000; // columns
    char *text = malloc(n * 16), *at = text;
    for (size_t row = 0; row < 2; row++)
        for (size_t c = 0; c < n; c++)
            at += sprintf(at, row ? "%zu%s" : "c%zu%s", c, c + 1 < n ? "," : "\n");
    t = table_of(text);
    assert_int_equal(t->columns, n);
    assert_string_equal(qn_tab_cell(t, 0, n - 1), "9999");
    qn_tab_table_close(&t);
    free(text);
}

static void numbers_are_decimal(void **state)
{
    (void)state;
    double x;
    static const char *const good[] = { "1", "-2.5", "1e-3", " 4", "5 " };
    static const char *const bad[] = { "", "1,5", "0x10", "nan", "inf", "1 2", "1e999", "--1" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(qn_tab_number(good[i], &x));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(qn_tab_number(bad[i], &x));
}

// ------------------------------------------------------------------------------ preprocessing

static void bad_columns_get_a_sentence(void **state)
{
    (void)state;
    static const struct {
        const char *text, *label;
        bool regression;
        qn_result code;
        const char *message;
    } bad[] = {
        { "a,y\n1,x\n2,x\n", NULL, false, QN_ERR_INVALID, "column y holds one class only ('x')" },
        { "a,y\n1,x\n2,\n", NULL, false, QN_ERR_FORMAT, "line 3, column 2 (y): found '', expected a label" },
        { "a,y\n1,x\ninf,y\n", NULL, false, QN_ERR_FORMAT, "line 3, column 1 (a): found 'inf', expected a finite" },
        { "a;y\n1,5;x\n2;y\n", NULL, false, QN_ERR_FORMAT, "line 2, column 1 (a): found '1,5', expected a number with a decimal point" },
        { "age,y\n1,x\n2,y\n", "agee", false, QN_ERR_INVALID, "there is no column 'agee'; the nearest is 'age'" },
        { "age,y\n1,x\n2,y\n", "price", false, QN_ERR_INVALID, "there is no column 'price' among its 2" },
        { "y\nx\nz\n", NULL, false, QN_ERR_INVALID, "there is no column beside the label y" },
        { "a,y\n1,x\n", NULL, false, QN_ERR_INVALID, "1 rows to learn from, expected at least 2" },
        { "a,y\n", NULL, false, QN_ERR_INVALID, "0 rows to learn from" },
        { "a,y\n1,2\n2,x\n", NULL, true, QN_ERR_FORMAT, "line 3, column 2 (y): found 'x', expected a number" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_tab_table *t = table_of(bad[i].text);
        qn_tab_prep *p = NULL;
        assert_fails(qn_tab_prep_fit(t, bad[i].label, bad[i].regression, NULL, 0, &p), bad[i].code,
                     bad[i].message);
        assert_null(p);
        qn_tab_table_close(&t);
    }
}

// Numbers with holes, a category, a column of one value, an empty one; all by the training rows alone.
static void columns_become_features(void **state)
{
    (void)state;
    qn_tab_table *t = table_of("n,c,one,empty,y\n1,red,7,,a\nNA,blue,7,,b\n3,red,7,,a\n100,green,7,,b\n");
    static const int32_t rows[] = { 0, 1, 2 };
    qn_tab_prep *p;
    assert_ok(qn_tab_prep_fit(t, NULL, false, rows, 3, &p));
    assert_int_equal(p->features, 5);
    assert_int_equal(p->class_count, 2);
    assert_string_equal(qn_tab_feature_name(p, 1), "c=blue");
    assert_string_equal(qn_tab_feature_name(p, 2), "c=red");
    float x[4 * 5], y[4];
    int64_t unseen;
    bool absent[5];
    assert_ok(qn_tab_prep_apply(p, t, x, absent, &unseen));
    assert_ok(qn_tab_prep_labels(p, t, y));
    assert_int_equal(unseen, 1); // green
    double s = sqrt(2.0 / 3);    // of 1, 2 (the median), 3
    const double n[4] = { -1 / s, 0, 1 / s, 98 / s };
    for (int i = 0; i < 4; i++) {
        assert_true(fabs((double)x[5 * i] - n[i]) < 1e-5);
        assert_true(x[5 * i + 3] == 0 && x[5 * i + 4] == 0);
        assert_int_equal(y[i], i % 2);
    }
    assert_true(x[1] == x[5 * 3 + 1]); // no blue either way
    qn_tab_table *less = table_of("c,y\nred,a\n");
    assert_ok(qn_tab_prep_apply(p, less, x, absent, NULL));
    assert_true(absent[0] && !absent[1] && !absent[2] && absent[3] && absent[4]);
    assert_fails(qn_tab_prep_apply(p, less, x, NULL, NULL), QN_ERR_INVALID, "no column 'n'");
    qn_tab_table *text = table_of("n,c,one,empty,y\nhigh,red,7,,a\n");
    assert_fails(qn_tab_prep_apply(p, text, x, absent, NULL), QN_ERR_FORMAT,
                 "line 2, column 1 (n): found 'high', expected a number, as in training");
    qn_tab_table *other = table_of("n,c,one,empty,y\n1,red,7,,z\n");
    assert_fails(qn_tab_prep_labels(p, other, y), QN_ERR_FORMAT, "found 'z', expected one of the classes");
    qn_tab_table_close(&other);
    qn_tab_table_close(&text);
    qn_tab_table_close(&less);
    qn_tab_prep_free(&p);
    qn_tab_table_close(&t);
}

// ------------------------------------------------------------------------------ scores

static void scores_are_what_they_say(void **state)
{
    (void)state;
    static const float y[] = { 0, 0, 0, 1 };
    static const double p[] = { 0.9, 0.1, 0.6, 0.4, 0.3, 0.7, 0.4, 0.6 };
    qn_tab_scores *s = malloc(sizeof *s);
    assert_ok(qn_tab_score(y, p, 4, 2, s));
    assert_true(fabs(s->accuracy - 0.75) < 1e-12);
    assert_true(fabs(s->balanced_accuracy - (2.0 / 3 + 1) / 2) < 1e-12);
    assert_true(fabs(s->auc - 2.0 / 3) < 1e-12); // of 0.6 against 0.1, 0.4, 0.7
    assert_true(fabs(s->log_loss + (log(0.9) + log(0.6) + log(0.3) + log(0.6)) / 4) < 1e-12);
    // bins: 0.9 right; 0.6, 0.6 right; 0.7 wrong
    assert_true(fabs(s->calibration_error - (0.1 + 2 * 0.4 + 0.7) / 4) < 1e-12);
    assert_int_equal(s->confusion[0 * 2 + 1], 1);
    static const double v[] = { 1, 2, 3 }, g[] = { 1, 2, 5 };
    qn_tab_score_values(v, g, 3, s);
    assert_true(fabs(s->r2 + 1) < 1e-12 && fabs(s->rmse - sqrt(4.0 / 3)) < 1e-12);
    free(s);
    // Logits three times too large: the best temperature is about three.
    double z[200 * 2];
    float label[200];
    for (int i = 0; i < 200; i++) {
        double odds = (i % 10 - 4.5) / 2;
        z[2 * i] = 0;
        z[2 * i + 1] = 3 * odds;
        label[i] = (i / 10 + 0.5) / 20 < 1 / (1 + exp(-odds));
    }
    double t = qn_tab_temperature(z, label, 200, 2);
    assert_true(t > 2.5 && t < 3.5);
}

static void folds_are_stratified(void **state)
{
    (void)state;
    float y[37];
    int32_t rows[37];
    int fold[37], counts[3][4] = { { 0 } };
    for (int i = 0; i < 37; i++) {
        rows[i] = i;
        y[i] = i == 36 ? 2 : (float)(i % 3 == 0); // the last class has one row
    }
    qn_tab_data d = { .rows = 37, .columns = 1, .y = y, .classes = 3 };
    qn_tab_problem p = { &d, rows, 37 };
    qn_tab_folds(&p, 4, 5, fold);
    for (int i = 0; i < 37; i++) counts[(int)y[i]][fold[i]]++;
    for (int f = 0; f < 4; f++) {
        assert_in_range(counts[0][f], 6, 6);
        assert_in_range(counts[1][f], 3, 3);
        assert_in_range(counts[2][f], 0, 1);
    }
}

// ------------------------------------------------------------------------------ training

static const qn_tab_settings small = { .subsample = 0.5, .hidden = 8, .depth = 1, .views = 12,
                                       .views_per_step = 1, .epochs = 30, .batch = 16, .rate = 3e-3,
                                       .even = true, .balance = true };

// A table whose class is the sign of one column; the last class's row stands alone.
static qn_tab_table *make_table(void)
{
    char *text = malloc(1 << 14), *at = text;
    uint32_t s = 7;
    at += sprintf(at, "a,b,c,d,e,y\n");
    for (int i = 0; i < 60; i++) {
        double v[5];
        for (int c = 0; c < 5; c++) {
            s = s * 1664525u + 1013904223u;
            v[c] = (double)(s >> 8) / (1 << 24) - 0.5;
            at += sprintf(at, "%.4f,", v[c]);
        }
        at += sprintf(at, "%s\n", v[2] + 0.6 * v[3] > 0 ? "yes" : "no");
    }
    qn_tab_table *t = table_of(text);
    free(text);
    return t;
}

typedef struct trained {
    qn_tab_table *t;
    qn_tab_model m;
    float *x, *y;
} trained;

static bool count_calls(void *user, double done, double total, double loss)
{
    int *left = user;
    assert_true(done <= total && isfinite(loss));
    return (*left)-- > 0;
}

static trained train(uint64_t seed, int calls, bool *stopped)
{
    trained r = { .t = make_table() };
    r.m = (qn_tab_model){ .settings = small, .seed = seed, .temperature = 1.5, .inner_score = NAN };
    assert_ok(qn_tab_prep_fit(r.t, NULL, false, NULL, 0, &r.m.prep));
    r.x = malloc(60 * 5 * sizeof *r.x);
    r.y = malloc(60 * sizeof *r.y);
    assert_ok(qn_tab_prep_apply(r.m.prep, r.t, r.x, NULL, NULL));
    assert_ok(qn_tab_prep_labels(r.m.prep, r.t, r.y));
    static int32_t rows[60];
    for (int i = 0; i < 60; i++) rows[i] = i;
    qn_tab_data d = { .rows = 60, .columns = 5, .x = r.x, .y = r.y, .classes = 2 };
    qn_tab_job jobs[2];
    for (int i = 0; i < 2; i++)
        jobs[i] = (qn_tab_job){ .data = &d, .rows = rows, .row_count = 60, .settings = &small,
                                .seed = seed + (uint64_t)i };
    r.m.nets = calloc(2, sizeof *r.m.nets);
    r.m.net_count = 2;
    qn_tab_hooks hooks = { .progress = count_calls, .user = &calls };
    assert_ok(qn_tab_train(qn_test_device(), jobs, 2, &hooks, r.m.nets, stopped));
    return r;
}

static void trained_free(trained *r)
{
    qn_tab_model_free(&r->m);
    qn_tab_table_close(&r->t);
    free(r->x);
    free(r->y);
}

static void equal_seeds_give_equal_bits(void **state)
{
    (void)state;
    bool stopped;
    trained a = train(3, 1000, &stopped), b = train(3, 1000, &stopped);
    assert_false(stopped);
    size_t bytes = (size_t)a.m.nets[0].parameters * sizeof(float);
    for (int i = 0; i < 2; i++) assert_memory_equal(a.m.nets[i].theta, b.m.nets[i].theta, bytes);
    assert_true(memcmp(a.m.nets[0].theta, a.m.nets[1].theta, bytes) != 0);
    qn_tab_prediction p;
    assert_ok(qn_tab_predict(qn_test_device(), &a.m, a.t, &p));
    qn_tab_scores *s = malloc(sizeof *s);
    assert_ok(qn_tab_score(a.y, p.out, 60, 2, s));
    if (!(s->balanced_accuracy > 0.8)) fail_msg("balanced accuracy %g, loss %g", s->balanced_accuracy, a.m.nets[0].loss);
    free(s);
    double importance[5];
    assert_ok(qn_tab_importance(qn_test_device(), &a.m, a.x, a.y, 60, importance));
    for (int c = 0; c < 5; c++) assert_true(importance[2] >= importance[c]);
    qn_tab_prediction_free(&p);
    trained_free(&a);
    trained_free(&b);
}

static void an_interrupted_fit_keeps_what_there_is(void **state)
{
    (void)state;
    bool stopped;
    trained a = train(3, 0, &stopped);
    assert_true(stopped);
    assert_non_null(a.m.nets[0].theta);
    assert_true(isfinite(a.m.nets[0].loss));
    trained_free(&a);
}

static void models_come_back_from_files(void **state)
{
    (void)state;
    bool stopped;
    trained a = train(1, 1000, &stopped);
    const char *path = scratch("m.tab");
    assert_ok(qn_tab_model_save(&a.m, path));
    qn_tab_model m;
    assert_ok(qn_tab_model_load(path, &m));
    qn_tab_prediction p, q, less;
    assert_ok(qn_tab_predict(qn_test_device(), &a.m, a.t, &p));
    assert_ok(qn_tab_predict(qn_test_device(), &m, a.t, &q));
    assert_memory_equal(p.out, q.out, 60 * 2 * sizeof(double));
    assert_int_equal(p.views_used, 24);

    // Without a column only the views that do not see it have a say; without any, nobody.
    qn_tab_table *t = table_of("a,b,c,d\n0.1,0.2,0.3,0.1\n");
    assert_ok(qn_tab_predict(qn_test_device(), &m, t, &less));
    assert_in_range(less.views_used, 1, 23);
    assert_true(fabs(less.out[0] + less.out[1] - 1) < 1e-9 && less.doubt[0] >= 0);
    qn_tab_prediction_free(&less);
    qn_tab_table_close(&t);
    t = table_of("q\n1\nx\n");
    assert_fails(qn_tab_predict(qn_test_device(), &m, t, &less), QN_ERR_INVALID,
                 "every one of the 24 views needs a column that is missing");
    qn_tab_table_close(&t);

    // Damage of every kind ends in a sentence.
    char *data;
    size_t size;
    assert_ok(qn_read_file(path, 1 << 24, &data, &size));
    char *format = NULL;
    for (size_t i = 0; i + 20 < size && !format; i++)
        if (!memcmp(data + i, "\\\"format\\\":1", 12)) format = data + i;
    assert_non_null(format);
    format[11] = '7';
    scratch_write("newer.tab", data, size);
    qn_tab_model bad;
    assert_fails(qn_tab_model_load(scratch("newer.tab"), &bad), QN_ERR_FORMAT,
                 "format 7 of another version of quoin, expected 1");
    scratch_write("cut.tab", data, size / 2);
    assert_int_equal(qn_tab_model_load(scratch("cut.tab"), &bad), QN_ERR_FORMAT);
    scratch_write_text("text.tab", "hello, this is no model");
    assert_int_equal(qn_tab_model_load(scratch("text.tab"), &bad), QN_ERR_FORMAT);
    qn_free(data);
    qn_tab_prediction_free(&p);
    qn_tab_prediction_free(&q);
    qn_tab_model_free(&m);
    trained_free(&a);
}

// Ridge regression by its normal equations; d at most 8.
static void ridge(const float *x, const float *y, const int32_t *rows, int count, int d, double *w)
{
    double a[8][9] = { { 0 } };
    for (int k = 0; k < count; k++)
        for (int i = 0; i < d; i++) {
            const float *r = x + rows[k] * d;
            for (int j = 0; j < d; j++) a[i][j] += (double)r[i] * (double)r[j];
            a[i][d] += (double)r[i] * (double)y[rows[k]];
        }
    for (int i = 0; i < d; i++) a[i][i] += 1;
    for (int i = 0; i < d; i++) // positive definite: no pivoting
        for (int k = 0; k < d; k++) {
            double f = a[k][i] / a[i][i];
            for (int j = i; k != i && j <= d; j++) a[k][j] -= f * a[i][j];
        }
    for (int i = 0; i < d; i++) w[i] = a[i][d] / a[i][i];
}

// Values that depend on columns and on a product of two: not below a ridge regression on new rows.
static void regression_is_not_below_ridge(void **state)
{
    (void)state;
    enum { N = 200, TRAIN = 140, D = 5 };
    static float x[N * D], y[N];
    static int32_t rows[N];
    uint32_t s = 11;
    double w[8], v[N], linear[N], out[N] = { 0 };
    for (int i = 0; i < N; i++) {
        for (int c = 0; c < D; c++) {
            double sum = -1.5;
            for (int k = 0; k < 3; k++) {
                s = s * 1664525u + 1013904223u;
                sum += (double)(s >> 8) / (1 << 24);
            }
            x[i * D + c] = (float)(2 * sum);
        }
        const float *r = x + i * D;
        y[i] = 0.5f * r[0] - 0.3f * r[1] + 0.4f * r[2] * r[3] + 0.2f * fabsf(r[4]);
        rows[i] = i;
        v[i] = (double)y[i];
    }
    ridge(x, y, rows, TRAIN, D, w);
    for (int i = 0; i < N; i++) {
        linear[i] = 0;
        for (int c = 0; c < D; c++) linear[i] += w[c] * (double)x[i * D + c];
    }
    qn_tab_settings settings = small;
    settings.views = 20;
    settings.subsample = 0.8;
    settings.hidden = 10;
    settings.epochs = 60;
    settings.rate = 3e-3;
    settings.batch = 35;
    settings.anneal = true;
    qn_tab_data d = { .rows = N, .columns = D, .x = x, .y = y };
    qn_tab_job job = { .data = &d, .rows = rows, .row_count = TRAIN, .settings = &settings };
    qn_tab_net net;
    assert_ok(qn_tab_train(qn_test_device(), &job, 1, NULL, &net, NULL));
    assert_ok(qn_tab_add_logits(qn_test_device(), &net, x, N, out));
    qn_tab_scores *ours = malloc(sizeof *ours), *theirs = malloc(sizeof *theirs);
    qn_tab_score_values(v + TRAIN, out + TRAIN, N - TRAIN, ours);
    qn_tab_score_values(v + TRAIN, linear + TRAIN, N - TRAIN, theirs);
    if (!(ours->r2 >= theirs->r2)) fail_msg("R2 %g, ridge %g", ours->r2, theirs->r2);

    // The linear baseline is a ridge regression, too, but for its intercept.
    double based[N];
    qn_tab_problem p = { &d, rows, TRAIN };
    qn_tab_baseline b = { 0 };
    assert_ok(qn_tab_baseline_run(qn_test_device(), &p, &b, x, N, based));
    qn_tab_scores *base = malloc(sizeof *base);
    qn_tab_score_values(v + TRAIN, based + TRAIN, N - TRAIN, base);
    assert_true(base->r2 > theirs->r2 - 0.1);
    free(ours);
    free(theirs);
    free(base);
    qn_tab_net_free(&net);
}

// Choosing looks at the problem's rows alone: whatever the others hold, the same comes out.
static void other_rows_are_never_seen(void **state)
{
    (void)state;
    bool stopped;
    trained a = train(2, 0, &stopped);
    static int32_t rows[40];
    for (int i = 0; i < 40; i++) rows[i] = i;
    qn_tab_data d = { .rows = 60, .columns = 5, .x = a.x, .y = a.y, .classes = 2 };
    qn_tab_settings grid[2] = { small, small };
    grid[0].epochs = grid[1].epochs = 4;
    grid[1].rate = 1e-2;
    qn_tab_problem p = { &d, rows, 40 };
    qn_tab_fit_opts o = { .grid = grid, .grid_count = 2, .folds = 2, .seeds = 1, .seed = 9 };
    qn_tab_choice before, after;
    assert_ok(qn_tab_fit(qn_test_device(), &p, 1, &o, NULL, &before));
    for (int i = 40 * 5; i < 60 * 5; i++) a.x[i] = 1e3f;
    for (int i = 40; i < 60; i++) a.y[i] = 1 - a.y[i];
    assert_ok(qn_tab_fit(qn_test_device(), &p, 1, &o, NULL, &after));
    assert_memory_equal(before.scores, after.scores, 2 * sizeof(double));
    assert_memory_equal(before.nets[0].theta, after.nets[0].theta,
                        (size_t)before.nets[0].parameters * sizeof(float));
    qn_tab_choice_free(&before, 1);
    qn_tab_choice_free(&after, 1);
    trained_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_tables_get_a_sentence),
        cmocka_unit_test(tables_are_read_as_they_are),
        cmocka_unit_test(numbers_are_decimal),
        cmocka_unit_test(bad_columns_get_a_sentence),
        cmocka_unit_test(columns_become_features),
        cmocka_unit_test(scores_are_what_they_say),
        cmocka_unit_test(folds_are_stratified),
        cmocka_unit_test(equal_seeds_give_equal_bits),
        cmocka_unit_test(an_interrupted_fit_keeps_what_there_is),
        cmocka_unit_test(models_come_back_from_files),
        cmocka_unit_test(regression_is_not_below_ridge),
        cmocka_unit_test(other_rows_are_never_seen),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove) + qn_device_finish();
}
