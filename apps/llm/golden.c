// Walking golden folders, comparing, and the table of the forms that are known.
#include "golden.h"
#include "bricks/golden_analysis.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"
#include "bricks/golden.h"
#include "tab/golden.h"
#include "text/golden.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void qn_golden_bound(qn_golden_case *c, const char *what, double difference, double tolerance)
{
    double error = difference / tolerance;
    if (!(error <= c->line.error) || !c->line.tensor[0]) { // NaN counts as worst
        c->line.error = isnan(error) ? INFINITY : error;
        c->line.relative = difference;
        snprintf(c->line.tensor, sizeof c->line.tensor, "%s", what);
    }
}

qn_result qn_golden_compare(qn_golden_case *c, const char *tensor, const float *got, uint64_t count,
                            double floor, double tolerance)
{
    if (!qn_safetensors_find(c->io, tensor)) return QN_OK;
    float *want;
    QN_TRY(qn_golden_f32(c, tensor, count, &want, NULL));
    double most = 0, scale = floor;
    for (uint64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
        if (fabs((double)want[i]) > scale) scale = fabs((double)want[i]);
    }
    qn_free(want);
    qn_golden_bound(c, tensor, most / scale, tolerance);
    return QN_OK;
}

qn_result qn_golden_compare_int(qn_golden_case *c, const char *tensor, const int32_t *got,
                                uint64_t count)
{
    if (!qn_safetensors_find(c->io, tensor)) return QN_OK;
    int32_t *want;
    QN_TRY(qn_golden_i32(c, tensor, count, &want, NULL));
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < count; i++) wrong += got[i] != want[i];
    qn_free(want);
    qn_golden_bound(c, tensor, (double)wrong, 0.5);
    return QN_OK;
}

static qn_result find(const qn_golden_case *c, const char *tensor, uint64_t count,
                      const qn_safetensor **out)
{
    *out = qn_safetensors_find(c->io, tensor);
    if (!*out) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", c->dir, tensor);
    if (count && (*out)->count != count)
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s has %llu elements, expected %llu", c->dir,
                       tensor, (unsigned long long)(*out)->count, (unsigned long long)count);
    return QN_OK;
}

qn_result qn_golden_f32(const qn_golden_case *c, const char *tensor, uint64_t count, float **out,
                        uint64_t *found)
{
    const qn_safetensor *t;
    *out = NULL;
    QN_TRY(find(c, tensor, count, &t));
    float *x = qn_malloc((size_t)t->count * sizeof *x);
    if (!x) return qn_no_memory((size_t)t->count * sizeof *x);
    qn_result r = qn_safetensor_f32(t, 0, t->count, x);
    if (r != QN_OK) {
        qn_free(x);
        return r;
    }
    *out = x;
    if (found) *found = t->count;
    return QN_OK;
}

qn_result qn_golden_i32(const qn_golden_case *c, const char *tensor, uint64_t count, int32_t **out,
                        uint64_t *found)
{
    const qn_safetensor *t;
    *out = NULL;
    QN_TRY(find(c, tensor, count, &t));
    int64_t *wide = qn_malloc((size_t)t->count * sizeof *wide);
    int32_t *x = qn_malloc((size_t)t->count * sizeof *x);
    qn_result r = wide && x ? qn_safetensor_i64(t, 0, t->count, wide)
                            : qn_no_memory((size_t)t->count * sizeof *wide);
    for (uint64_t i = 0; r == QN_OK && i < t->count; i++) {
        if (wide[i] < INT32_MIN || wide[i] > INT32_MAX)
            r = qn_fail(QN_ERR_FORMAT, "%s: tensor %s holds %lld, which needs more than 32 bits",
                        c->dir, tensor, (long long)wide[i]);
        else
            x[i] = (int32_t)wide[i];
    }
    qn_free(wide);
    if (r != QN_OK) {
        qn_free(x);
        return r;
    }
    *out = x;
    if (found) *found = t->count;
    return QN_OK;
}

void qn_free_all(void **items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        qn_free(items[i]);
        items[i] = NULL;
    }
}

qn_result qn_run_once(qn_graph *g, const qn_feed *feeds, size_t feed_count,
                      const qn_tensor *const *outputs, size_t output_count, void **out)
{
    qn_plan *plan = NULL;
    qn_plan_opts opts = { .outputs = outputs, .output_count = output_count };
    qn_result r = qn_plan_create(g, &opts, &plan);
    for (size_t i = 0; r == QN_OK && i < feed_count; i++)
        r = qn_plan_set(plan, feeds[i].input, feeds[i].data,
                        (uint64_t)qn_shape_count(feeds[i].input->shape) * 4);
    if (r == QN_OK) r = qn_plan_run(plan);
    for (size_t i = 0; r == QN_OK && i < output_count; i++) {
        uint64_t bytes = (uint64_t)qn_shape_count(outputs[i]->shape) * 4;
        out[i] = qn_malloc((size_t)bytes);
        r = out[i] ? qn_plan_get(plan, outputs[i], out[i], bytes) : qn_no_memory((size_t)bytes);
    }
    if (r != QN_OK) qn_free_all(out, output_count);
    qn_plan_destroy(&plan);
    return r;
}

// The forms of tensor cases, told apart by a tensor that only they hold.
static const struct {
    const char *tensor;
    qn_result (*run)(qn_golden_case *c);
} forms[] = {
    { "train.input_ids", qn_golden_trace },
    { "input_ids", qn_golden_model },
    { "param.experts.weight", qn_golden_experts },
    { "rem", qn_golden_attention },
};

static void finish(qn_golden_report *report, qn_golden_line *line)
{
    *(line->passed ? &report->passed : &report->failed) += 1;
    report->line(report->user, line);
}

// `run` NULL: by the tensors of the file.
static void run_tensors(qn_device *dev, const char *dir, const char *file,
                        qn_result (*run)(qn_golden_case *), qn_golden_report *report)
{
    qn_golden_case c = { .dev = dev, .dir = dir, .line.name = dir };
    char *path = qn_path_join(dir, file);
    qn_result r = path ? qn_safetensors_open(path, &c.io) : qn_no_memory(strlen(dir));
    for (size_t i = 0; r == QN_OK && !run && i < sizeof forms / sizeof *forms; i++)
        if (qn_safetensors_find(c.io, forms[i].tensor)) run = forms[i].run;
    if (r == QN_OK && !run)
        r = qn_fail(QN_ERR_UNSUPPORTED, "%s: a form of case that is not known", dir);
    if (r == QN_OK && !dev)
        r = qn_fail(QN_ERR_NO_DEVICE, "%s: needs a Vulkan device", dir);
    if (r == QN_OK) r = run(&c);
    c.line.passed = r == QN_OK && c.line.error <= 1;
    if (r != QN_OK) snprintf(c.line.detail, sizeof c.line.detail, "%s", qn_error_message());
    qn_safetensors_close(&c.io);
    qn_free(path);
    finish(report, &c.line);
}

// One line of a tokenizer folder's report.
typedef struct token_report {
    qn_golden_report *report;
    const char *dir;
} token_report;

static void token_line(void *user, const char *name, bool passed, const char *detail)
{
    token_report *t = user;
    char full[512];
    snprintf(full, sizeof full, "%s:%s", t->dir, name);
    qn_golden_line line = { .name = full, .passed = passed, .error = passed ? 0 : INFINITY };
    snprintf(line.detail, sizeof line.detail, "%s", detail ? detail : "");
    finish(t->report, &line);
}

static void run_tokenizer(const char *dir, qn_golden_report *report)
{
    token_report t = { report, dir };
    if (qn_golden_tokenizer(dir, token_line, &t) != QN_OK)
        token_line(&t, "tokenizer", false, qn_error_message());
}

static void run_tab(qn_device *dev, const char *dir, qn_golden_report *report)
{
    qn_golden_case c = { .dev = dev, .dir = dir, .line.name = dir };
    qn_result r = qn_tab_golden(&c);
    c.line.passed = r == QN_OK && c.line.error <= 1;
    if (r != QN_OK) snprintf(c.line.detail, sizeof c.line.detail, "%s", qn_error_message());
    qn_safetensors_close(&c.io);
    finish(report, &c.line);
}

static qn_result walk(qn_device *dev, const char *dir, qn_golden_report *report, int depth)
{
    enum { DEEPEST = 32 };
    if (depth > DEEPEST) return qn_fail(QN_ERR_INVALID, "%s lies too deep", dir);
    char **names;
    size_t count;
    QN_TRY(qn_list_dir(dir, &names, &count));
    if (qn_golden_tokenizer_matches(dir)) run_tokenizer(dir, report);
    if (qn_tab_golden_matches(dir)) run_tab(dev, dir, report);
    if (qn_golden_merge_matches(dir)) qn_golden_merge(dev, dir, report);
    if (qn_golden_bricks_matches(dir)) qn_golden_bricks(dir, report);
    if (qn_golden_recipes_match(dir)) qn_golden_recipes(dev, dir, report);
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        char *path = qn_path_join(dir, names[i]);
        if (!path)
            r = qn_no_memory(strlen(dir));
        else if (strcmp(names[i], "io.safetensors") == 0)
            run_tensors(dev, dir, names[i], NULL, report);
        else if (strcmp(names[i], "case.safetensors") == 0)
            run_tensors(dev, dir, names[i], qn_golden_memory, report);
        else if (qn_is_dir(path))
            r = walk(dev, path, report, depth + 1);
        qn_free(path);
    }
    qn_free_names(names, count);
    return r;
}

qn_result qn_golden_replay(qn_device *dev, const char *dir, qn_golden_report *report)
{
    int before = report->passed + report->failed;
    QN_TRY(walk(dev, dir, report, 0));
    if (report->passed + report->failed == before)
        return qn_fail(QN_ERR_INVALID, "%s holds no golden case", dir);
    return QN_OK;
}
