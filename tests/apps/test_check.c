// `quoin check` without the cases: registration, choice, counting, and both kinds of report.
#include "bench/check.h"
#include "device.h"

#include "fail.h"
#include "mem.h"

#include <cJSON.h>
#include <math.h>
#include <string.h>

static qn_context *ctx;
static qn_device *devs[2];
static size_t dev_count;

// `data` is the number of cases, the last of which fails.
static qn_result run_some(const qn_check_suite *s, qn_device *const *on, size_t count,
                          const char *filter, qn_check_op *out)
{
    (void)on;
    (void)filter;
    assert_int_equal(count, dev_count);
    size_t cases = *(const size_t *)s->data;
    out->cases = qn_calloc(cases, sizeof *out->cases);
    assert_non_null(out->cases);
    out->count = cases;
    for (size_t i = 0; i < cases; i++) {
        qn_check_case *c = &out->cases[i];
        snprintf(c->name, sizeof c->name, "case%zu", i);
        snprintf(c->tensor, sizeof c->tensor, "out0");
        c->form = "portable";
        c->units = 0.25 * (double)(i + 1);
        c->relative = 1e-7;
        c->index = 17;
    }
    snprintf(out->cases[cases - 1].failure, sizeof out->cases->failure, "out0[17] \"quoted\"");
    return QN_OK;
}

static qn_result run_out_of_memory(const qn_check_suite *s, qn_device *const *on, size_t count,
                                   const char *filter, qn_check_op *out)
{
    (void)s;
    (void)on;
    (void)count;
    (void)filter;
    (void)out;
    return qn_no_memory(1);
}

static const size_t two = 2, three = 3;
static const qn_check_suite suites[] = {
    { .op = "first", .run = run_some, .data = &two },
    { .op = "second", .run = run_some, .data = &three },
    { 0 },
};
static const qn_check_suite broken[] = { { .op = "broken", .run = run_out_of_memory }, { 0 } };

static void count_op(void *user, const qn_check_op *op)
{
    *(size_t *)user += op->count;
}

static void needs_cases_and_devices(void **state)
{
    (void)state;
    qn_check_report report;
    qn_check_register(NULL);
    assert_int_equal(qn_check_ops(devs, dev_count, NULL, &report), QN_ERR_UNSUPPORTED);
    assert_non_null(strstr(qn_error_message(), "without the cases"));
    qn_check_register(suites);
    assert_int_equal(qn_check_ops(devs, 0, NULL, &report), QN_ERR_INVALID);
}

static void counts_and_chooses(void **state)
{
    (void)state;
    if (!dev_count) skip();
    qn_check_register(suites);
    qn_check_report report;
    size_t seen = 0;
    qn_check_opts opts = { .done = count_op, .user = &seen };
    assert_int_equal(qn_check_ops(devs, dev_count, &opts, &report), QN_OK);
    assert_int_equal(seen, 5);
    assert_int_equal(report.count, 2);
    assert_int_equal(report.passed, 3);
    assert_int_equal(report.failed, 2);
    assert_string_equal(report.device.name, qn_device_describe(devs[0])->name);
    qn_check_free(&report);

    const char *names[] = { "second" };
    opts = (qn_check_opts){ .ops = names, .op_count = 1 };
    assert_int_equal(qn_check_ops(devs, dev_count, &opts, &report), QN_OK);
    assert_int_equal(report.count, 1);
    assert_string_equal(report.ops[0].op, "second");
    qn_check_free(&report);

    names[0] = "unlike";
    assert_int_equal(qn_check_ops(devs, dev_count, &opts, &report), QN_ERR_INVALID);
    assert_non_null(strstr(qn_error_message(), "\"unlike\"; there are: first, second"));
    names[0] = "frist";
    assert_int_equal(qn_check_ops(devs, dev_count, &opts, &report), QN_ERR_INVALID);
    assert_non_null(strstr(qn_error_message(), "did you mean \"first\"?"));

    qn_check_register(broken);
    assert_int_equal(qn_check_ops(devs, dev_count, NULL, &report), QN_ERR_NO_MEMORY);
    assert_non_null(strstr(qn_error_message(), "checking broken"));
}

static qn_check_case sample_cases[] = {
    { .name = "fine", .tensor = "out0", .units = 0.5, .relative = 2e-7, .index = 3, .form = "flat",
      .seconds = 0.25 },
    { .name = "bad", .failure = "flat: grad x[1] is \"nan\"", .tensor = "grad x",
      .units = INFINITY, .relative = INFINITY, .index = 1, .form = "flat" },
    { .name = "refuses nothing" },
};
static qn_check_op sample_op = { .op = "sample", .cases = sample_cases, .count = 3, .failed = 1 };

static qn_check_report sample(void)
{
    return (qn_check_report){
        .device = { .name = "a \"device\"", .driver = "driver 1", .caps = QN_CAP_TEXEL,
                    .uuid = { 0xab, 1 } },
        .ops = &sample_op,
        .count = 1,
        .passed = 2,
        .failed = 1,
    };
}

static void json_has_every_case(void **state)
{
    (void)state;
    qn_check_report report = sample();
    char *text;
    assert_int_equal(qn_check_json(&report, &text), QN_OK);
    cJSON *root = cJSON_Parse(text);
    assert_non_null(root);
    assert_string_equal(cJSON_GetObjectItem(root, "version")->valuestring, qn_version());
    cJSON *device = cJSON_GetObjectItem(root, "device");
    assert_string_equal(cJSON_GetObjectItem(device, "name")->valuestring, "a \"device\"");
    assert_string_equal(cJSON_GetObjectItem(device, "driver")->valuestring, "driver 1");
    assert_string_equal(cJSON_GetObjectItem(device, "uuid")->valuestring,
                        "ab010000000000000000000000000000");
    assert_string_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(device, "caps"), 0)->valuestring,
                        "texel");
    cJSON *op = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "ops"), 0);
    cJSON *cases = cJSON_GetObjectItem(op, "cases");
    assert_int_equal(cJSON_GetArraySize(cases), 3);
    cJSON *fine = cJSON_GetArrayItem(cases, 0), *bad = cJSON_GetArrayItem(cases, 1);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(fine, "passed")));
    assert_true(cJSON_GetObjectItem(fine, "units")->valuedouble == 0.5);
    assert_null(cJSON_GetObjectItem(fine, "failure"));
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(bad, "passed")));
    assert_string_equal(cJSON_GetObjectItem(bad, "failure")->valuestring, sample_cases[1].failure);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(bad, "units")));
    assert_null(cJSON_GetObjectItem(cJSON_GetArrayItem(cases, 2), "units"));
    cJSON_Delete(root);
    qn_free(text);
}

static void text_names_the_worst_and_the_failed(void **state)
{
    (void)state;
    qn_check_report report = sample();
    char text[2048];
    FILE *f = tmpfile();
    assert_non_null(f);
    qn_check_print(f, &report);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(text, "a \"device\", driver 1\n"));
    assert_non_null(strstr(text, "FAILED sample"));
    assert_non_null(strstr(text, "(bad grad x[1], flat)"));
    assert_non_null(strstr(text, "bad: flat: grad x[1] is \"nan\"\n"));
    assert_non_null(strstr(text, "2 passed, 1 failed"));
}

// Whatever allocation fails, the answer is an error, and nothing is lost.
static void json_survives_allocation_failure(void **state)
{
    (void)state;
    qn_check_report report = sample();
    char *text = NULL;
    qn_alloc_fail_at(1);
    qn_result r = qn_check_json(&report, &text);
    qn_alloc_fail_at(0);
    assert_int_equal(r, QN_ERR_NO_MEMORY);
    assert_null(text);
}

int main(void)
{
    if (qn_context_create(NULL, &ctx) == QN_OK) {
        if (qn_check_open(ctx, NULL, devs, &dev_count) != QN_OK) qn_context_destroy(&ctx);
        qn_keep_drivers();
    }
    if (!dev_count) fprintf(stderr, "no device: %s\n", qn_error_message());
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(needs_cases_and_devices),
        cmocka_unit_test(counts_and_chooses),
        cmocka_unit_test(json_has_every_case),
        cmocka_unit_test(text_names_the_worst_and_the_failed),
        cmocka_unit_test(json_survives_allocation_failure),
    };
    int failed = cmocka_run_group_tests_name("check", tests, NULL, NULL);
    for (size_t i = dev_count; i-- > 0;) qn_device_destroy(&devs[i]);
    qn_context_destroy(&ctx);
    return failed;
}
