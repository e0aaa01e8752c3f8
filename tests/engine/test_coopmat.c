// Cooperative matrices from one dialect to the other: a small module word by word, what is refused,
// and the embedded kernel. No device here runs them.
#include "device.h"
#include "khr.h"
#include "spirv.h"

#include <stdlib.h>
#include <string.h>

enum {
    INT = 1, FLOAT, TRUE_, FALSE_, THREE, M, N, K, // ids
    TYPE_A, TYPE_B, TYPE_SUM, POINTER, STRIDE, LEFT, RIGHT, SUM, RESULT, NARROW, CONVERTED, BOUND
};

#define WORD(n, op) ((uint32_t)(n) << 16 | (op))

static const uint32_t head[] = {
    0x07230203, 0x00010500, 0, BOUND, 0,
    WORD(2, 17), 5357,
    WORD(8, 10), 0x5f565053, 0x635f564e, 0x65706f6f, 0x69746172, 0x6d5f6576, 0x69727461, 0x78,
    WORD(4, 21), INT, 32, 0,
};

// A module in the NV dialect with everything that is rewritten; returns its words.
static size_t build(uint32_t *out)
{
    const uint32_t rest[] = {
        WORD(3, 22), FLOAT, 16,                                       // OpTypeFloat
        WORD(3, 41), FLOAT, TRUE_,                                    // OpConstantTrue
        WORD(3, 42), FLOAT, FALSE_,                                   // OpConstantFalse
        WORD(6, 5358), TYPE_A, FLOAT, THREE, M, K,
        WORD(6, 5358), TYPE_B, FLOAT, THREE, K, N,
        WORD(6, 5358), TYPE_SUM, FLOAT, THREE, M, N,
        WORD(6, 5358), NARROW, INT, THREE, M, N,
        WORD(8, 5359), TYPE_A, LEFT, POINTER, STRIDE, TRUE_, 0x28, THREE,
        WORD(6, 5359), TYPE_B, RIGHT, POINTER, STRIDE, FALSE_,
        WORD(6, 5359), TYPE_SUM, SUM, POINTER, STRIDE, FALSE_,
        WORD(6, 5361), TYPE_SUM, RESULT, LEFT, RIGHT, SUM,
        WORD(4, 115), NARROW, CONVERTED, RESULT,                      // OpFConvert
        WORD(7, 5360), POINTER, RESULT, STRIDE, FALSE_, 0x28, THREE,
        WORD(4, 5362), INT, STRIDE, TYPE_A,
    };
    memcpy(out, head, sizeof head);
    memcpy(out + sizeof head / sizeof *head, rest, sizeof rest);
    return (sizeof head + sizeof rest) / sizeof *rest;
}

static void a_module_is_rewritten(void **state)
{
    (void)state;
    static const uint32_t expected[] = {
        0x07230203, 0x00010500, 0, BOUND + 3, 0,
        WORD(2, 17), 6022,
        WORD(8, 10), 0x5f565053, 0x5f52484b, 0x706f6f63, 0x74617265, 0x5f657669, 0x7274616d, 0x7869,
        WORD(4, 21), INT, 32, 0,
        WORD(3, 22), FLOAT, 16,
        WORD(3, 41), FLOAT, TRUE_,
        WORD(3, 42), FLOAT, FALSE_,
        WORD(4, 43), INT, BOUND, 0,
        WORD(4, 43), INT, BOUND + 1, 1,
        WORD(4, 43), INT, BOUND + 2, 2,
        WORD(7, 4456), TYPE_A, FLOAT, THREE, M, K, BOUND,
        WORD(7, 4456), TYPE_B, FLOAT, THREE, K, N, BOUND + 1,
        WORD(7, 4456), TYPE_SUM, FLOAT, THREE, M, N, BOUND + 2,
        WORD(7, 4456), NARROW, INT, THREE, M, N, BOUND + 2,
        WORD(8, 4457), TYPE_A, LEFT, POINTER, BOUND + 1, STRIDE, 0x28, THREE,
        WORD(6, 4457), TYPE_B, RIGHT, POINTER, BOUND, STRIDE,
        WORD(6, 4457), TYPE_SUM, SUM, POINTER, BOUND, STRIDE,
        WORD(6, 4459), TYPE_SUM, RESULT, LEFT, RIGHT, SUM,
        WORD(4, 115), NARROW, CONVERTED, RESULT,
        WORD(7, 4458), POINTER, RESULT, BOUND, STRIDE, 0x28, THREE,
        WORD(4, 4460), INT, STRIDE, TYPE_A,
    };
    uint32_t in[256];
    char error[256] = "";
    size_t count = build(in), got = 0;
    uint32_t *out = qn_coopmat_to_khr(in, count, &got, error, sizeof error);
    assert_string_equal(error, "");
    assert_non_null(out);
    assert_int_equal(got, sizeof expected / sizeof *expected);
    for (size_t i = 0; i < got; i++)
        if (out[i] != expected[i]) fail_msg("word %zu is %x, expected %x", i, out[i], expected[i]);
    free(out);
}

// Replaces the first `from` behind the header by `to`, `skip` of them left alone.
static void refused(uint32_t from, uint32_t to, int skip, const char *sentence)
{
    uint32_t in[256];
    char error[256] = "";
    size_t count = build(in), got = 1, at = 5;
    while (at < count && (in[at] != from || skip-- > 0)) at++;
    assert_true(at < count);
    in[at] = to;
    assert_null(qn_coopmat_to_khr(in, count, &got, error, sizeof error));
    assert_int_equal(got, 0);
    if (!strstr(error, sentence)) fail_msg("\"%s\" lacks \"%s\"", error, sentence);
}

static void what_cannot_be_rewritten_is_refused(void **state)
{
    (void)state;
    uint32_t in[256];
    char error[256];
    size_t got, count = build(in);
    assert_null(qn_coopmat_to_khr(in, 4, &got, error, sizeof error));
    assert_string_equal(error, "this is no SPIR-V module");
    in[0] = 1;
    assert_null(qn_coopmat_to_khr(in, count, &got, error, sizeof error));
    assert_string_equal(error, "this is no SPIR-V module");
    refused(WORD(4, 115), WORD(4, 0), 0, "matrix type 18 takes part in no multiply-add");
    refused(WORD(6, 5361), WORD(6, 0), 0, "takes part in no multiply-add");
    refused(WORD(3, 42), WORD(3, 0), 0, "the column flag of a load or store (id 4)");
    refused(WORD(4, 21), WORD(4, 0), 0, "there is no 32-bit integer type");
    refused(WORD(7, 5360), WORD(4, 5360), 0, "instruction 5360 has 4 words, expected 5");
    refused(RIGHT, 9999, 1, "names id 9999, expected one below");
    refused(WORD(4, 5362), WORD(5, 5362), 0, "cut off");
    // Left and right factor of one type.
    refused(RIGHT, LEFT, 1, "is used as left factor and as right factor");
}

// Damaged modules are refused or rewritten, and never read out of bounds.
static void damaged_modules_do_no_harm(void **state)
{
    (void)state;
    static const uint32_t values[] = { 0, 1, BOUND - 1, BOUND, 0xffff, 0xffffffff, WORD(6, 5361) };
    uint32_t in[256];
    char error[256];
    const size_t count = build(in);
    for (size_t i = 1; i < count; i++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            build(in);
            in[i] = values[v];
            uint32_t *own = malloc(count * sizeof *own); // so that a sanitizer sees its end
            assert_non_null(own);
            memcpy(own, in, count * sizeof *own);
            size_t got;
            free(qn_coopmat_to_khr(own, count, &got, error, sizeof error));
            free(qn_coopmat_to_khr(own, i, &got, error, sizeof error));
            free(own);
        }
}

// The embedded modules speak KHR, with one use per type and all ids below the bound.
static void the_kernel_speaks_khr(void **state)
{
    (void)state;
    int modules = 0;
    for (const qn_spirv *s = qn_kernel_spirv; s->id; s++) {
        if (s->form != 'M') continue;
        modules++;
        const size_t count = s->size / sizeof *s->words;
        uint32_t types = 0, loads = 0, stores = 0, sums = 0, capability = 0;
        for (size_t at = 5; at < count; at += s->words[at] >> 16) {
            const uint32_t *w = s->words + at, op = w[0] & 0xffff, n = w[0] >> 16;
            assert_true(n > 0 && at + n <= count);
            assert_false(op >= 5358 && op <= 5362);
            types += op == 4456 && n == 7;
            loads += op == 4457;
            stores += op == 4458;
            sums += op == 4459;
            capability += op == 17 && w[1] == 6022;
            assert_false(op == 17 && w[1] == 5357);
            if (op == 4456) assert_true(w[1] < s->words[3] && w[6] < s->words[3]);
        }
        assert_int_equal(capability, 1);
        assert_true(types >= 3 && loads >= 4 && stores >= 4 && sums >= 4);
    }
    assert_int_equal(modules, 3); // f32, f16, bf16
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_module_is_rewritten),
        cmocka_unit_test(what_cannot_be_rewritten_is_refused),
        cmocka_unit_test(damaged_modules_do_no_harm),
        cmocka_unit_test(the_kernel_speaks_khr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
