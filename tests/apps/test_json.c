// JSON: what is read, what is refused and in which words, what is written.
#include "io/json.h"
#include "io/utf8.h"
#include "scratch.h"

#include <locale.h>
#include <math.h>

static qn_result parse(const char *text, qn_json_doc **out)
{
    return qn_json_parse("t.json", text, strlen(text), NULL, out);
}

static const char sample[] =
    "{\"n_layer\": 24, \"rate\": 3e-4, \"tied\": false, \"name\": \"a\\u00e9\\ud83d\\ude00\\n\",\n"
    " \"list\": [1, -2, [true, null]], \"empty\": {}, \"none\": null, \"deep\": {\"x\": {\"y\": "
    "[]}}}";

static void values_are_read(void **state)
{
    (void)state;
    qn_json_doc *doc;
    assert_ok(parse(sample, &doc));
    qn_json root = qn_json_root(doc), list, deep;
    int64_t n = 0;
    double d = 0;
    bool flag = true;
    const char *s = NULL;
    assert_ok(qn_json_int(root, "n_layer", 1, 100, &n));
    assert_int_equal(n, 24);
    assert_ok(qn_json_number(root, "rate", 0, 1, &d));
    assert_true(d == 3e-4);
    assert_ok(qn_json_bool(root, "tied", &flag));
    assert_false(flag);
    assert_ok(qn_json_string(root, "name", &s));
    assert_string_equal(s, "a\xC3\xA9\xF0\x9F\x98\x80\n");
    assert_ok(qn_json_array(root, "list", &list));
    assert_int_equal(qn_json_count(list), 3);
    assert_ok(qn_json_int(qn_json_next(qn_json_first(list)), NULL, -5, 5, &n));
    assert_int_equal(n, -2);
    assert_ok(qn_json_object(root, "deep", &deep));
    assert_string_equal(qn_json_key(qn_json_first(deep)), "x");
    assert_int_equal(qn_json_kind_of(qn_json_find(root, "none")), QN_JSON_NULL);
    assert_int_equal(qn_json_kind_of(qn_json_find(root, "N_LAYER")), QN_JSON_ABSENT);
    qn_json_close(&doc);
    assert_null(doc);
}

static void defaults_stand_for_absent_and_null(void **state)
{
    (void)state;
    qn_json_doc *doc;
    assert_ok(parse(sample, &doc));
    qn_json root = qn_json_root(doc), v;
    int64_t n;
    double d;
    bool flag;
    const char *s;
    assert_ok(qn_json_int_or(root, "none", 0, 9, 7, &n));
    assert_int_equal(n, 7);
    assert_ok(qn_json_number_or(root, "absent", 0, 9, 0.5, &d));
    assert_true(d == 0.5);
    assert_ok(qn_json_bool_or(root, "absent", true, &flag));
    assert_true(flag);
    assert_ok(qn_json_string_or(root, "absent", "x", &s));
    assert_string_equal(s, "x");
    assert_ok(qn_json_array_or(root, "absent", &v));
    assert_null(v.node);
    assert_null(qn_json_first(v).node);
    assert_ok(qn_json_object_or(root, "none", &v));
    assert_null(v.node);
    assert_fails(qn_json_int_or(root, "tied", 0, 9, 7, &n), QN_ERR_FORMAT,
                 "t.json: tied: found false");
    qn_json_close(&doc);
}

static void mismatches_name_the_place(void **state)
{
    (void)state;
    qn_json_doc *doc;
    assert_ok(parse(sample, &doc));
    qn_json root = qn_json_root(doc), list, deep, x;
    int64_t n;
    double d;
    bool flag;
    const char *s;
    assert_fails(qn_json_int(root, "name", 1, INT64_MAX, &n), QN_ERR_FORMAT,
                 "t.json: name: found \"a");
    assert_fails(qn_json_int(root, "rate", 1, INT64_MAX, &n), QN_ERR_FORMAT,
                 "t.json: rate: found 0.0003, expected an integer of at least 1");
    assert_fails(qn_json_int(root, "n_layer", 1, 16, &n), QN_ERR_FORMAT,
                 "found 24, expected an integer from 1 to 16");
    assert_fails(qn_json_int(root, "gone", INT64_MIN, 3, &n), QN_ERR_FORMAT,
                 "t.json: gone: missing, expected an integer of at most 3");
    assert_fails(qn_json_number(root, "n_layer", 0, 1, &d), QN_ERR_FORMAT,
                 "found 24, expected a number from 0 to 1");
    assert_fails(qn_json_bool(root, "none", &flag), QN_ERR_FORMAT,
                 "none: found null, expected true or false");
    assert_fails(qn_json_string(root, "list", &s), QN_ERR_FORMAT, "list: found an array");
    assert_fails(qn_json_array(root, "deep", &list), QN_ERR_FORMAT, "deep: found an object");
    assert_ok(qn_json_array(root, "list", &list));
    x = qn_json_next(qn_json_next(qn_json_first(list)));
    assert_fails(qn_json_int(qn_json_first(x), NULL, 0, 1, &n), QN_ERR_FORMAT,
                 "t.json: list[2][0]: found true, expected an integer from 0 to 1");
    assert_ok(qn_json_object(root, "deep", &deep));
    assert_ok(qn_json_object(deep, "x", &x));
    assert_fails(qn_json_string(x, "z", &s), QN_ERR_FORMAT,
                 "t.json: deep.x.z: missing, expected a string");
    assert_fails(qn_json_int((qn_json){ 0 }, "a", 0, 1, &n), QN_ERR_FORMAT, "missing");
    qn_json_close(&doc);
    assert_ok(parse("{\"\\u001b[31m\": \"\\u0007\"}", &doc));
    assert_fails(qn_json_int(qn_json_first(qn_json_root(doc)), NULL, 0, 1, &n), QN_ERR_FORMAT,
                 "t.json: ?[31m: found \"?\"");
    qn_json_close(&doc);
}

static void integers_are_exact_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {
        { "9007199254740991", true, QN_JSON_INT_MAX },
        { "-9007199254740991", true, -QN_JSON_INT_MAX },
        { "9007199254740992", false, 0 }, // as a double it might have been ...993
        { "9007199254740993", false, 0 },
        { "1e3", true, 1000 },
        { "-0", true, 0 },
        { "0.5", false, 0 },
        { "1e300", false, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_json_doc *doc;
        int64_t n = -1;
        assert_ok(parse(cases[i].text, &doc));
        qn_result r = qn_json_int(qn_json_root(doc), NULL, INT64_MIN, INT64_MAX, &n);
        assert_int_equal(r, cases[i].good ? QN_OK : QN_ERR_FORMAT);
        if (cases[i].good) assert_int_equal(n, cases[i].value);
        qn_json_close(&doc);
    }
}

static void faulty_text_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "", "line 1, column 1: found the end, expected a value" },
        { "{", "line 1, column 2: found the end, expected a string" },
        { "{\n \"a\": 1,\n}", "line 3, column 1: found '}', expected a string" },
        { "[1, 2", "column 6: found the end, expected ',' or ']'" },
        { "[1,, 2]", "column 4: found ',', expected a value" },
        { "[1] x", "column 5: found 'x', expected nothing more" },
        { "{\"a\" 1}", "column 6: found '1', expected ':'" },
        { "{'a': 1}", "found ''', expected a string" },
        { "\"abc", "found the end, expected '\"' at the end of a string" },
        { "\"a\tb\"", "column 3: found byte 0x09, expected no control character" },
        { "\"\\x\"", "found 'x', expected an escape" },
        { "\"\\u12g4\"", "found 'g', expected a hexadecimal digit" },
        { "\"\\ud800\"", "found '\"', expected the second half of a surrogate" },
        { "\"\\ud800\\u0041\"", "column 2: half a surrogate pair" },
        { "\"\\udc00\"", "column 2: half a surrogate pair" },
        { "{\"\\u0000\": 1}", "column 3: a NUL character in a key" },
        { "\"\xC3\xA9\xFF\"", "column 3: invalid UTF-8" },
        { "\"\xC0\x80\"", "column 2: invalid UTF-8" },
        { "\"\xED\xA0\x80\"", "column 2: invalid UTF-8" },
        { "01", "found '1', expected no digit after a leading 0" },
        { "-", "found the end, expected a digit" },
        { "1.", "found the end, expected a digit" },
        { "1e+", "found the end, expected a digit" },
        { ".5", "found '.', expected a value" },
        { "+1", "found '+', expected a value" },
        { "NaN", "found 'N', expected a value" },
        { "nul", "expected null" },
        { "truex", "found 'x', expected nothing more" },
        { "1234567890123456789012345678901234567890123456789012345678901", "more than 60" },
        { "[1e999]", "t.json: [0]: a number beyond the range" },
        { "{\"a\": 1, \"b\": 2, \"a\": 3}", "key \"a\" is there twice" },
        { "{\"x\": {\"k\": 1, \"\\u006b\": 2}}", "t.json: x: key \"k\" is there twice" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_json_doc *doc = NULL;
        assert_fails(parse(cases[i].text, &doc), QN_ERR_FORMAT, cases[i].message);
        assert_null(doc);
    }
}

static void limits_hold(void **state)
{
    (void)state;
    qn_json_doc *doc;
    char nested[1200];
    memset(nested, '[', 600);
    memset(nested + 600, ']', 600);
    assert_fails(qn_json_parse("t", nested, 1200, NULL, &doc), QN_ERR_FORMAT, "column 65: arrays");
    qn_json_limits deep = { .depth = 10000 }; // more than this parser may recurse
    assert_fails(qn_json_parse("t", nested, 1200, &deep, &doc), QN_ERR_FORMAT, "column 501: ");
    assert_ok(qn_json_parse("t", nested + 100, 1000, &deep, &doc));
    qn_json_close(&doc);
    qn_json_limits few = { .values = 3 };
    assert_fails(qn_json_parse("t", "[1, 2, 3]", 9, &few, &doc), QN_ERR_FORMAT, "more values");
    assert_ok(qn_json_parse("t", "[1, 2]", 6, &few, &doc));
    qn_json_close(&doc);
    qn_json_limits small = { .size = 5 };
    assert_fails(qn_json_parse("t", "[1, 2]", 6, &small, &doc), QN_ERR_FORMAT, "6 bytes");
    scratch_write_text("big.json", "[1, 2]");
    assert_fails(qn_json_open(scratch("big.json"), &small, &doc), QN_ERR_IO, "big.json");
    assert_fails(qn_json_open(scratch("none.json"), NULL, &doc), QN_ERR_IO, "none.json");
}

static void nul_characters_survive(void **state)
{
    (void)state;
    qn_json_doc *doc;
    const char *s;
    assert_ok(parse("[\"a\\u0000b\", \"\\\\u0000\", \"c\"]", &doc));
    qn_json v = qn_json_first(qn_json_root(doc));
    assert_fails(qn_json_string(v, NULL, &s), QN_ERR_FORMAT, "t.json: [0]: a NUL character");
    assert_ok(qn_json_nul_string(v, NULL, &s));
    assert_string_equal(s, "a\xC0\x80"
                           "b");
    assert_ok(qn_json_string(qn_json_next(v), NULL, &s));
    assert_string_equal(s, "\\u0000");
    qn_json_writer w = { .compact = true };
    qn_json_put_value(&w, NULL, v);
    assert_fails(w.status, QN_ERR_INVALID, "not valid UTF-8");
    qn_json_writer_free(&w);
    qn_json_close(&doc);
}

static void a_byte_order_mark_is_skipped(void **state)
{
    (void)state;
    qn_json_doc *doc;
    int64_t n;
    assert_ok(parse("\xEF\xBB\xBF"
                    "7",
                    &doc));
    assert_ok(qn_json_int(qn_json_root(doc), NULL, 0, 9, &n));
    assert_int_equal(n, 7);
    qn_json_close(&doc);
}

// A beginning of an object is never one itself; no change of a byte may do worse than be refused.
static void damaged_text_is_harmless(void **state)
{
    (void)state;
    qn_json_doc *doc;
    for (size_t n = 0; n + 1 < sizeof sample; n++)
        assert_int_equal(qn_json_parse("t", sample, n, NULL, &doc), QN_ERR_FORMAT);
    static const char bytes[] = "\0\"\\{}[]:,0-e\n\x80\xC3\xFF u";
    for (size_t i = 0; i + 1 < sizeof sample; i++)
        for (size_t k = 0; k + 1 < sizeof bytes; k++) {
            char damaged[sizeof sample];
            memcpy(damaged, sample, sizeof sample);
            damaged[i] = bytes[k];
            qn_result r = qn_json_parse("t", damaged, sizeof sample - 1, NULL, &doc);
            assert_true(r == QN_OK || r == QN_ERR_FORMAT);
            if (r == QN_OK) qn_json_close(&doc);
        }
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    qn_json_doc *doc, *again;
    assert_ok(parse(sample, &doc));
    qn_json_writer compact = { .compact = true }, copy = { .compact = true };
    qn_json_put_value(&compact, NULL, qn_json_root(doc));
    assert_ok(compact.status);
    assert_ok(qn_json_parse("c", compact.text, compact.size, NULL, &again));
    qn_json_put_value(&copy, NULL, qn_json_root(again));
    assert_int_equal(copy.size, compact.size);
    assert_memory_equal(copy.text, compact.text, copy.size);
    assert_null(memchr(compact.text, ' ', compact.size)); // compact, and no string has a space
    qn_json_writer_free(&compact);
    qn_json_writer_free(&copy);
    qn_json_close(&again);

    qn_json_writer w = { 0 };
    qn_json_put_value(&w, NULL, qn_json_root(doc));
    assert_ok(qn_json_save(&w, scratch("out.json")));
    assert_ok(qn_json_open(scratch("out.json"), NULL, &again));
    qn_json_put_value(&compact, NULL, qn_json_root(again));
    qn_json_put_value(&copy, NULL, qn_json_root(doc));
    assert_int_equal(copy.size, compact.size);
    assert_memory_equal(copy.text, compact.text, copy.size);
    qn_json_writer_free(&compact);
    qn_json_writer_free(&copy);
    qn_json_close(&again);
    qn_json_close(&doc);
}

static void numbers_and_escapes_are_exact(void **state)
{
    (void)state;
    static const double numbers[] = { 0.1,  1.0 / 3, 1e-300,       5e-324, 1.7976931348623157e308,
                                      -2.5, 1e15,    123456789.125 };
    const char *text = "q\"b\\c\x01\x1f\x7f\b\f\n\r\t\xC3\xA9";
    qn_json_writer w = { .compact = true };
    setlocale(LC_NUMERIC, "de_DE.UTF-8"); // where there is such a locale
    qn_json_put_array(&w, NULL);
    for (size_t i = 0; i < 8; i++) qn_json_put_number(&w, NULL, numbers[i]);
    qn_json_put_string(&w, NULL, text);
    qn_json_put_int(&w, NULL, INT64_MIN);
    qn_json_put_end(&w, ']');
    assert_ok(w.status);
    qn_json_doc *doc;
    assert_ok(qn_json_parse("t", w.text, w.size, NULL, &doc));
    setlocale(LC_NUMERIC, "C");
    qn_json v = qn_json_first(qn_json_root(doc));
    for (size_t i = 0; i < 8; i++, v = qn_json_next(v)) {
        double d;
        assert_ok(qn_json_number(v, NULL, -INFINITY, INFINITY, &d));
        assert_true(d == numbers[i]);
    }
    const char *s;
    assert_ok(qn_json_string(v, NULL, &s));
    assert_string_equal(s, text);
    assert_non_null(strstr(w.text, "\\u0001\\u001f\\u007f\\b\\f\\n\\r\\t"));
    qn_json_close(&doc);
    qn_json_writer_free(&w);
}

static void what_json_lacks_is_not_written(void **state)
{
    (void)state;
    qn_json_writer w = { 0 };
    qn_json_put_number(&w, NULL, INFINITY);
    assert_fails(w.status, QN_ERR_INVALID, "cannot be written as JSON");
    assert_fails(qn_json_save(&w, scratch("inf.json")), QN_ERR_INVALID, "inf.json");
    assert_false(qn_file_exists(scratch("inf.json")));
    qn_json_put_string(&w, NULL, "\xFF");
    assert_fails(w.status, QN_ERR_INVALID, "UTF-8");
    qn_json_writer_free(&w);
}

static qn_result parse_and_write(void *state)
{
    (void)state;
    qn_json_doc *doc = NULL;
    qn_json_writer w = { 0 };
    static const char text[] =
        "{\"a\": [1, 2, {\"b\": \"x\\u0000\"}], \"c\": {\"d\": null, \"e\": 1}}";
    QN_TRY(qn_json_parse("t", text, sizeof text - 1, NULL, &doc));
    qn_json_put_value(&w, NULL, qn_json_find(qn_json_root(doc), "c"));
    qn_result r = w.status;
    qn_json_writer_free(&w);
    qn_json_close(&doc);
    return r;
}

static void memory_can_run_out(void **state)
{
    (void)state;
    fail_each_allocation(parse_and_write, NULL);
}

// Every code point round trips; every two bytes are judged as the table of the standard says.
static void utf8_is_strict(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        char s[4];
        uint32_t back = 0;
        if (c >= 0xD800 && c < 0xE000) continue;
        size_t n = qn_utf8_put(c, s);
        assert_int_equal(qn_utf8_char(s, n, &back), n);
        assert_int_equal(back, c);
        for (size_t k = 1; k < n; k++) assert_int_equal(qn_utf8_step(s, k, NULL), 0);
    }
    static const struct {
        const char *bytes;
        int step;
    } bad[] = { { "\x80", -1 },          { "\xC1\xBF", -1 },         { "\xE0\x9F\x80", -1 },
                { "\xE2\x82(", -2 },     { "\xED\xA0\x80", -1 },     { "\xF0\x8F\x80\x80", -1 },
                { "\xF0\x9F\x98(", -3 }, { "\xF4\x90\x80\x80", -1 }, { "\xF5", -1 },
                { "\xC3(", -1 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(qn_utf8_step(bad[i].bytes, strlen(bad[i].bytes), NULL), bad[i].step);
    assert_int_equal(qn_utf8_valid("ab\xC3", 3), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(defaults_stand_for_absent_and_null),
        cmocka_unit_test(mismatches_name_the_place),
        cmocka_unit_test(integers_are_exact_or_refused),
        cmocka_unit_test(faulty_text_is_refused),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(nul_characters_survive),
        cmocka_unit_test(a_byte_order_mark_is_skipped),
        cmocka_unit_test(damaged_text_is_harmless),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(numbers_and_escapes_are_exact),
        cmocka_unit_test(what_json_lacks_is_not_written),
        cmocka_unit_test(memory_can_run_out),
        cmocka_unit_test(utf8_is_strict),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
