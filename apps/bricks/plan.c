// From a recipe and its models to the list of output tensors.
#include "plan.h"

#include "adapter.h"
#include "vocabulary.h"

#include <stdio.h>
#include <string.h>

// ---------------------------------------------------------------------------------- models

static int index_of(const qn_merge_plan *p, const qn_model_ref *ref)
{
    for (size_t i = 0; i < p->model_count; i++)
        if (qn_model_ref_equal(&p->models[i].ref, ref)) return (int)i;
    return -1;
}

static qn_result add_model(qn_merge_plan *p, const qn_merge_plan_opts *o, const qn_model_ref *ref)
{
    if (index_of(p, ref) >= 0) return QN_OK;
    qn_result r = qn_checkpoint_open(ref, o->parts, o->models, &p->models[p->model_count]);
    if (r == QN_OK) p->model_count++;
    if (r != QN_OK && ref->at)
        return qn_context_add(r, "%s: line %d", ref->at->file, ref->at->line);
    return r;
}

static qn_result check_architectures(const qn_merge_plan *p, const qn_merge_plan_opts *o)
{
    for (size_t i = 1; i < p->model_count && !o->allow_crimes; i++)
        if (strcmp(p->models[i].architecture, p->models[0].architecture) != 0)
            return qn_fail(QN_ERR_INVALID,
                           "%s is a %s, but %s is a %s; --allow-crimes merges them all the same",
                           p->models[i].ref.text, p->models[i].architecture, p->models[0].ref.text,
                           p->models[0].architecture);
    return QN_OK;
}

static qn_result open_models(qn_merge_plan *p, const qn_merge_plan_opts *o)
{
    const qn_recipe *r = p->recipe;
    size_t most = 1;
    for (size_t s = 0; s < r->slice_count; s++) most += r->slices[s].count + 1;
    p->models = qn_arena_alloc(&p->arena, most * sizeof *p->models);
    if (!p->models) return qn_no_memory(most * sizeof *p->models);
    for (size_t s = 0; s < r->slice_count; s++)
        for (size_t i = 0; i < r->slices[s].count; i++)
            QN_TRY(add_model(p, o, &r->slices[s].sources[i].model));
    p->base = -1;
    if (r->has_base) {
        QN_TRY(add_model(p, o, &r->base));
        p->base = index_of(p, &r->base);
    }
    return check_architectures(p, o);
}

const qn_checkpoint *qn_merge_plan_template(const qn_merge_plan *p)
{
    return &p->models[p->base >= 0 ? p->base : 0];
}

// ---------------------------------------------------------------------------------- sources

// Rows through an adapter: what the callback of a source needs.
typedef struct adapted {
    const qn_adapter_module *module;
    const qn_safetensor *w;
} adapted;

static qn_result adapted_rows(void *user, uint64_t first, uint64_t count, float *out)
{
    const adapted *a = user;
    return qn_adapter_rows(a->module, a->w, first, count, out);
}

static qn_result make_source(qn_merge_plan *p, const qn_checkpoint *c, const qn_safetensor *t,
                             qn_tensor_source *out)
{
    *out = (qn_tensor_source){ .tensor = t };
    const qn_adapter_module *m = qn_adapter_of(c->adapter, t->name);
    if (!m) return QN_OK;
    adapted *a = qn_arena_alloc(&p->arena, sizeof *a);
    if (!a) return qn_no_memory(sizeof *a);
    *a = (adapted){ m, t };
    out->rows = adapted_rows;
    out->user = a;
    out->row_count = t->rank ? t->dim[0] : 1;
    return QN_OK;
}

qn_result qn_merge_plan_source(qn_merge_plan *p, size_t model, const char *name,
                               qn_tensor_source *out)
{
    const qn_checkpoint *c = &p->models[model];
    const qn_safetensor *t = qn_checkpoint_find(c, name);
    if (!t && c->arch->head && strcmp(c->arch->head, name) == 0 && c->arch->tied)
        t = qn_checkpoint_find(c, c->arch->tied);
    *out = (qn_tensor_source){ 0 };
    return t ? make_source(p, c, t, out) : QN_OK;
}

// The parameters of the method for one tensor: those of a model, or (source NULL) all others.
static qn_result evaluate(const qn_merge_plan *p, const qn_recipe_slice *slice,
                          const qn_recipe_source *source, const char *tensor, double t,
                          qn_merge_params *out)
{
    const qn_recipe *r = p->recipe;
    const qn_yaml *scopes[] = { source ? source->params : NULL, slice->params, r->module_params,
                                r->params };
    *out = (qn_merge_params){ 0 };
    for (size_t i = 0; i < r->method->param_count; i++) {
        const qn_method_param *m = &r->method->params[i];
        double value;
        bool found;
        if (m->of_model != (source != NULL)) continue;
        QN_TRY(qn_recipe_evaluate(scopes, 4, qn_merge_param_name(m->param), tensor, t, &value,
                                  &found));
        if (found) qn_merge_params_set(out, m->param, value);
    }
    return QN_OK;
}

// A tensor that is being put together.
typedef struct draft {
    const char *name;
    size_t slice;
    double position;
    int64_t layer_offset; // -1: outside of the layers
    const char *suffix;
} draft;

static const qn_safetensor *find_input(const qn_checkpoint *c, const qn_recipe_source *s,
                                       const draft *d)
{
    if (d->layer_offset < 0) return qn_checkpoint_find(c, d->name);
    return qn_checkpoint_layer(c, s->first + d->layer_offset, d->suffix);
}

static qn_result lacking(const qn_checkpoint *c, const draft *d)
{
    return qn_fail(QN_ERR_INVALID, "model %s lacks the tensor %s", c->ref.text, d->name);
}

static qn_result add_source(qn_merge_plan *p, const draft *d, const qn_recipe_source *s,
                            qn_merge_tensor *t)
{
    const qn_recipe_slice *slice = &p->recipe->slices[d->slice];
    const qn_checkpoint *c = &p->models[index_of(p, &s->model)];
    const qn_safetensor *x = find_input(c, s, d);
    bool head = c->arch->head && strcmp(c->arch->head, d->name) == 0;
    if (!x && head && c->arch->tied) x = qn_checkpoint_find(c, c->arch->tied);
    if (!x && qn_arch_optional(c->arch, d->suffix)) return QN_OK;
    if (!x) return lacking(c, d);
    qn_merge_input *m = &t->models[t->count];
    QN_TRY(make_source(p, c, x, &t->sources[t->count]));
    *m = (qn_merge_input){ .model = s->model.text };
    QN_TRY(evaluate(p, slice, s, x->name, d->position, &m->params));
    const qn_model_ref *base = slice->has_base       ? &slice->base
                               : p->recipe->has_base ? &p->recipe->base
                                                     : NULL;
    if (base && qn_model_ref_equal(base, &s->model)) t->base = (int)t->count;
    t->count++;
    if (!p->vocabulary || !qn_arch_has(c->arch->vocabulary, d->name) || x->rank != 2) return QN_OK;
    return qn_vocabulary_source(p->vocabulary, (size_t)index_of(p, &s->model), d->name,
                                &t->sources[t->count - 1]);
}

static bool base_alone(const qn_merge_tensor *t)
{
    return t->base >= 0 && t->count == 1;
}

static qn_result add_output(qn_merge_plan *p, const qn_merge_plan_opts *o, const draft *d)
{
    const qn_recipe *r = p->recipe;
    const qn_recipe_slice *slice = &r->slices[d->slice];
    QN_TRY(qn_grow((void **)&p->outputs, &p->capacity, p->count + 1, sizeof *p->outputs));
    qn_merge_output *out = &p->outputs[p->count];
    const qn_arch *arch = p->models[index_of(p, &slice->sources[0].model)].arch;
    *out = (qn_merge_output){ .position = d->position, .slice = d->slice };
    qn_merge_tensor *t = &out->tensor;
    *t = (qn_merge_tensor){ .name = d->name,
                            .method = r->method,
                            .base = -1,
                            .seed = o->seed,
                            .embedding = qn_arch_has(arch->vocabulary, d->name) };
    t->models = qn_arena_alloc(&p->arena, slice->count * sizeof *t->models);
    t->sources = qn_arena_alloc(&p->arena, slice->count * sizeof *t->sources);
    if (!t->models || !t->sources) return qn_no_memory(slice->count * sizeof *t->models);
    QN_TRY(qn_merge_dtype(r->dtype, &t->dtype));
    QN_TRY(qn_merge_dtype(r->out_dtype, &t->out_dtype));
    for (size_t i = 0; i < slice->count; i++) QN_TRY(add_source(p, d, &slice->sources[i], t));
    QN_TRY(evaluate(p, slice, NULL, d->name, d->position, &t->params));
    bool optional = qn_arch_optional(arch, d->suffix);
    if (optional && r->method->models_min > 1 && !base_alone(t) &&
        t->count < r->method->models_min + 1)
        return QN_OK; // left out
    QN_TRY(qn_merge_prepare(t));
    QN_TRY(qn_method_check(r->method, t->models, t->count, t->base, &t->params, t->name));
    for (size_t i = 0; i < t->count; i++) p->read += t->sources[i].tensor->size;
    p->written += qn_merge_out_bytes(t);
    p->has_head |= arch->head && strcmp(arch->head, d->name) == 0;
    p->count++;
    return QN_OK;
}

// ---------------------------------------------------------------------------------- layers

static bool seen_before(const qn_recipe_slice *slice, const qn_merge_plan *p, size_t source,
                        int64_t offset, const char *suffix)
{
    for (size_t i = 0; i < source; i++) {
        const qn_recipe_source *s = &slice->sources[i];
        const qn_checkpoint *c = &p->models[index_of(p, &s->model)];
        if (offset >= 0 ? qn_checkpoint_layer(c, s->first + offset, suffix) != NULL
                        : qn_checkpoint_find(c, suffix) != NULL)
            return true;
    }
    return false;
}

// Every tensor that some source has in this layer.
static qn_result add_layer(qn_merge_plan *p, const qn_merge_plan_opts *o, size_t slice_index,
                           int64_t offset, double position)
{
    const qn_recipe_slice *slice = &p->recipe->slices[slice_index];
    for (size_t i = 0; i < slice->count; i++) {
        const qn_recipe_source *s = &slice->sources[i];
        const qn_checkpoint *c = &p->models[index_of(p, &s->model)];
        size_t at, end;
        qn_checkpoint_range(c, s->first + offset, &at, &end);
        if (at == end)
            return qn_fail(QN_ERR_INVALID, "model %s has no tensors in layer %lld", c->ref.text,
                           (long long)(s->first + offset));
        for (; at < end; at++) {
            const qn_layer_tensor *t = &c->tensors[at];
            if (seen_before(slice, p, i, offset, t->suffix)) continue;
            const char *name = qn_arena_printf(&p->arena, "%.*s%lld.%s", (int)t->before,
                                               t->tensor->name, (long long)p->layers, t->suffix);
            if (!name) return qn_no_memory(1);
            QN_TRY(add_output(p, o, &(draft){ name, slice_index, position, offset, t->suffix }));
        }
    }
    return QN_OK;
}

static bool in_front(const qn_arch *a, const char *name)
{
    if (a->embeddings) return qn_arch_has(a->embeddings, name);
    return strstr(name, "embed") || strstr(name, "wte.") || strstr(name, "wpe.");
}

// Tensors outside of the layers: in front of them from the first slice, behind them from the last.
static qn_result add_outside(qn_merge_plan *p, const qn_merge_plan_opts *o, size_t slice_index,
                             bool front, bool back)
{
    const qn_recipe_slice *slice = &p->recipe->slices[slice_index];
    for (size_t i = 0; i < slice->count; i++) {
        const qn_checkpoint *c = &p->models[index_of(p, &slice->sources[i].model)];
        size_t at, end;
        qn_checkpoint_range(c, -1, &at, &end);
        for (; at < end; at++) {
            const char *name = c->tensors[at].tensor->name;
            if (!(in_front(c->arch, name) ? front : back)) continue;
            if (seen_before(slice, p, i, -1, name)) continue;
            QN_TRY(add_output(p, o, &(draft){ name, slice_index, 0, -1, name }));
        }
    }
    return QN_OK;
}

static qn_result settle_ranges(qn_merge_plan *p, qn_recipe_slice *slice)
{
    for (size_t i = 0; i < slice->count; i++) {
        qn_recipe_source *s = &slice->sources[i];
        const qn_checkpoint *c = &p->models[index_of(p, &s->model)];
        if (!s->ranged) {
            s->first = 0;
            s->end = c->layers;
        }
        if (s->end > c->layers)
            return qn_yaml_fail(slice->at, "layer_range [%lld, %lld], but %s has %lld layers",
                                (long long)s->first, (long long)s->end, c->ref.text,
                                (long long)c->layers);
        if (s->end - s->first != slice->sources[0].end - slice->sources[0].first)
            return qn_yaml_fail(slice->at, "%lld layers of %s, but %lld of %s",
                                (long long)(s->end - s->first), c->ref.text,
                                (long long)(slice->sources[0].end - slice->sources[0].first),
                                slice->sources[0].model.text);
    }
    return QN_OK;
}

static qn_result make(qn_merge_plan *p, const qn_merge_plan_opts *o)
{
    const qn_recipe *r = p->recipe;
    QN_TRY(open_models(p, o));
    for (size_t s = 0; s < r->slice_count; s++) QN_TRY(settle_ranges(p, &r->slices[s]));
    if (r->tokenizer_source) QN_TRY(qn_vocabulary_make(p, &p->vocabulary));
    QN_TRY(add_outside(p, o, 0, true, r->slice_count == 1));
    for (size_t s = 0; s < r->slice_count; s++) {
        int64_t n = r->slices[s].sources[0].end - r->slices[s].sources[0].first;
        for (int64_t i = 0; i < n; i++, p->layers++)
            QN_TRY(add_layer(p, o, s, i, n > 1 ? (double)i / (double)(n - 1) : 1));
    }
    if (r->slice_count > 1) QN_TRY(add_outside(p, o, r->slice_count - 1, false, true));
    return QN_OK;
}

qn_result qn_merge_plan_make(const qn_recipe *recipe, const qn_merge_plan_opts *opts,
                             qn_merge_plan *out)
{
    *out = (qn_merge_plan){ .recipe = recipe, .base = -1 };
    qn_result r = make(out, opts);
    if (r != QN_OK) qn_merge_plan_free(out);
    return r;
}

void qn_merge_plan_free(qn_merge_plan *p)
{
    qn_vocabulary_free(&p->vocabulary);
    for (size_t i = 0; i < p->model_count; i++) qn_checkpoint_close(&p->models[i]);
    qn_free(p->outputs);
    qn_arena_free(&p->arena);
    *p = (qn_merge_plan){ 0 };
}
