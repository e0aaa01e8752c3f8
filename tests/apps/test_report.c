// Tables in their three forms, the progress line, durations.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include "cli/progress.h"
#include "cli/report.h"
#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const qn_column columns[] = {
    { .key = "name" },
    { .key = "step_time", .type = QN_COLUMN_REAL, .digits = 3 },
    { .key = "tokens", .type = QN_COLUMN_INT },
    { .key = "memory", .type = QN_COLUMN_BYTES },
    { .key = "ok", .type = QN_COLUMN_BOOL },
};
#define COLUMNS (sizeof columns / sizeof *columns)

static const qn_value rows[][COLUMNS] = {
    { QN_TEXT("caf\xc3\xa9"), QN_REAL(0.123456789), QN_INT(-5), QN_INT(1536), QN_INT(true) },
    { QN_TEXT("a,\"b\"\n\x1b"), QN_REAL(NAN), QN_INT(1234567), QN_INT(0), QN_INT(false) },
    { QN_TEXT(NULL), QN_NONE, QN_NONE, QN_NONE, QN_NONE },
};

// The report as text; *status is that of the failing call.
static char *print(qn_report_format format, size_t count, qn_result *status)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    qn_report *r;
    *status = qn_report_open(f, format, columns, COLUMNS, &r);
    for (size_t i = 0; i < count && *status == QN_OK; i++) *status = qn_report_row(r, rows[i]);
    qn_result closed = qn_report_close(&r);
    if (*status == QN_OK) *status = closed;
    assert_null(r);
    fclose(f);
    return text;
}

static void expect(qn_report_format format, size_t count, const char *expected)
{
    qn_result status;
    char *text = print(format, count, &status);
    assert_int_equal(status, QN_OK);
    assert_string_equal(text, expected);
    free(text);
}

static void test_text(void **state)
{
    (void)state;
    expect(QN_REPORT_TEXT, 3,
           "name     step time   tokens    memory   ok\n"
           "caf\xc3\xa9         0.123       -5  1.50 KiB  yes\n"
           "a,\"b\"          nan  1234567       0 B   no\n"
           "-                -        -         -    -\n");
    expect(QN_REPORT_TEXT, 0, "name  step time  tokens  memory  ok\n");
}

static void test_csv(void **state)
{
    (void)state;
    expect(QN_REPORT_CSV, 3,
           "name,step_time,tokens,memory,ok\n"
           "caf\xc3\xa9,0.123456789,-5,1536,true\n"
           "\"a,\"\"b\"\"\n\x1b\",,1234567,0,false\n"
           ",,,,\n");
    expect(QN_REPORT_CSV, 0, "name,step_time,tokens,memory,ok\n");
}

static void test_json(void **state)
{
    (void)state;
    expect(QN_REPORT_JSON, 3,
           "{\"name\":\"caf\xc3\xa9\",\"step_time\":0.123456789,\"tokens\":-5,\"memory\":1536,"
           "\"ok\":true}\n"
           "{\"name\":\"a,\\\"b\\\"\\n\\u001b\",\"step_time\":null,\"tokens\":1234567,\"memory\":0,"
           "\"ok\":false}\n"
           "{\"name\":null,\"step_time\":null,\"tokens\":null,\"memory\":null,\"ok\":null}\n");
    expect(QN_REPORT_JSON, 0, "");
}

static void test_broken_utf8(void **state)
{
    (void)state;
    static const qn_column one[] = { { .key = "x" } };
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    qn_report *r;
    assert_int_equal(qn_report_open(f, QN_REPORT_JSON, one, 1, &r), QN_OK);
    assert_int_equal(qn_report_row(r, (qn_value[]){ QN_TEXT("\xff\xc3(") }), QN_OK);
    assert_int_equal(qn_report_close(&r), QN_OK);
    fclose(f);
    assert_string_equal(text, "{\"x\":\"\xef\xbf\xbd\xef\xbf\xbd(\"}\n");
    free(text);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (int format = QN_REPORT_TEXT; format <= QN_REPORT_JSON; format++) {
        for (int64_t n = 1;; n++) {
            qn_result status;
            qn_alloc_fail_at(n);
            char *text = print((qn_report_format)format, 3, &status);
            qn_alloc_fail_at(0);
            free(text);
            if (status == QN_OK) {
                assert_true(n > 1);
                break;
            }
            assert_int_equal(status, QN_ERR_NO_MEMORY);
        }
    }
}

static void test_progress_line(void **state)
{
    (void)state;
    char text[256];
    qn_progress p = { .what = "train", .unit = "steps", .total = 1000, .done = 125, .rate = 2.5 };
    qn_progress_format(&p, "loss 3.21", 200, text, sizeof text);
    assert_string_equal(text, "train 125/1000 steps 12% 2.5 steps/s 5:50 left  loss 3.21");
    qn_progress_format(&p, "loss 3.21", 20, text, sizeof text);
    assert_string_equal(text, "train 125/1000 steps");
    p = (qn_progress){ .what = "read", .unit = "lines", .done = 7 };
    qn_progress_format(&p, NULL, 80, text, sizeof text);
    assert_string_equal(text, "read 7 lines");
    p = (qn_progress){ .what = "train", .unit = "steps", .total = 1000, .done = 999.9 };
    qn_progress_format(&p, NULL, 80, text, sizeof text);
    assert_string_equal(text, "train 1000/1000 steps 99%");
    qn_progress_format(&p, "\xc3\xa9\xc3\xa9\xc3\xa9", 29, text, sizeof text);
    assert_string_equal(text,
                        "train 1000/1000 steps 99%  \xc3\xa9\xc3\xa9"); // cut between characters
}

static void test_durations(void **state)
{
    (void)state;
    char text[24];
    assert_string_equal(qn_format_duration(0, text), "0:00");
    assert_string_equal(qn_format_duration(59.6, text), "1:00");
    assert_string_equal(qn_format_duration(3599, text), "59:59");
    assert_string_equal(qn_format_duration(7390, text), "2:03:10");
    assert_string_equal(qn_format_duration(273600, text), "3d 4h");
    assert_string_equal(qn_format_duration(INFINITY, text), "?");
    assert_string_equal(qn_format_duration(NAN, text), "?");
    assert_string_equal(qn_format_duration(-1, text), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),      cmocka_unit_test(test_csv),
        cmocka_unit_test(test_json),      cmocka_unit_test(test_broken_utf8),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_progress_line),
        cmocka_unit_test(test_durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
