// Reading merge recipes.
#include "recipe.h"

#include "nearest.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define RECIPE_LIMIT ((uint64_t)4 << 20) // bytes

// ---------------------------------------------------------------------------------- references

// Cuts "@revision" off; a revision says nothing about a local folder.
static char *without_revision(qn_arena *a, const char *text, size_t size)
{
    const char *at = memchr(text, '@', size);
    if (at && at != text) size = (size_t)(at - text);
    return qn_arena_printf(a, "%.*s", (int)size, text);
}

qn_result qn_model_ref_parse(qn_arena *a, const char *text, qn_model_ref *out)
{
    if (!*text) return qn_fail(QN_ERR_FORMAT, "a model without a name");
    const char *plus = strchr(text, '+');
    *out = (qn_model_ref){ .text = qn_arena_printf(a, "%s", text) };
    if (qn_is_dir(text)) plus = NULL; // a folder that is called so
    size_t size = plus ? (size_t)(plus - text) : strlen(text);
    out->path = qn_is_dir(text) ? out->text : without_revision(a, text, size);
    if (plus) out->lora = without_revision(a, plus + 1, strlen(plus + 1));
    if (!out->text || !out->path || (plus && !out->lora)) return qn_no_memory(size);
    if (!*out->path || (plus && !*out->lora))
        return qn_fail(QN_ERR_FORMAT, "\"%.80s\" names no model", text);
    return QN_OK;
}

bool qn_model_ref_equal(const qn_model_ref *a, const qn_model_ref *b)
{
    if (strcmp(a->path, b->path) != 0) return false;
    if (!a->lora || !b->lora) return !a->lora && !b->lora;
    return strcmp(a->lora, b->lora) == 0;
}

static qn_result path_of(const qn_yaml *v, const char **out)
{
    const char *path = v->text;
    if (v->kind == QN_YAML_MAP) QN_TRY(qn_yaml_string(v, "path", &path));
    if (v->kind == QN_YAML_LIST || !path) return qn_yaml_fail(v, "expected the path of a model");
    *out = path;
    return QN_OK;
}

static qn_result read_ref(qn_recipes *r, const qn_yaml *v, qn_model_ref *out)
{
    const char *text = v->text, *lora = NULL;
    if (v->kind == QN_YAML_LIST) return qn_yaml_fail(v, "expected a model");
    if (v->kind == QN_YAML_MAP) {
        const qn_yaml *model = qn_yaml_find(v, "model"), *adapter = qn_yaml_find(v, "lora");
        if (qn_yaml_is_null(model)) return qn_yaml_missing(v, "model");
        qn_yaml_warn_unknown(v, "model|lora|override_architecture");
        QN_TRY(path_of(model, &text));
        if (!qn_yaml_is_null(adapter)) QN_TRY(path_of(adapter, &lora));
        if (lora) text = qn_arena_printf(&r->arena, "%s+%s", text, lora);
        if (!text) return qn_no_memory(1);
    }
    qn_result result = qn_model_ref_parse(&r->arena, text, out);
    out->at = v;
    if (result == QN_ERR_FORMAT) return qn_yaml_fail(v, "\"%.80s\" names no model", text);
    return result;
}

// ---------------------------------------------------------------------------------- parameters

static qn_result check_value(const qn_yaml *v, int depth);

static qn_result check_list(const qn_yaml *v, int depth)
{
    if (!v->count) return qn_yaml_fail(v, "an empty list of values");
    for (size_t i = 0; i < v->count; i++) {
        double number;
        const qn_yaml *x = v->items[i];
        if (x->kind == QN_YAML_LIST) return qn_yaml_fail(x, "a list within a list of values");
        if (x->kind == QN_YAML_MAP && depth) return qn_yaml_fail(x, "a filter within a filter");
        if (x->kind != v->items[0]->kind)
            return qn_yaml_fail(x, "numbers and filters in one list of values");
        if (x->kind == QN_YAML_SCALAR && !qn_yaml_as_number(x, &number))
            return qn_yaml_fail(x, "\"%.60s\", expected a number", x->text);
        if (x->kind == QN_YAML_MAP) QN_TRY(check_value(x, depth));
    }
    return QN_OK;
}

// A number, true or false, numbers along the layers, or filters with such values.
static qn_result check_value(const qn_yaml *v, int depth)
{
    double number;
    bool flag;
    if (v->kind == QN_YAML_LIST) return check_list(v, depth);
    if (v->kind == QN_YAML_MAP) {
        const qn_yaml *value = qn_yaml_find(v, "value");
        const char *filter;
        if (depth) return qn_yaml_fail(v, "a filter within a filter");
        qn_yaml_warn_unknown(v, "filter|value");
        QN_TRY(qn_yaml_string(v, "filter", &filter));
        if (qn_yaml_is_null(value)) return qn_yaml_missing(v, "value");
        return check_value(value, depth + 1);
    }
    if (qn_yaml_as_number(v, &number) || qn_yaml_as_bool(v, &flag)) return QN_OK;
    return qn_yaml_fail(v, "\"%.60s\", expected a number, true or false", v->text);
}

static qn_result read_params(const qn_recipe *r, const qn_yaml *owner, const qn_yaml **out)
{
    char words[512] = "";
    size_t used = 0;
    QN_TRY(qn_yaml_map(owner, "parameters", out));
    if (!*out) return QN_OK;
    for (size_t i = 0; i < r->method->param_count && used < sizeof words; i++)
        used += (size_t)snprintf(words + used, sizeof words - used, "%s%s", i ? "|" : "",
                                 qn_merge_param_name(r->method->params[i].param));
    for (size_t i = 0; i < (*out)->count; i++) {
        qn_merge_param p;
        if (!qn_merge_param_find((*out)->keys[i]->text, &p)) continue; // warned of below
        QN_TRY(check_value((*out)->items[i], 0));
    }
    for (size_t i = 0; i < (*out)->count; i++) {
        qn_merge_param p;
        qn_yaml one = { .kind = QN_YAML_MAP, .keys = &(*out)->keys[i], .count = 1 };
        // What another method takes may stand in a file that is shared between methods.
        if (!qn_merge_param_find((*out)->keys[i]->text, &p)) qn_yaml_warn_unknown(&one, words);
    }
    return QN_OK;
}

static bool filter_fits(const qn_yaml *condition, const char *tensor)
{
    const qn_yaml *f = qn_yaml_find(condition, "filter");
    return qn_yaml_is_null(f) || strcmp(f->text, "*") == 0 || strstr(tensor, f->text);
}

static bool value_at(const qn_yaml *v, const char *tensor, double t, double *out)
{
    bool flag;
    if (v->kind == QN_YAML_MAP)
        return filter_fits(v, tensor) && value_at(qn_yaml_find(v, "value"), tensor, t, out);
    if (v->kind == QN_YAML_SCALAR) {
        if (qn_yaml_as_number(v, out)) return true;
        if (!qn_yaml_as_bool(v, &flag)) return false;
        *out = flag;
        return true;
    }
    if (v->items[0]->kind == QN_YAML_MAP) {
        for (size_t i = 0; i < v->count; i++)
            if (filter_fits(v->items[i], tensor))
                return value_at(qn_yaml_find(v->items[i], "value"), tensor, t, out);
        return false;
    }
    double s = t * (double)(v->count - 1), low = 0, high = 0;
    size_t i = (size_t)s, j = i + 1 < v->count ? i + 1 : v->count - 1;
    if (!qn_yaml_as_number(v->items[i], &low) || !qn_yaml_as_number(v->items[j], &high))
        return false;
    double part = s - (double)i;
    *out = part == 0 ? low : (1 - part) * low + part * high;
    return true;
}

qn_result qn_recipe_evaluate(const qn_yaml *const *scopes, size_t count, const char *param,
                             const char *tensor, double t, double *out, bool *found)
{
    *found = false;
    for (size_t i = 0; i < count && !*found; i++) {
        const qn_yaml *v = qn_yaml_find(scopes[i], param);
        if (v && !qn_yaml_is_null(v)) *found = value_at(v, tensor, t, out);
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- slices

static qn_result read_range(const qn_yaml *source, qn_recipe_source *s)
{
    const qn_yaml *range;
    double a, b;
    QN_TRY(qn_yaml_list(source, "layer_range", &range));
    if (!range) return QN_OK;
    if (range->count != 2 || !qn_yaml_as_number(range->items[0], &a) ||
        !qn_yaml_as_number(range->items[1], &b) || a != floor(a) || b != floor(b) || a < 0 ||
        b <= a || b > 1e6)
        return qn_yaml_fail(range, "layer_range: expected [first, end] with 0 <= first < end");
    s->ranged = true;
    s->first = (int64_t)a;
    s->end = (int64_t)b;
    return QN_OK;
}

#define SOURCE_KEYS "model|parameters|layer_range"

static qn_result read_source(qn_recipes *all, qn_recipe *r, const qn_yaml *v, bool ranged,
                             qn_recipe_source *s)
{
    if (v->kind == QN_YAML_SCALAR) return read_ref(all, v, &s->model);
    if (v->kind != QN_YAML_MAP) return qn_yaml_fail(v, "expected {model: ..., parameters: ...}");
    const qn_yaml *model = qn_yaml_find(v, "model");
    if (qn_yaml_is_null(model)) return qn_yaml_missing(v, "model");
    for (size_t i = 0; i < v->count; i++) {
        qn_merge_param p;
        const qn_yaml *k = v->keys[i];
        if (qn_merge_param_find(k->text, &p) && qn_method_takes(r->method, p))
            qn_log(
                QN_LOG_WARN,
                "%s: line %d, column %d: %s beside `parameters` has no effect; it belongs inside",
                k->file, k->line, k->column, k->text);
    }
    qn_yaml_warn_unknown(v, SOURCE_KEYS);
    QN_TRY(read_ref(all, model, &s->model));
    QN_TRY(read_params(r, v, &s->params));
    QN_TRY(read_range(v, s));
    if (!ranged && s->ranged)
        return qn_yaml_fail(v, "layer_range belongs into slices: models are merged as a whole");
    return QN_OK;
}

static qn_result read_sources(qn_recipes *all, qn_recipe *r, const qn_yaml *list, bool ranged,
                              qn_recipe_slice *slice)
{
    if (!list->count) return qn_yaml_fail(list, "an empty list of models");
    slice->at = list;
    slice->sources = qn_arena_alloc(&all->arena, (list->count + 1) * sizeof *slice->sources);
    if (!slice->sources) return qn_no_memory(list->count * sizeof *slice->sources);
    for (size_t i = 0; i < list->count; i++) {
        qn_recipe_source *s = &slice->sources[slice->count++];
        QN_TRY(read_source(all, r, list->items[i], ranged, s));
        const qn_recipe_source *one = &slice->sources[0];
        if (s->ranged && one->ranged && s->end - s->first != one->end - one->first)
            return qn_yaml_fail(list->items[i],
                                "layer_range has %lld layers, but that of the slice's first "
                                "source has %lld",
                                (long long)(s->end - s->first), (long long)(one->end - one->first));
    }
    return QN_OK;
}

static qn_result read_slice(qn_recipes *all, qn_recipe *r, const qn_yaml *v, qn_recipe_slice *slice)
{
    const qn_yaml *sources;
    if (v->kind != QN_YAML_MAP) return qn_yaml_fail(v, "expected {sources: [...]}");
    qn_yaml_warn_unknown(v, "sources|parameters|base_model");
    QN_TRY(qn_yaml_list(v, "sources", &sources));
    if (!sources) return qn_yaml_missing(v, "sources");
    QN_TRY(read_params(r, v, &slice->params));
    const qn_yaml *base = qn_yaml_find(v, "base_model");
    slice->has_base = !qn_yaml_is_null(base);
    if (slice->has_base) QN_TRY(read_ref(all, base, &slice->base));
    return read_sources(all, r, sources, true, slice);
}

// `models` is one slice with all layers of every model; a base that is not among them comes last.
static qn_result read_models(qn_recipes *all, qn_recipe *r, const qn_yaml *list)
{
    r->listed_models = true;
    r->slice_count = 1;
    r->slices = qn_arena_alloc(&all->arena, sizeof *r->slices);
    if (!r->slices) return qn_no_memory(sizeof *r->slices);
    qn_recipe_slice *s = &r->slices[0];
    QN_TRY(read_sources(all, r, list, false, s));
    if (!r->has_base || !r->method->base_counts) return QN_OK;
    for (size_t i = 0; i < s->count; i++)
        if (qn_model_ref_equal(&s->sources[i].model, &r->base)) return QN_OK;
    s->sources[s->count++] = (qn_recipe_source){ .model = r->base };
    return QN_OK;
}

static qn_result read_body(qn_recipes *all, qn_recipe *r, const qn_yaml *owner)
{
    const qn_yaml *models, *slices;
    QN_TRY(qn_yaml_list(owner, "models", &models));
    QN_TRY(qn_yaml_list(owner, "slices", &slices));
    if (models && slices)
        return qn_yaml_fail(owner, "both models and slices, expected one of them");
    if (models) return read_models(all, r, models);
    if (!slices) return qn_yaml_missing(owner, "models");
    if (!slices->count) return qn_yaml_fail(slices, "an empty list of slices");
    r->slices = qn_arena_alloc(&all->arena, slices->count * sizeof *r->slices);
    if (!r->slices) return qn_no_memory(slices->count * sizeof *r->slices);
    for (size_t i = 0; i < slices->count; i++)
        QN_TRY(read_slice(all, r, slices->items[i], &r->slices[r->slice_count++]));
    return QN_OK;
}

// ---------------------------------------------------------------------------------- documents

#define KEYS                                                                                       \
    "merge_method|models|slices|modules|base_model|parameters|dtype|out_dtype|tokenizer_source|"   \
    "tokenizer|chat_template|name"

static qn_result read_method(const qn_yaml *root, qn_recipe *r)
{
    const char *name;
    QN_TRY(qn_yaml_string(root, "merge_method", &name));
    if (!name) return qn_yaml_missing(root, "merge_method");
    r->method = qn_method_find(name);
    if (r->method) return QN_OK;
    qn_nearest n = { .word = name };
    for (size_t i = 0; i < qn_method_count; i++) qn_nearest_offer(&n, qn_methods[i].name);
    return qn_yaml_fail(qn_yaml_find(root, "merge_method"), "unknown merge_method \"%.60s\"%s%s%s",
                        name, n.best ? "; did you mean '" : "", n.best ? n.best : "",
                        n.best ? "'?" : "");
}

static qn_result read_type(const qn_yaml *root, const char *key, const char **out)
{
    static const char *const names[] = { "float32", "float16", "bfloat16" };
    const char *name;
    *out = NULL;
    QN_TRY(qn_yaml_string(root, key, &name));
    if (!name) return QN_OK;
    const char *plain = strncmp(name, "torch.", 6) == 0 ? name + 6 : name;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], plain) == 0) *out = names[i];
    if (*out) return QN_OK;
    return qn_yaml_fail(qn_yaml_find(root, key),
                        "%s \"%.40s\", expected float32, float16 or bfloat16", key, name);
}

static qn_result read_tokenizer(const qn_yaml *root, qn_recipe *r)
{
    const qn_yaml *t;
    double pad;
    QN_TRY(qn_yaml_string(root, "tokenizer_source", &r->tokenizer_source));
    QN_TRY(qn_yaml_map(root, "tokenizer", &t));
    if (!t) return QN_OK;
    if (r->tokenizer_source)
        return qn_yaml_fail(t, "both tokenizer and tokenizer_source, expected one of them");
    qn_yaml_warn_unknown(t, "source|tokens|pad_to_multiple_of");
    QN_TRY(qn_yaml_string(t, "source", &r->tokenizer_source));
    if (!r->tokenizer_source) r->tokenizer_source = "union";
    QN_TRY(qn_yaml_map(t, "tokens", &r->tokens));
    QN_TRY(qn_yaml_number(t, "pad_to_multiple_of", 0, &pad));
    if (pad < 0 || pad > 1e6 || pad != floor(pad))
        return qn_yaml_fail(qn_yaml_find(t, "pad_to_multiple_of"),
                            "pad_to_multiple_of: expected a whole number from 1 to 1000000");
    r->pad_to_multiple_of = (int64_t)pad;
    return QN_OK;
}

static qn_result read_modules(const qn_yaml *root, qn_recipe *r, const qn_yaml **body)
{
    const qn_yaml *modules;
    *body = root;
    QN_TRY(qn_yaml_map(root, "modules", &modules));
    if (!modules) return QN_OK;
    if (qn_yaml_find(root, "models") || qn_yaml_find(root, "slices"))
        return qn_yaml_fail(modules, "modules beside models or slices, expected one of them");
    const qn_yaml *module = qn_yaml_find(modules, "default");
    if (!module || modules->count != 1)
        return qn_yaml_fail(modules, "models of several modules are not supported, expected "
                                     "`default` alone");
    qn_yaml_warn_unknown(module, "models|slices|parameters");
    QN_TRY(read_params(r, module, &r->module_params));
    *body = module;
    return QN_OK;
}

static qn_result read_document(qn_recipes *all, const qn_yaml *root, qn_recipe *r)
{
    const qn_yaml *body;
    r->root = root;
    if (root->kind != QN_YAML_MAP) return qn_yaml_fail(root, "expected a map of keys");
    QN_TRY(read_method(root, r));
    qn_yaml_warn_unknown(root, KEYS);
    QN_TRY(qn_yaml_string(root, "name", &r->name));
    const qn_yaml *base = qn_yaml_find(root, "base_model");
    r->has_base = !qn_yaml_is_null(base);
    if (r->has_base) QN_TRY(read_ref(all, base, &r->base));
    if (!r->has_base && r->method->base == QN_BASE_REQUIRED) {
        const qn_yaml *slices = qn_yaml_find(root, "slices"); // each may name its own
        if (!slices) return qn_yaml_missing(root, "base_model");
    }
    QN_TRY(read_params(r, root, &r->params));
    QN_TRY(read_type(root, "dtype", &r->dtype));
    QN_TRY(read_type(root, "out_dtype", &r->out_dtype));
    QN_TRY(read_tokenizer(root, r));
    QN_TRY(qn_yaml_string(root, "chat_template", &r->chat_template));
    QN_TRY(read_modules(root, r, &body));
    return read_body(all, r, body);
}

static qn_result check_names(const qn_recipes *all)
{
    size_t unnamed = 0;
    for (size_t i = 0; i < all->count; i++) {
        unnamed += !all->items[i].name;
        for (size_t k = 0; k < i && all->items[i].name; k++)
            if (all->items[k].name && strcmp(all->items[k].name, all->items[i].name) == 0)
                return qn_yaml_fail(all->items[i].root, "a second document with the name %.60s",
                                    all->items[i].name);
    }
    if (unnamed > 1)
        return qn_yaml_fail(all->items[all->count - 1].root,
                            "%zu documents without a name, expected one, the final output",
                            unnamed);
    return QN_OK;
}

static qn_result read_all(qn_recipes *r, const char *name)
{
    if (!r->docs.count) return qn_fail(QN_ERR_FORMAT, "%s: the file holds no document", name);
    r->items = qn_arena_alloc(&r->arena, r->docs.count * sizeof *r->items);
    if (!r->items) return qn_no_memory(r->docs.count * sizeof *r->items);
    for (size_t i = 0; i < r->docs.count; i++)
        QN_TRY(read_document(r, r->docs.roots[i], &r->items[r->count++]));
    return check_names(r);
}

qn_result qn_recipes_parse(const char *name, const char *text, size_t size, qn_recipes *out)
{
    *out = (qn_recipes){ 0 };
    out->text = qn_strndup(text, size);
    qn_result r = out->text ? qn_yaml_parse(name, text, size, &out->docs) : qn_no_memory(size);
    if (r == QN_OK) r = read_all(out, name);
    if (r != QN_OK) qn_recipes_close(out);
    return r;
}

qn_result qn_recipes_open(const char *path, qn_recipes *out)
{
    char *text;
    size_t size;
    *out = (qn_recipes){ 0 };
    QN_TRY(qn_read_file(path, RECIPE_LIMIT, &text, &size));
    qn_result r = qn_recipes_parse(path, text, size, out);
    qn_free(text);
    return r;
}

void qn_recipes_close(qn_recipes *r)
{
    qn_yaml_free(&r->docs);
    qn_arena_free(&r->arena);
    qn_free(r->text);
    *r = (qn_recipes){ 0 };
}
