// Charts: well-formed documents, the same bytes for the same data, scales that hold for any data.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include "io/svg.h"
#include "io/svg_scale.h"
#include "mem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------------------ documents

// A small XML reader: tags nest and close, attributes are quoted, text holds no raw '<' or '&'.
static void assert_well_formed(const char *s)
{
    const char *stack[32];
    size_t depth = 0;
    while (*s) {
        if (*s == '&') {
            size_t n = strcspn(s, ";");
            assert_true(n > 1 && n < 7);
            s += n;
        } else if (*s != '<') {
            assert_true((unsigned char)*s >= 0x20 || *s == '\n' || *s == '\t');
            s++;
            continue;
        } else if (s[1] == '/') {
            assert_true(depth > 0);
            size_t n = strcspn(s + 2, ">");
            assert_memory_equal(stack[--depth], s + 2, n);
            s += 2 + n;
        } else {
            assert_true(depth < 32);
            stack[depth++] = s + 1;
            for (s++; *s && *s != '>'; s++) {
                if (*s == '"') s = strchr(s + 1, '"');
                assert_non_null(s);
                assert_true(*s != '<');
            }
            if (s[-1] == '/') depth--;
        }
        assert_int_equal(*s == '>' || *s == ';', 1);
        s++;
    }
    assert_int_equal(depth, 0);
}

static size_t count_of(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, part)); s += strlen(part)) n++;
    return n;
}

// All numbers of all paths lie in the picture.
static void assert_inside(const char *text, double width, double height)
{
    for (const char *s = text; (s = strstr(s, " d=\""));) {
        s += 4;
        while (*s != '"') {
            char *end;
            double v = strtod(s, &end);
            if (end == s) {
                s++;
                continue;
            }
            assert_true(v >= -1 && v <= fmax(width, height) + 1);
            s = end;
        }
    }
}

static const char hostile[] = "<script>&\"'\x1b]0;\x01\xff\xc3(\xef\xbf\xbe]]>";

static void test_lines(void **state)
{
    (void)state;
    double x[] = { 0, 10, 20, 30, 40 }, y[] = { 5, 4, NAN, 2, INFINITY };
    qn_svg_series series[] = { { .name = hostile, .x = x, .y = y, .count = 5 },
                               { .name = "flat", .y = x, .count = 1 } };
    qn_svg_lines chart = { .title = hostile,
                           .x_label = hostile,
                           .y_label = hostile,
                           .series = series,
                           .series_count = 2 };
    qn_textbuf a = { 0 }, b = { 0 };
    qn_svg_lines_text(&chart, &a);
    qn_svg_lines_text(&chart, &b);
    assert_int_equal(qn_textbuf_status(&a), QN_OK);
    assert_string_equal(qn_textbuf_get(&a), qn_textbuf_get(&b));
    assert_well_formed(qn_textbuf_get(&a));
    assert_inside(qn_textbuf_get(&a), 760, 440);
    assert_null(strstr(qn_textbuf_get(&a), "<script>"));
    assert_non_null(strstr(qn_textbuf_get(&a), "&lt;script&gt;&amp;&quot;&#39;"));
    // The gap splits the first curve: two strokes begin in it, one in the single point.
    const char *curve = strstr(qn_textbuf_get(&a), "<path class=\"line s0\" d=\"M");
    curve = strstr(curve + 1, "<path class=\"line s0\"");
    assert_non_null(curve);
    size_t size = strcspn(curve, ">");
    char *only = qn_strndup(curve, size);
    assert_int_equal(count_of(only, "M"), 2);
    assert_int_equal(count_of(only, "L"), 1);
    qn_free(only);
    qn_textbuf_free(&a);
    qn_textbuf_free(&b);
}

static void test_nothing_to_show(void **state)
{
    (void)state;
    double bad[] = { NAN, -INFINITY, -1, 0 };
    qn_svg_series series[] = { { .y = bad, .count = 4 } };
    qn_textbuf t = { 0 };
    qn_svg_lines_text(&(qn_svg_lines){ 0 }, &t);
    assert_non_null(strstr(qn_textbuf_get(&t), "no data"));
    qn_svg_lines_text(&(qn_svg_lines){ .series = series, .series_count = 1, .y_log = true }, &t);
    qn_svg_heat_text(&(qn_svg_heat){ 0 }, &t);
    qn_svg_heat_text(&(qn_svg_heat){ .values = bad, .rows = 1, .columns = 2 }, &t);
    qn_svg_bars_text(&(qn_svg_bars){ 0 }, &t);
    assert_int_equal(count_of(qn_textbuf_get(&t), "no data"), 5);
    assert_int_equal(count_of(qn_textbuf_get(&t), "</svg>\n"), 5);
    qn_textbuf_free(&t);
}

// A million points draw as small a picture as a few thousand, with the same extremes.
static void test_thinning(void **state)
{
    (void)state;
    size_t count = 1000000;
    double *y = qn_malloc(count * sizeof *y);
    assert_non_null(y);
    for (size_t i = 0; i < count; i++) y[i] = sin((double)i * 1e-5) + (double)(i % 7) * 0.01;
    y[500000] = 9; // a spike of one point
    qn_svg_series series[] = { { .y = y, .count = count } };
    qn_textbuf t = { 0 };
    qn_svg_lines_text(
        &(qn_svg_lines){ .series = series, .series_count = 1, .y_min = -2, .y_max = 9 }, &t);
    assert_true(t.size < 100000);
    assert_well_formed(qn_textbuf_get(&t));
    assert_non_null(strstr(qn_textbuf_get(&t), " 20L")); // the spike reaches the top of the plot
    qn_textbuf_free(&t);
    qn_free(y);
}

static void test_heat(void **state)
{
    (void)state;
    double v[] = { 0, 1, 2, NAN, 3, 3 };
    const char *rows[] = { hostile, NULL }, *cols[] = { "a", hostile, NULL };
    qn_textbuf t = { 0 };
    qn_svg_heat_text(&(qn_svg_heat){ .title = hostile,
                                     .values = v,
                                     .rows = 2,
                                     .columns = 3,
                                     .row_names = rows,
                                     .column_names = cols,
                                     .value_label = "v" },
                     &t);
    assert_well_formed(qn_textbuf_get(&t));
    assert_inside(qn_textbuf_get(&t), 760, 560);
    assert_int_equal(count_of(qn_textbuf_get(&t), "<path class=\"none\""), 1);
    // 0, 1, 2 and 3 have a shade each; the two 3s are joined.
    const char *cells = strstr(qn_textbuf_get(&t), "<g class=\"cells\">");
    char *only = qn_strndup(cells, (size_t)(strstr(cells, "</g>") - cells));
    assert_int_equal(count_of(only, "<path fill="), 4);
    assert_int_equal(count_of(only, "z"), 5);
    qn_free(only);
    qn_textbuf_free(&t);
}

static void test_large_heat(void **state)
{
    (void)state;
    size_t rows = 300, columns = 5000;
    double *v = qn_malloc(rows * columns * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < rows * columns; i++) v[i] = i % 2 ? DBL_MAX : -DBL_MAX;
    qn_textbuf t = { 0 };
    qn_svg_heat_text(
        &(qn_svg_heat){ .values = v, .rows = rows, .columns = columns, .diverging = true }, &t);
    assert_well_formed(qn_textbuf_get(&t));
    assert_true(t.size < 4000000);
    qn_textbuf_free(&t);
    qn_free(v);
}

static void test_bars(void **state)
{
    (void)state;
    const char *names[] = { "up", hostile, "gap", NULL };
    double v[] = { 10, -5, NAN, 0 };
    qn_textbuf t = { 0 };
    qn_svg_bars_text(&(qn_svg_bars){ .names = names, .values = v, .count = 4, .unit = "<u>" }, &t);
    assert_well_formed(qn_textbuf_get(&t));
    assert_int_equal(count_of(qn_textbuf_get(&t), "class=\"bar\""), 2);
    assert_int_equal(count_of(qn_textbuf_get(&t), "class=\"minus\""), 1);
    assert_non_null(strstr(qn_textbuf_get(&t), "10 &lt;u&gt;"));
    qn_textbuf_free(&t);
}

static void test_no_memory(void **state)
{
    (void)state;
    double y[] = { 1, 2, 3 };
    qn_svg_series series[] = { { .name = "y", .y = y, .count = 3 } };
    int64_t n = 1;
    for (;; n++) {
        qn_textbuf t = { 0 };
        qn_alloc_fail_at(n);
        qn_svg_lines_text(&(qn_svg_lines){ .series = series, .series_count = 1 }, &t);
        qn_alloc_fail_at(0);
        qn_result r = qn_textbuf_status(&t);
        qn_textbuf_free(&t);
        if (r == QN_OK) break;
        assert_int_equal(r, QN_ERR_NO_MEMORY);
    }
    assert_true(n > 2);
}

// ------------------------------------------------------------------------------------ scales

static void test_nice_steps(void **state)
{
    (void)state;
    static const double rows[][2] = { { 1, 1 },       { 1.1, 2 },       { 2.1, 5 },  { 5.1, 10 },
                                      { 0.03, 0.05 }, { 0.001, 0.001 }, { 7e8, 1e9 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_true(fabs(qn_nice_step(rows[i][0]) / rows[i][1] - 1) < 1e-12);
    }
}

// Whatever range: some ticks, in order, on the axis, no label twice.
static void test_ticks(void **state)
{
    (void)state;
    static const double limits[][2] = {
        { 0, 1 },
        { -1, 1 },
        { 0, 20000 },
        { 3, 3 },
        { 0, 0 },
        { -7e-9, 3e-9 },
        { 1e6, 1.002e6 },
        { -DBL_MAX, DBL_MAX },
        { 5e-324, 1e-323 },
        { 1e15, 1e15 + 2 },
        { 0.1, 0.30000000000000004 },
        { -3, -2.9 },
        { 1e-5, 1e9 },
        { 2, 90 },
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        for (int log = 0; log < 2; log++) {
            if (log && !(limits[i][0] > 0)) continue;
            qn_scale s = qn_scale_start(log);
            qn_scale_see(&s, limits[i][0]);
            qn_scale_see(&s, NAN);
            qn_scale_see(&s, limits[i][1]);
            qn_scale_finish(&s, 100, 600, false);
            qn_ticks t = qn_scale_ticks(&s, 6);
            if (!t.count) fail_msg("range %zu has no tick", i);
            for (size_t k = 0; k < t.count; k++) {
                double at = qn_scale_at(&s, t.value[k]);
                assert_true(at >= 100 - 1e-3 && at <= 600 + 1e-3);
                assert_true(strlen(t.label[k]) > 0);
                if (!k) continue;
                assert_true(t.value[k] > t.value[k - 1]);
                if (!strcmp(t.label[k], t.label[k - 1])) {
                    fail_msg("range %zu: two ticks are called %s", i, t.label[k]);
                }
            }
        }
    }
}

static void test_tick_labels(void **state)
{
    (void)state;
    static const struct {
        double v, step, largest;
        const char *label;
    } rows[] = {
        { 0.25, 0.05, 1, "0.25" },     { 3, 1, 10, "3" },           { 5000, 5000, 20000, "5k" },
        { 15000, 5000, 20000, "15k" }, { 1.5e6, 5e5, 2e6, "1.5M" }, { 2e-5, 1e-5, 1e-4, "0.00002" },
        { 2e-7, 1e-7, 1e-6, "2e-07" }, { 1e-17, 0.1, 1, "0" },      { 12345, 1, 12350, "12345" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[24];
        qn_format_tick(rows[i].v, rows[i].step, rows[i].largest, text);
        assert_string_equal(text, rows[i].label);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),      cmocka_unit_test(test_nothing_to_show),
        cmocka_unit_test(test_thinning),   cmocka_unit_test(test_heat),
        cmocka_unit_test(test_large_heat), cmocka_unit_test(test_bars),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_nice_steps),
        cmocka_unit_test(test_ticks),      cmocka_unit_test(test_tick_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
