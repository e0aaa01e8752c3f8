// Golden cases are replayed, and a number that is wrong is found.
#include "llm/golden.h"
#include "scratch.h"

#define GOLDEN QN_SOURCE_DIR "/tests/golden"

typedef struct seen {
    int lines, failed;
    char failure[768];
} seen;

static void note(void *user, const qn_golden_line *l)
{
    seen *s = user;
    s->lines++;
    if (l->passed) return;
    s->failed++;
    snprintf(s->failure, sizeof s->failure, "%s: %g of the tolerance in %s; %s", l->name, l->error,
             l->tensor, l->detail);
}

static seen replay(const char *dir)
{
    seen s = { 0 };
    qn_golden_report report = { .line = note, .user = &s };
    assert_ok(qn_golden_replay(qn_test_device(), dir, &report));
    assert_int_equal(report.passed + report.failed, s.lines);
    assert_int_equal(report.failed, s.failed);
    return s;
}

static void test_own_cases(void **state)
{
    (void)state;
    seen s = replay(GOLDEN);
    if (s.failed) fail_msg("%d of %d: %s", s.failed, s.lines, s.failure);
    assert_true(s.lines > 50);
}

// All cases of merging beside the sources, where there are any.
static void test_shared_merges(void **state)
{
    (void)state;
    static const char dir[] = QN_SOURCE_DIR "/../shared/golden/merge";
    if (!qn_is_dir(dir)) {
        print_message("no shared cases in %s\n", dir);
        return;
    }
    seen s = replay(dir);
    if (s.failed) fail_msg("%d of %d: %s", s.failed, s.lines, s.failure);
}

// All cases beside the sources, where there are any, but the longest trace.
static void test_shared_cases(void **state)
{
    (void)state;
    static const char dir[] = QN_SOURCE_DIR "/../shared/golden/moduleformer";
    if (!qn_is_dir(dir)) {
        print_message("no shared cases in %s\n", dir);
        return;
    }
    char **names;
    size_t count;
    assert_ok(qn_list_dir(dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], "g_text_nano") == 0) continue;
        char *path = qn_path_join(dir, names[i]);
        assert_non_null(path);
        seen s = replay(path);
        if (s.failed) fail_msg("%s", s.failure);
        assert_int_equal(s.lines, 1);
        qn_free(path);
    }
    qn_free_names(names, count);
}

static const char *const files[] = { "io.safetensors", "model.safetensors", "final.safetensors",
                                     "config.json", "meta.json" };

static void copy_case(const char *name)
{
    assert_ok(qn_remove_tree(scratch("case")));
    assert_ok(qn_make_dirs(scratch("case")));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char from[768], to[64];
        snprintf(from, sizeof from, "%s/%s/%s", GOLDEN, name, files[i]);
        snprintf(to, sizeof to, "case/%s", files[i]);
        if (!qn_file_exists(from)) continue;
        char *data;
        size_t size;
        assert_ok(qn_read_file(from, 1 << 20, &data, &size));
        scratch_write(to, data, size);
        qn_free(data);
    }
}

// Adds `change` to the middle number of an f32 tensor, or one to that of an i64 tensor.
static void change_number(const char *file, const char *tensor, float change)
{
    char name[64];
    snprintf(name, sizeof name, "case/%s", file);
    qn_safetensors *f;
    assert_ok(qn_safetensors_open(scratch(name), &f));
    const qn_safetensor *t = qn_safetensors_find(f, tensor);
    if (!t) fail_msg("%s is not in %s", tensor, file);
    char *data;
    size_t size, wide = t->size / t->count;
    scratch_read(name, &data, &size);
    char *found = memmem(data, size, t->data, t->size);
    assert_non_null(found);
    size_t at = (size_t)(found - data) + t->count / 2 * wide;
    if (wide == 8) {
        data[at] = (char)(data[at] ^ 1);
    } else {
        float x;
        memcpy(&x, data + at, sizeof x);
        x += change;
        memcpy(data + at, &x, sizeof x);
    }
    qn_safetensors_close(&f);
    scratch_write(name, data, size);
    qn_free(data);
}

// One number of any kind that a case holds, changed by a hundredth, makes the case fail there.
static void test_changed_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file, *tensor;
    } rows[] = {
        { "model_tiny", "io.safetensors", "hidden.0" },
        { "model_tiny", "io.safetensors", "logits" },
        { "model_tiny", "io.safetensors", "router.0.mlp.gates" },
        { "model_tiny", "io.safetensors", "router.0.attn.indices" },
        { "model_tiny", "io.safetensors", "attn_weights.0" },
        { "model_tiny", "io.safetensors", "ce_loss" },
        { "model_tiny", "io.safetensors", "grad.transformer.wte.weight" },
        { "model_tiny", "io.safetensors", "decode.ids" },
        { "model_tiny", "io.safetensors", "decode.logits" },
        { "model_tiny", "io.safetensors", "decode.cache.0.v" },
        { "sb_T9_D6", "io.safetensors", "out" },
        { "sb_T9_D6", "io.safetensors", "rem" },
        { "sb_T9_D6", "io.safetensors", "dk" },
        { "sb_T9_D6", "io.safetensors", "weights" },
        { "moe_N21_E5_k2", "io.safetensors", "out" },
        { "moe_N21_E5_k2", "io.safetensors", "indices" },
        { "moe_N21_E5_k2", "io.safetensors", "expert_count" },
        { "moe_N21_E5_k2", "io.safetensors", "aux_loss" },
        { "moe_N21_E5_k2", "io.safetensors", "dx" },
        { "moe_N21_E5_k2", "io.safetensors", "grad.experts.weight" },
        { "trace_tiny", "io.safetensors", "train.loss" },
        { "trace_tiny", "io.safetensors", "train.grad_norm" },
        { "trace_tiny", "final.safetensors", "lm_head.weight" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_case(rows[i].name);
        change_number(rows[i].file, rows[i].tensor, 0.01f);
        seen s = replay(scratch("case"));
        if (s.lines != 1 || s.failed != 1)
            fail_msg("%s passes with a changed %s", rows[i].name, rows[i].tensor);
    }
}

// What cannot be replayed fails with a reason; it never counts as passed.
static void test_broken_cases(void **state)
{
    (void)state;
    copy_case("model_tiny");
    assert_int_equal(remove(scratch("case/model.safetensors")), 0);
    seen s = replay(scratch("case"));
    assert_int_equal(s.failed, 1);
    assert_non_null(strstr(s.failure, "model.safetensors"));

    copy_case("trace_tiny");
    scratch_write_text("case/meta.json", "{}");
    s = replay(scratch("case"));
    assert_int_equal(s.failed, 1);
    assert_non_null(strstr(s.failure, "lr"));

    copy_case("sb_T9_D6");
    char *data;
    size_t size;
    scratch_read("case/io.safetensors", &data, &size);
    scratch_write("case/io.safetensors", data, size / 2);
    qn_free(data);
    s = replay(scratch("case"));
    assert_int_equal(s.failed, 1);

    qn_golden_report report = { .line = note, .user = &s };
    copy_case("sb_T9_D6");
    assert_ok(qn_golden_replay(NULL, scratch("case"), &report));
    assert_int_equal(report.failed, 1);
    assert_ok(qn_remove_tree(scratch("case")));
    assert_ok(qn_make_dirs(scratch("case")));
    assert_fails(qn_golden_replay(qn_test_device(), scratch("case"), &report), QN_ERR_INVALID,
                 "no golden case");
    assert_fails(qn_golden_replay(qn_test_device(), scratch("none"), &report), QN_ERR_IO, "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_cases),
        cmocka_unit_test(test_changed_numbers),
        cmocka_unit_test(test_broken_cases),
        cmocka_unit_test(test_shared_cases),
        cmocka_unit_test(test_shared_merges),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove) + qn_device_finish();
}
