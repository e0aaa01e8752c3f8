// Golden cases of whole merges: recipe and models in, folder out, compared with an expected folder.
#include "bricks/golden.h"
#include "bricks/merge.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct e2e {
    qn_device *dev;
    const char *dir;
    qn_json root, node;
    double tolerance, hard, allowed;
    uint64_t outside, elements;
    qn_golden_line line;
} e2e;

static qn_result compare_tensor(e2e *c, const qn_safetensor *want, const qn_safetensor *got)
{
    if (!got) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", want->name);
    if (got->dtype != want->dtype || got->rank != want->rank ||
        memcmp(got->dim, want->dim, (size_t)want->rank * sizeof *want->dim) != 0)
        return qn_fail(QN_ERR_FORMAT, "tensor %s: another type or shape", want->name);
    float *a = qn_malloc((size_t)want->count * 2 * sizeof *a + 1), *b = a + want->count;
    if (!a) return qn_no_memory((size_t)want->count * 2 * sizeof *a);
    qn_result r = qn_safetensor_f32(want, 0, want->count, a);
    if (r == QN_OK) r = qn_safetensor_f32(got, 0, got->count, b);
    double scale = 1e-6, most = 0;
    for (uint64_t i = 0; r == QN_OK && i < want->count; i++)
        scale = fmax(scale, fabs((double)a[i]));
    for (uint64_t i = 0; r == QN_OK && i < want->count; i++) {
        double d = fabs((double)a[i] - (double)b[i]) / scale;
        c->outside += !(d <= c->tolerance);
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
    }
    c->elements += want->count;
    qn_free(a);
    if (most > c->line.relative || !c->line.tensor[0]) {
        c->line.relative = most;
        snprintf(c->line.tensor, sizeof c->line.tensor, "%s", want->name);
    }
    return r;
}

static qn_result compare_tensors(e2e *c, const char *expected, const char *out)
{
    qn_safetensors *want = NULL, *got = NULL;
    qn_result r = qn_safetensors_open(expected, &want);
    if (r == QN_OK) r = qn_safetensors_open(out, &got);
    if (r == QN_OK && qn_safetensors_count(want) != qn_safetensors_count(got))
        r = qn_fail(QN_ERR_FORMAT, "%zu tensors, expected %zu", qn_safetensors_count(got),
                    qn_safetensors_count(want));
    for (size_t i = 0; r == QN_OK && i < qn_safetensors_count(want); i++) {
        const qn_safetensor *t = qn_safetensors_at(want, i);
        r = compare_tensor(c, t, qn_safetensors_find(got, t->name));
    }
    qn_safetensors_close(&want);
    qn_safetensors_close(&got);
    return r;
}

// One value as text, so that values can be compared whatever they are.
static char *text_of(qn_json v)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_value(&w, NULL, v);
    char *text = w.status == QN_OK ? qn_strndup(w.text, w.size) : NULL;
    qn_json_writer_free(&w);
    return text;
}

static bool is_ignored(const e2e *c, const char *key)
{
    qn_json list = qn_json_find(c->root, "ignored_config_keys");
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        const char *name;
        if (qn_json_string(v, NULL, &name) == QN_OK && strcmp(name, key) == 0) return true;
    }
    return false;
}

static qn_result compare_members(const e2e *c, qn_json want, qn_json got)
{
    for (qn_json v = qn_json_first(want); v.node; v = qn_json_next(v)) {
        const char *key = qn_json_key(v);
        qn_json other = qn_json_find(got, key);
        if (is_ignored(c, key)) continue;
        char *a = text_of(v), *b = other.node ? text_of(other) : NULL;
        bool same = a && b && strcmp(a, b) == 0;
        qn_free(a);
        qn_free(b);
        if (!same) return qn_json_fail(v, "the merge has another value, or none");
    }
    return QN_OK;
}

static qn_result compare_config(const e2e *c, const char *expected, const char *out)
{
    qn_json_doc *want = NULL, *got = NULL;
    char *a = qn_path_join(expected, "config.json"), *b = qn_path_join(out, "config.json");
    qn_result r = a && b ? qn_json_open(a, NULL, &want) : qn_no_memory(strlen(out));
    if (r == QN_OK) r = qn_json_open(b, NULL, &got);
    if (r == QN_OK) r = compare_members(c, qn_json_root(want), qn_json_root(got));
    qn_json_close(&want);
    qn_json_close(&got);
    qn_free(a);
    qn_free(b);
    return r;
}

static qn_result find_token(qn_json tokenizer, qn_json wanted)
{
    const char *key = qn_json_key(wanted);
    int64_t id, found = -1;
    QN_TRY(qn_json_int(wanted, NULL, 0, INT32_MAX, &id));
    qn_json in_vocab = qn_json_find(qn_json_find(qn_json_find(tokenizer, "model"), "vocab"), key);
    if (in_vocab.node) QN_TRY(qn_json_int(in_vocab, NULL, 0, INT32_MAX, &found));
    qn_json added = qn_json_find(tokenizer, "added_tokens");
    for (qn_json t = qn_json_first(added); t.node; t = qn_json_next(t)) {
        const char *text;
        QN_TRY(qn_json_string(t, "content", &text));
        if (strcmp(text, key) == 0) QN_TRY(qn_json_int(t, "id", 0, INT32_MAX, &found));
    }
    if (found != id)
        return qn_json_fail(wanted, "the merge gives it the id %lld", (long long)found);
    return QN_OK;
}

static qn_result compare_vocabulary(const e2e *c, const char *out)
{
    const char *name;
    qn_json_doc *want = NULL, *got = NULL;
    QN_TRY(qn_json_string_or(c->node, "expected_vocab", NULL, &name));
    if (!name) return QN_OK;
    char *a = qn_path_join(c->dir, name), *b = qn_path_join(out, "tokenizer.json");
    qn_result r = a && b ? qn_json_open(a, NULL, &want) : qn_no_memory(strlen(out));
    if (r == QN_OK) r = qn_json_open(b, NULL, &got);
    for (qn_json v = qn_json_first(want ? qn_json_root(want) : (qn_json){ 0 });
         r == QN_OK && v.node; v = qn_json_next(v))
        r = find_token(qn_json_root(got), v);
    qn_json_close(&want);
    qn_json_close(&got);
    qn_free(a);
    qn_free(b);
    return r;
}

static qn_result run_recipe(const e2e *c, const char *config, const char *models, const char *out)
{
    qn_recipes recipes;
    qn_merge_stats stats;
    QN_TRY(qn_recipes_open(config, &recipes));
    qn_merge_opts o = { .plan.models = models, .out = out };
    qn_result r = qn_merge_run(c->dev, &recipes.items[0], recipes.text, &o, &stats);
    qn_recipes_close(&recipes);
    return r;
}

static qn_result run_case(e2e *c, const char *out)
{
    const char *config, *models, *expected;
    QN_TRY(qn_json_string(c->node, "config", &config));
    QN_TRY(qn_json_string(c->node, "models_root", &models));
    QN_TRY(qn_json_string(c->node, "expected", &expected));
    QN_TRY(qn_json_number(c->node, "tol", 0, 1, &c->tolerance));
    QN_TRY(qn_json_number_or(c->node, "hard", 0, 1, c->tolerance, &c->hard));
    QN_TRY(qn_json_number_or(c->node, "max_outside_fraction", 0, 1, 0, &c->allowed));
    char *a = qn_path_join(c->dir, config), *b = qn_path_join(c->dir, models);
    char *e = qn_path_join(c->dir, expected);
    qn_result r = a && b && e ? run_recipe(c, a, b, out) : qn_no_memory(strlen(out));
    if (r == QN_OK) r = compare_tensors(c, e, out);
    if (r == QN_OK) r = compare_config(c, e, out);
    if (r == QN_OK) r = compare_vocabulary(c, out);
    qn_free(a);
    qn_free(b);
    qn_free(e);
    QN_TRY(r);
    c->line.error = c->hard > 0 ? c->line.relative / c->hard : c->line.relative > 0 ? INFINITY : 0;
    c->line.passed =
        c->line.relative <= c->hard && (double)c->outside <= c->allowed * (double)c->elements;
    return QN_OK;
}

static void replay_case(e2e *c, qn_golden_report *report)
{
    char name[512], out[256];
    const char *id = "?", *tmp = getenv("TMPDIR");
    qn_result r = qn_json_string(c->node, "id", &id);
    snprintf(name, sizeof name, "%s:%s", c->dir, id);
    c->line = (qn_golden_line){ .name = name };
    c->outside = c->elements = 0;
    snprintf(out, sizeof out, "%s/quoin-golden-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (r == QN_OK && !c->dev) r = qn_fail(QN_ERR_NO_DEVICE, "%s: needs a Vulkan device", c->dir);
    if (r == QN_OK && !mkdtemp(out)) r = qn_fail(QN_ERR_IO, "%s cannot be made", out);
    if (r == QN_OK) {
        r = run_case(c, out);
        if (r != QN_OK) snprintf(c->line.detail, sizeof c->line.detail, "%s", qn_error_message());
        (void)qn_remove_tree(out);
    } else {
        snprintf(c->line.detail, sizeof c->line.detail, "%s", qn_error_message());
    }
    if (r != QN_OK) c->line.passed = false;
    *(c->line.passed ? &report->passed : &report->failed) += 1;
    report->line(report->user, &c->line);
}

bool qn_golden_recipes_match(const char *dir)
{
    char *path = qn_path_join(dir, "e2e.json");
    bool there = path && qn_file_exists(path);
    qn_free(path);
    return there;
}

void qn_golden_recipes(qn_device *dev, const char *dir, qn_golden_report *report)
{
    e2e c = { .dev = dev, .dir = dir };
    qn_json_doc *doc = NULL;
    qn_json cases = { 0 };
    char *path = qn_path_join(dir, "e2e.json");
    qn_result r = path ? qn_json_open(path, NULL, &doc) : qn_no_memory(strlen(dir));
    qn_free(path);
    if (r == QN_OK) {
        c.root = qn_json_root(doc);
        r = qn_json_array(c.root, "cases", &cases);
    }
    for (c.node = qn_json_first(cases); r == QN_OK && c.node.node; c.node = qn_json_next(c.node))
        replay_case(&c, report);
    if (r != QN_OK) {
        qn_golden_line line = { .name = dir };
        snprintf(line.detail, sizeof line.detail, "%s", qn_error_message());
        report->failed++;
        report->line(report->user, &line);
    }
    qn_json_close(&doc);
}
