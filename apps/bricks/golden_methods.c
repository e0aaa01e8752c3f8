// Golden cases of merge methods.
#include "bricks/golden.h"
#include "bricks/method.h"
#include "bricks/tensor.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MODELS 32 // of one case

typedef struct replay {
    qn_device *dev;
    const char *dir;
    qn_golden_report *report;
    qn_blend *blend;
    qn_json root;
    struct {
        const char *name;
        qn_safetensors *file;
    } models[MODELS];
    size_t model_count;
} replay;

// One case: what it names, and the worst of its elements.
typedef struct golden_case {
    replay *all;
    qn_json node;
    const qn_method *method;
    qn_merge_input inputs[MODELS];
    qn_safetensors *files[MODELS];
    size_t count;
    int base;
    qn_merge_params params;
    qn_safetensors *output;
    const char *dtype, *out_dtype;
    double tolerance, hard;
    uint64_t seed, outside, elements;
    bool masks;
    qn_golden_line line;
} golden_case;

static qn_result open_file(const replay *p, const char *name, qn_safetensors **out)
{
    char *path = qn_path_join(p->dir, name);
    if (!path) return qn_no_memory(strlen(name));
    qn_result r = qn_safetensors_open(path, out);
    qn_free(path);
    return r;
}

static qn_result read_params(qn_json object, qn_merge_params *out)
{
    *out = (qn_merge_params){ 0 };
    for (qn_json v = qn_json_first(object); v.node; v = qn_json_next(v)) {
        qn_merge_param p;
        double number = 0;
        bool flag = false;
        if (!qn_merge_param_find(qn_json_key(v), &p))
            return qn_json_fail(v, "an unknown parameter");
        if (qn_json_kind_of(v) == QN_JSON_BOOL) {
            QN_TRY(qn_json_bool(v, NULL, &flag));
            number = flag;
        } else {
            QN_TRY(qn_json_number(v, NULL, -INFINITY, INFINITY, &number));
        }
        qn_merge_params_set(out, p, number);
    }
    return QN_OK;
}

static qn_result add_model(golden_case *c, const char *name, qn_json params)
{
    if (c->count == MODELS) return qn_fail(QN_ERR_FORMAT, "more than %d models", MODELS);
    for (size_t i = 0; i < c->all->model_count; i++) {
        if (strcmp(c->all->models[i].name, name) != 0) continue;
        qn_merge_input *m = &c->inputs[c->count];
        *m = (qn_merge_input){ .model = name, .input = (int)c->count };
        c->files[c->count++] = c->all->models[i].file;
        return read_params(params, &m->params);
    }
    return qn_fail(QN_ERR_FORMAT, "model %s is not in the list", name);
}

static qn_result read_case(golden_case *c)
{
    const char *base, *output, *method, *masks;
    qn_json models, params;
    QN_TRY(qn_json_string(c->node, "method", &method));
    c->method = qn_method_find(method);
    if (!c->method) return qn_fail(QN_ERR_UNSUPPORTED, "method %s is not known", method);
    QN_TRY(qn_json_array(c->node, "models", &models));
    QN_TRY(qn_json_string_or(c->node, "base_model", NULL, &base));
    c->base = -1;
    for (qn_json m = qn_json_first(models); m.node; m = qn_json_next(m)) {
        const char *name;
        QN_TRY(qn_json_string(m, "model", &name));
        QN_TRY(qn_json_object(m, "parameters", &params));
        QN_TRY(add_model(c, name, params));
        if (base && strcmp(name, base) == 0) c->base = (int)c->count - 1;
    }
    if (base && c->base < 0) {
        QN_TRY(add_model(c, base, (qn_json){ 0 }));
        c->base = (int)c->count - 1;
    }
    int64_t seed;
    QN_TRY(qn_json_object(c->node, "parameters", &params));
    QN_TRY(read_params(params, &c->params));
    QN_TRY(qn_json_string_or(c->node, "dtype", NULL, &c->dtype));
    QN_TRY(qn_json_string_or(c->node, "out_dtype", NULL, &c->out_dtype));
    QN_TRY(qn_json_string_or(c->node, "masks", "", &masks));
    QN_TRY(qn_json_int_or(c->node, "seed", 0, QN_JSON_INT_MAX, 0, &seed));
    QN_TRY(qn_json_number_or(c->node, "tol", 0, 1, 3e-6, &c->tolerance));
    QN_TRY(qn_json_number_or(c->node, "hard", 0, 10, c->tolerance, &c->hard));
    c->masks = *masks != 0;
    c->seed = (uint64_t)seed;
    QN_TRY(qn_json_string(c->node, "output", &output));
    return open_file(c->all, output, &c->output);
}

static bool is_embedding(const golden_case *c, const char *tensor)
{
    qn_json list = qn_json_find(c->all->root, "embed_tensors");
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        const char *name;
        if (qn_json_string(v, NULL, &name) == QN_OK && strcmp(name, tensor) == 0) return true;
    }
    return false;
}

static qn_result find_masks(const golden_case *c, const char *tensor, const uint8_t **masks)
{
    for (size_t i = 0; i < c->count; i++) {
        char name[256];
        if ((int)i == c->base) continue;
        snprintf(name, sizeof name, "mask.%s.%s", c->inputs[i].model, tensor);
        const qn_safetensor *t = qn_safetensors_find(c->output, name);
        if (!t) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", name);
        masks[i] = t->data;
    }
    return QN_OK;
}

static qn_result judge(golden_case *c, const char *tensor, const qn_safetensor *want,
                       const float *got)
{
    float *expected = qn_malloc((size_t)want->count * sizeof *expected);
    if (!expected) return qn_no_memory((size_t)want->count * sizeof *expected);
    qn_result r = qn_safetensor_f32(want, 0, want->count, expected);
    double most = 0, scale = 1e-6;
    for (uint64_t i = 0; r == QN_OK && i < want->count; i++)
        scale = fmax(scale, fabs((double)expected[i]));
    for (uint64_t i = 0; r == QN_OK && i < want->count; i++) {
        double d = fabs((double)got[i] - (double)expected[i]) / scale;
        c->outside += !(d <= c->tolerance);
        if (!(d <= most)) most = isnan(d) ? INFINITY : d;
    }
    c->elements += want->count;
    qn_free(expected);
    if (most > c->line.relative || !c->line.tensor[0]) {
        c->line.relative = most;
        snprintf(c->line.tensor, sizeof c->line.tensor, "%s", tensor);
    }
    return r;
}

static qn_result run_tensor(golden_case *c, const char *tensor)
{
    qn_tensor_source sources[MODELS];
    const uint8_t *masks[MODELS];
    char name[256];
    for (size_t i = 0; i < c->count; i++) {
        const qn_safetensor *t = qn_safetensors_find(c->files[i], tensor);
        if (!t) return qn_fail(QN_ERR_FORMAT, "model %s lacks %s", c->inputs[i].model, tensor);
        sources[i] = (qn_tensor_source){ .tensor = t };
    }
    snprintf(name, sizeof name, "out.%s", tensor);
    const qn_safetensor *want = qn_safetensors_find(c->output, name);
    if (!want) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", name);
    if (c->masks) QN_TRY(find_masks(c, tensor, masks));
    qn_merge_tensor t = {
        .name = tensor,
        .method = c->method,
        .models = c->inputs,
        .sources = sources,
        .count = c->count,
        .base = c->base,
        .params = c->params,
        .seed = c->seed,
        .embedding = is_embedding(c, tensor),
        .masks = c->masks ? masks : NULL,
    };
    QN_TRY(qn_merge_dtype(c->dtype, &t.dtype));
    QN_TRY(qn_merge_dtype(c->out_dtype, &t.out_dtype));
    QN_TRY(qn_merge_prepare(&t));
    if (t.out_count != want->count)
        return qn_fail(QN_ERR_FORMAT, "%s has %llu elements, expected %llu", tensor,
                       (unsigned long long)t.out_count, (unsigned long long)want->count);
    float *got = qn_malloc((size_t)t.out_count * sizeof *got + 1);
    if (!got) return qn_no_memory((size_t)t.out_count * sizeof *got);
    qn_result r = qn_merge_load(c->all->blend, 0, &t);
    if (r == QN_OK) r = qn_merge_compute(c->all->blend, 0, &t);
    qn_safetensor result = { .name = tensor,
                             .dtype = t.stored,
                             .count = t.out_count,
                             .data = qn_blend_result(c->all->blend, 0) };
    if (r == QN_OK) r = qn_safetensor_f32(&result, 0, t.out_count, got);
    if (r == QN_OK) r = judge(c, tensor, want, got);
    qn_free(got);
    return r;
}

static qn_result run_case(golden_case *c)
{
    qn_json tensors;
    double allowed;
    QN_TRY(read_case(c));
    QN_TRY(qn_json_array(c->node, "tensors", &tensors));
    for (qn_json t = qn_json_first(tensors); t.node; t = qn_json_next(t)) {
        const char *name;
        QN_TRY(qn_json_string(t, NULL, &name));
        QN_TRY(run_tensor(c, name));
    }
    QN_TRY(qn_json_number_or(c->node, "max_outside_fraction", 0, 1, 0, &allowed));
    c->line.error = c->line.relative / c->hard;
    c->line.passed =
        c->line.relative <= c->hard && (double)c->outside <= allowed * (double)c->elements;
    if (c->outside)
        snprintf(c->line.detail, sizeof c->line.detail, "%llu of %llu elements beyond %.0e",
                 (unsigned long long)c->outside, (unsigned long long)c->elements, c->tolerance);
    return QN_OK;
}

static void replay_case(replay *p, qn_json node)
{
    static golden_case c; // large; cases are replayed one after the other
    c = (golden_case){ .all = p, .node = node };
    const char *id = "?";
    char name[512];
    qn_result r = qn_json_string(node, "id", &id);
    snprintf(name, sizeof name, "%s:%s", p->dir, id);
    c.line.name = name;
    if (r == QN_OK) r = run_case(&c);
    if (r != QN_OK) {
        c.line.passed = false;
        snprintf(c.line.detail, sizeof c.line.detail, "%s", qn_error_message());
    }
    qn_safetensors_close(&c.output);
    *(c.line.passed ? &p->report->passed : &p->report->failed) += 1;
    p->report->line(p->report->user, &c.line);
}

static qn_result open_models(replay *p)
{
    qn_json models;
    QN_TRY(qn_json_object(p->root, "models", &models));
    for (qn_json m = qn_json_first(models); m.node; m = qn_json_next(m)) {
        const char *file;
        if (p->model_count == MODELS) return qn_json_fail(m, "more than %d models", MODELS);
        QN_TRY(qn_json_string(m, NULL, &file));
        p->models[p->model_count].name = qn_json_key(m);
        QN_TRY(open_file(p, file, &p->models[p->model_count].file));
        p->model_count++;
    }
    return QN_OK;
}

static char *cases_path(const char *dir)
{
    return qn_path_join(dir, "cases.json");
}

bool qn_golden_merge_matches(const char *dir)
{
    char *path = cases_path(dir);
    bool there = path && qn_file_exists(path);
    qn_free(path);
    return there;
}

static qn_result replay_cases(replay *p)
{
    qn_json cases;
    QN_TRY(qn_json_array(p->root, "cases", &cases));
    QN_TRY(open_models(p));
    if (!p->dev) return qn_fail(QN_ERR_NO_DEVICE, "%s: needs a Vulkan device", p->dir);
    QN_TRY(qn_blend_create(p->dev, &p->blend));
    for (qn_json c = qn_json_first(cases); c.node; c = qn_json_next(c)) replay_case(p, c);
    return QN_OK;
}

void qn_golden_merge(qn_device *dev, const char *dir, qn_golden_report *report)
{
    replay p = { .dev = dev, .dir = dir, .report = report };
    qn_json_doc *doc = NULL;
    char *path = cases_path(dir);
    qn_result r = path ? qn_json_open(path, NULL, &doc) : qn_no_memory(strlen(dir));
    qn_free(path);
    if (r == QN_OK) {
        p.root = qn_json_root(doc);
        r = replay_cases(&p);
    }
    if (r != QN_OK) {
        qn_golden_line line = { .name = dir };
        snprintf(line.detail, sizeof line.detail, "%s", qn_error_message());
        report->failed++;
        report->line(report->user, &line);
    }
    qn_blend_destroy(&p.blend);
    for (size_t i = 0; i < p.model_count; i++) qn_safetensors_close(&p.models[i].file);
    qn_json_close(&doc);
}
