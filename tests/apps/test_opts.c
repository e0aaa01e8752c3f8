// Option tables: every type, every way to get one wrong, and the words for help.
// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include "cli/command.h"
#include "nearest.h"

#include <math.h>
#include <string.h>

typedef struct values {
    bool flag;
    int loud, color;
    int64_t steps;
    double rate, share;
    const char *name, *out;
    uint64_t memory;
    qn_opt_list tags, caps;
} values;

static const qn_opt table[] = {
    { "flag", 'f', QN_AT_FLAG(values, flag), .help = "a flag" },
    { "loud", 'v', QN_AT_COUNT(values, loud), .help = "louder" },
    { "steps", 's', QN_AT_INT(values, steps), .initial = "10", .min = 1, .max = 1000,
      .help = "steps" },
    { "rate", 'r', QN_AT_FLOAT(values, rate), .initial = "1e-3", .min = 0, .max = INFINITY,
      .help = "rate" },
    { "share", 0, QN_AT_FLOAT(values, share), .min = 0, .max = 1, .open = true, .help = "share" },
    { "name", 'n', QN_AT_STRING(values, name), .help = "name" },
    { "out", 'o', QN_AT_PATH(values, out), .value = "DIR", .help = "where" },
    { "color", 0, QN_AT_CHOICE(values, color), .words = "red|green|blue", .initial = "green",
      .help = "color" },
    { "memory", 'm', QN_AT_SIZE(values, memory), .min = 1024, .max = 0x1p40, .help = "bytes" },
    { "tags", 't', QN_AT_LIST(values, tags), .initial = "a,b", .help = "tags" },
    { "caps", 0, QN_AT_LIST(values, caps), .words = "x|yy", .help = "caps" },
    { 0 },
};

typedef struct parsed {
    qn_opts o;
    values v;
    qn_result r;
} parsed;

#define PARSE(p, ...) parse(p, (char *[]){ __VA_ARGS__, NULL })
static void parse(parsed *p, char **argv)
{
    int argc = 0, at = 0;
    while (argv[argc]) argc++;
    *p = (parsed){ 0 };
    assert_int_equal(qn_opts_add(&p->o, table, &p->v), QN_OK);
    p->r = qn_opts_parse(&p->o, argc, argv, &at, false);
    if (p->r == QN_OK) assert_int_equal(at, argc);
}

static void test_values(void **state)
{
    (void)state;
    parsed p;
    PARSE(&p, "first", "--steps", "7", "-r0.5", "--share=0.25", "-fvv", "--name", "-x", "--out=a b",
          "--color", "blue", "-m", "1.5K", "-t", "c", "--tags=d,e", "--caps=yy,x", "--", "--steps");
    assert_int_equal(p.r, QN_OK);
    assert_int_equal(p.v.steps, 7);
    assert_true(p.v.rate == 0.5 && p.v.share == 0.25);
    assert_true(p.v.flag);
    assert_int_equal(p.v.loud, 2);
    assert_string_equal(p.v.name, "-x");
    assert_string_equal(p.v.out, "a b");
    assert_int_equal(p.v.color, 2);
    assert_int_equal(p.v.memory, 1536);
    assert_int_equal(p.v.tags.count, 3); // the default is replaced, what is given adds up
    assert_string_equal(p.v.tags.items[0], "c");
    assert_string_equal(p.v.tags.items[2], "e");
    assert_int_equal(p.v.caps.count, 2);
    assert_int_equal(p.o.arg_count, 2);
    assert_string_equal(p.o.args[0], "first");
    assert_string_equal(p.o.args[1], "--steps");
    assert_true(qn_opts_given(&p.o, "steps") && qn_opts_given(&p.o, "flag"));
    qn_opts_free(&p.o);
}

static void test_defaults(void **state)
{
    (void)state;
    parsed p;
    PARSE(&p, "-");
    assert_int_equal(p.r, QN_OK);
    assert_int_equal(p.v.steps, 10);
    assert_true(p.v.rate == 1e-3);
    assert_int_equal(p.v.color, 1);
    assert_int_equal(p.v.tags.count, 2);
    assert_null(p.v.name);
    assert_false(qn_opts_given(&p.o, "steps"));
    assert_int_equal(p.o.arg_count, 1);
    qn_opts_free(&p.o);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        char *argv[4];
        const char *message;
    } rows[] = {
        { { "--steps", "0" }, "--steps: found '0', expected a whole number from 1 to 1000" },
        { { "--steps=1001" }, "--steps: found '1001', expected a whole number from 1 to 1000" },
        { { "--steps", "7x" }, "--steps: found '7x', expected a whole number" },
        { { "--steps", " 7" }, "--steps: found ' 7', expected a whole number" },
        { { "--steps", "" }, "--steps: found '', expected a whole number" },
        { { "--steps=99999999999999999999" }, "expected a whole number from 1 to 1000" },
        { { "--steps" }, "--steps: found nothing, expected a value: --steps N" },
        { { "--steps", "--flag" }, "--steps: found nothing, expected a value" },
        { { "--rate", "nan" }, "--rate: found 'nan', expected a number at least 0" },
        { { "--rate", "-1" }, "--rate: found '-1', expected a number at least 0" },
        { { "--share", "1" }, "--share: found '1', expected a number from 0 below 1" },
        { { "--share", "1e999" }, "--share: found '1e999', expected a number" },
        { { "--color=gren" },
          "--color: found 'gren', expected red, green or blue; did you mean 'green'?" },
        { { "--color=zzz" }, "--color: found 'zzz', expected red, green or blue" },
        { { "--memory", "12" },
          "--memory: found '12', expected a size such as 512M or 1.5G from 1.00 KiB to 1.00 TiB" },
        { { "--memory", "5Q" }, "--memory: found '5Q', expected a size" },
        { { "--memory", "99999999999999999999G" }, "--memory: found '99999999999999999999G'" },
        { { "--tags", "a,,b" }, "--tags: found 'a,,b', expected names separated by commas" },
        { { "--caps", "x,y" }, "--caps: found 'y', expected x or yy" },
        { { "--flag=1" }, "--flag: found '1', expected no value" },
        { { "--out=" }, "--out: found '', expected a path" },
        { { "--step", "5" }, "unknown option '--step'; did you mean '--steps'?" },
        { { "--colro=red" }, "unknown option '--colro'; did you mean '--color'?" },
        { { "--frobnicate" }, "unknown option '--frobnicate'" },
        { { "-fz" }, "unknown option '-z' in '-fz'" },
        { { "-\x1b[2J" }, "unknown option '-?' in '-?[2J'" },
        { { "-s" }, "--steps: found nothing" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        parsed p;
        parse(&p, (char **)rows[i].argv);
        assert_int_equal(p.r, QN_ERR_INVALID);
        if (!strstr(qn_error_message(), rows[i].message)) {
            fail_msg("row %zu: '%s' does not contain '%s'", i, qn_error_message(), rows[i].message);
        }
        qn_opts_free(&p.o);
    }
}

static void test_stops_at_first(void **state)
{
    (void)state;
    char *argv[] = { "-f", "train", "--unknown" };
    qn_opts o = { 0 };
    values v = { 0 };
    int at = 0;
    assert_int_equal(qn_opts_add(&o, table, &v), QN_OK);
    assert_int_equal(qn_opts_parse(&o, 3, argv, &at, true), QN_OK);
    assert_int_equal(at, 2);
    assert_string_equal(o.args[0], "train");
    assert_int_equal(qn_opts_parse(&o, 3, argv, &at, false), QN_ERR_INVALID);
    qn_opts_free(&o);
}

static void test_descriptions(void **state)
{
    (void)state;
    static const struct {
        int row;
        const char *name, *facts;
    } rows[] = {
        { 0, "-f, --flag", "" },
        { 2, "-s, --steps N", "1 to 1000; default 10" },
        { 3, "-r, --rate X", "at least 0; default 1e-3" },
        { 4, "    --share X", "0 below 1" },
        { 6, "-o, --out DIR", "" },
        { 7, "    --color WORD", "red, green or blue; default green" },
        { 8, "-m, --memory SIZE", "1.00 KiB to 1.00 TiB" },
        { 9, "-t, --tags LIST", "default a,b" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        qn_opt_format(&table[rows[i].row], text, sizeof text);
        assert_string_equal(text, rows[i].name);
        qn_opt_describe(&table[rows[i].row], text, sizeof text);
        assert_string_equal(text, rows[i].facts);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        uint64_t bytes;
    } rows[] = {
        { "0", true, 0 },
        { "4096", true, 4096 },
        { "1K", true, 1024 },
        { "1.5k", true, 1536 },
        { "2MiB", true, 2 << 20 },
        { "3GB", true, UINT64_C(3) << 30 },
        { "15E", true, UINT64_C(15) << 60 },
        { "16E", false, 0 },
        { "1.5", false, 0 },
        { "-1", false, 0 },
        { "", false, 0 },
        { "K", false, 0 },
        { "1KK", false, 0 },
        { "0x10", false, 0 },
        { "1 K", false, 0 },
        { "18446744073709551615", true, UINT64_MAX },
        { "18446744073709551616", false, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t bytes = 0;
        if (qn_parse_size(rows[i].text, &bytes) != rows[i].good) fail_msg("%s", rows[i].text);
        if (rows[i].good) assert_true(bytes == rows[i].bytes);
    }
    char text[24];
    assert_string_equal(qn_format_size(1023, text, sizeof text), "1023 B");
    assert_string_equal(qn_format_size(1536, text, sizeof text), "1.50 KiB");
    assert_string_equal(qn_format_size((UINT64_C(1) << 30) - 1, text, sizeof text), "1.00 GiB");
    assert_string_equal(qn_format_size(UINT64_MAX, text, sizeof text), "16.0 EiB");
}

static void test_nearest(void **state)
{
    (void)state;
    assert_int_equal(qn_edit_distance("", "abc"), 3);
    assert_int_equal(qn_edit_distance("train", "trian"), 1); // neighbours swapped
    assert_int_equal(qn_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(qn_edit_distance("same", "same"), 0);
    qn_nearest n = { .word = "trian" };
    qn_nearest_offer(&n, "generate");
    qn_nearest_offer(&n, "train");
    assert_string_equal(n.best, "train");
    qn_nearest far = { .word = "xy" };
    qn_nearest_offer(&far, "generate");
    assert_null(far.best);
    qn_nearest cut = { .word = "gen" };
    qn_nearest_offer(&cut, "generate");
    assert_string_equal(cut.best, "generate");
}

static void test_quote(void **state)
{
    (void)state;
    char text[QN_QUOTED], longer[300];
    assert_string_equal(qn_quote("a\x1b[31m\n", text), "'a?[31m?'");
    memset(longer, 0xc3, sizeof longer); // first bytes of characters, without their seconds
    longer[sizeof longer - 1] = 0;
    qn_quote(longer, text);
    assert_true(strlen(text) < QN_QUOTED);
    assert_non_null(strstr(text, "...'"));
}

// Whatever commands there are: names unique, no option of a command hides a global one, defaults
// parse, every row has its help.
static void test_real_tables(void **state)
{
    (void)state;
    const qn_command_row *row;
    for (size_t i = 0; (row = qn_command_at(i)); i++) {
        assert_ptr_equal(qn_command_find(row->name), row);
        assert_true(!row->command->run == !!row->command->parts);
        assert_non_null(row->command->about);
        assert_true(!row->command->args == !row->command->args_max);
        const qn_opt *own = row->command->options;
        for (const qn_opt *a = own; a && a->name; a++) {
            assert_non_null(a->help);
            assert_false(a->type == QN_OPT_CHOICE && !a->words);
            assert_true(a->at < row->command->opts_size);
            for (const qn_opt *b = qn_global_options; b->name; b++) {
                if (!strcmp(a->name, b->name) || (a->letter && a->letter == b->letter)) {
                    fail_msg("%s --%s is a global option as well", row->name, a->name);
                }
            }
            for (const qn_opt *b = a + 1; b->name; b++) {
                if (!strcmp(a->name, b->name) || (a->letter && a->letter == b->letter)) {
                    fail_msg("%s: --%s and --%s", row->name, a->name, b->name);
                }
            }
        }
        if (!own) continue;
        qn_opts o = { 0 };
        void *v = qn_calloc(1, row->command->opts_size);
        qn_result r = qn_opts_add(&o, own, v);
        if (r != QN_OK) fail_msg("%s: %s", row->name, qn_error_message());
        qn_opts_free(&o);
        qn_free(v);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    char *argv[] = { "--tags", "a,b,c", "x" };
    for (int64_t n = 1;; n++) {
        qn_opts o = { 0 };
        values v = { 0 };
        int at = 0;
        qn_alloc_fail_at(n);
        qn_result r = qn_opts_add(&o, table, &v);
        if (r == QN_OK) r = qn_opts_parse(&o, 3, argv, &at, false);
        qn_alloc_fail_at(0);
        qn_opts_free(&o);
        if (r == QN_OK) {
            assert_true(n > 1);
            break;
        }
        assert_int_equal(r, QN_ERR_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_stops_at_first),
        cmocka_unit_test(test_descriptions), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_nearest),      cmocka_unit_test(test_quote),
        cmocka_unit_test(test_real_tables),  cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
