// Adapters from differences: every module factored, or saved whole.
#include "extract.h"

#include "half.h"
#include "platform.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

typedef struct piece { // a tensor of the adapter
    char *name;
    qn_st_dtype dtype;
    int rank;
    int64_t dim[2];
    float *data;
} piece;

typedef struct extraction {
    qn_device *dev;
    const qn_extract_opts *o;
    qn_checkpoint model, base;
    qn_arena arena;
    piece *pieces;
    size_t count, capacity;
    struct {
        const char *module;
        int64_t rank;
    } * ranks;
    size_t rank_count, rank_capacity;
    const char **whole;
    size_t whole_count, whole_capacity;
    regex_t include, exclude;
    bool has_include, has_exclude;
    qn_extract_stats *stats;
} extraction;

static qn_result add_piece(extraction *e, const char *module, const char *end, qn_st_dtype dtype,
                           int rank, int64_t rows, int64_t columns, float *data)
{
    QN_TRY(qn_grow((void **)&e->pieces, &e->capacity, e->count + 1, sizeof *e->pieces));
    char *name = qn_arena_printf(&e->arena, "base_model.model.%s%s", module, end);
    if (!name) return qn_no_memory(strlen(module));
    e->pieces[e->count++] = (piece){ name, dtype, rank, { rows, columns }, data };
    e->stats->bytes +=
        (uint64_t)rows * (rank > 1 ? (uint64_t)columns : 1) * qn_st_dtype_size(dtype);
    return QN_OK;
}

static qn_result read_all(const qn_safetensor *t, float **out)
{
    *out = qn_malloc((size_t)t->count * sizeof **out + 1);
    return *out ? qn_safetensor_f32(t, 0, t->count, *out)
                : qn_no_memory((size_t)t->count * sizeof **out);
}

// The model's own tensor, in modules_to_save.
static qn_result save_whole(extraction *e, const char *module, const char *end,
                            const qn_safetensor *t)
{
    float *data;
    QN_TRY(read_all(t, &data));
    QN_TRY(qn_grow((void **)&e->whole, &e->whole_capacity, e->whole_count + 1, sizeof *e->whole));
    e->whole[e->whole_count++] = module;
    e->stats->whole++;
    return add_piece(e, module, end, t->dtype, t->rank, t->rank ? t->dim[0] : 1,
                     t->rank > 1 ? t->dim[1] : 0, data);
}

static qn_result difference(const qn_safetensor *x, const qn_safetensor *base, float **out,
                            bool *any)
{
    float *other = NULL;
    qn_result r = read_all(x, out);
    if (r == QN_OK) r = read_all(base, &other);
    *any = false;
    for (uint64_t i = 0; r == QN_OK && i < x->count; i++) {
        (*out)[i] -= other[i];
        *any |= (*out)[i] != 0;
    }
    qn_free(other);
    return r;
}

static qn_result note_rank(extraction *e, const char *module, size_t rank)
{
    QN_TRY(qn_grow((void **)&e->ranks, &e->rank_capacity, e->rank_count + 1, sizeof *e->ranks));
    e->ranks[e->rank_count].module = module;
    e->ranks[e->rank_count++].rank = (int64_t)rank;
    if ((int64_t)rank > e->stats->rank) e->stats->rank = (int64_t)rank;
    e->stats->factored++;
    return QN_OK;
}

// A = sqrt(S) V', B = U sqrt(S) of d [m, n].
static qn_result factor(extraction *e, const char *module, const float *d, size_t m, size_t n,
                        qn_st_dtype dtype, bool embedding)
{
    size_t q = m < n ? m : n, rank = 0;
    size_t most = (uint64_t)e->o->max_rank < q ? (size_t)e->o->max_rank : q;
    double *u = qn_malloc(m * most * sizeof *u), *s = qn_malloc(most * sizeof *s);
    double *vt = qn_malloc(most * n * sizeof *vt);
    float *a = NULL, *b = NULL;
    qn_result r = u && s && vt
                      ? qn_extract_factors(e->dev, d, m, n, most, e->o->sv_epsilon, u, s, vt, &rank)
                      : qn_no_memory(m * most * sizeof *u);
    if (r == QN_OK && rank) {
        a = qn_malloc(rank * n * sizeof *a);
        b = qn_malloc(m * rank * sizeof *b);
        if (!a || !b) r = qn_no_memory(m * rank * sizeof *b);
    }
    for (size_t k = 0; r == QN_OK && k < rank; k++) {
        double right = e->o->undistributed ? s[k] : sqrt(s[k]),
               left = e->o->undistributed ? 1 : right;
        for (size_t j = 0; j < n; j++) a[k * n + j] = (float)(right * vt[k * n + j]);
        for (size_t i = 0; i < m; i++) b[i * rank + k] = (float)(left * u[i * most + k]);
    }
    qn_free(u);
    qn_free(s);
    qn_free(vt);
    if (r != QN_OK || !rank) return r;
    QN_TRY(add_piece(e, module, embedding ? ".lora_embedding_A" : ".lora_A.weight", dtype, 2,
                     (int64_t)rank, (int64_t)n, a));
    QN_TRY(add_piece(e, module, embedding ? ".lora_embedding_B" : ".lora_B.weight", dtype, 2,
                     (int64_t)m, (int64_t)rank, b));
    return note_rank(e, module, rank);
}

static qn_result transpose_and_factor(extraction *e, const char *module, const float *d, size_t m,
                                      size_t n, qn_st_dtype dtype)
{
    float *t = qn_malloc(m * n * sizeof *t);
    if (!t) return qn_no_memory(m * n * sizeof *t);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) t[j * m + i] = d[i * n + j];
    qn_result r = factor(e, module, t, n, m, dtype, true);
    qn_free(t);
    return r;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);
    return n >= k && strcmp(name + n - k, end) == 0 && (n == k || name[n - k - 1] == '.');
}

static bool is_saved(const extraction *e, const char *module)
{
    for (size_t i = 0; i < e->o->save_count; i++)
        if (ends_with(module, e->o->save[i])) return true;
    return false;
}

static bool is_wanted(const extraction *e, const char *module)
{
    if (e->has_include && regexec(&e->include, module, 0, NULL, 0) != 0) return false;
    return !e->has_exclude || regexec(&e->exclude, module, 0, NULL, 0) != 0;
}

// The difference of a bias belongs to its module's factors.
static qn_result take_bias(extraction *e, const char *module, const qn_safetensor *x,
                           const qn_safetensor *base)
{
    float *d = NULL;
    bool any;
    qn_result r = difference(x, base, &d, &any);
    if (r == QN_OK && any)
        return add_piece(e, module, ".lora_B.bias", x->dtype, 1, (int64_t)x->count, 0, d);
    qn_free(d);
    return r;
}

static qn_result take_tensor(extraction *e, const qn_safetensor *x)
{
    const qn_safetensor *base = qn_checkpoint_find(&e->base, x->name);
    bool bias = ends_with(x->name, "bias"), weight = ends_with(x->name, "weight");
    if (!bias && !weight) return QN_OK;
    size_t cut = strlen(x->name) - (bias ? strlen(".bias") : strlen(".weight"));
    char *module = qn_arena_printf(&e->arena, "%.*s", (int)cut, x->name);
    if (!module) return qn_no_memory(cut);
    if (!is_wanted(e, module)) return QN_OK;
    bool rows = qn_arch_has(e->base.arch->vocabulary, x->name);
    bool embedding = rows && strcmp(x->name, "lm_head.weight") != 0;
    bool same = base && base->rank == x->rank && base->count == x->count &&
                memcmp(base->dim, x->dim, (size_t)x->rank * sizeof *x->dim) == 0;
    if (!same && !rows)
        return qn_fail(QN_ERR_INVALID, "tensor %s: %s in the base", x->name,
                       base ? "another shape" : "it is missing");
    const char *end = bias ? ".bias" : ".weight";
    if (!same) {
        qn_log(QN_LOG_WARN, "%s: the vocabularies differ; it is saved whole", x->name);
        return save_whole(e, module, end, x);
    }
    if (bias) return take_bias(e, module, x, base);
    float *d = NULL;
    bool any;
    qn_result r = difference(x, base, &d, &any);
    if (r == QN_OK && any) {
        bool whole = x->rank != 2 || is_saved(e, module) || (embedding && !e->o->embed_lora);
        if (whole && x->rank != 2 && e->o->skip_undecomposable)
            r = QN_OK;
        else if (whole)
            r = save_whole(e, module, end, x);
        else if (embedding)
            r = transpose_and_factor(e, module, d, (size_t)x->dim[0], (size_t)x->dim[1], x->dtype);
        else
            r = factor(e, module, d, (size_t)x->dim[0], (size_t)x->dim[1], x->dtype, false);
    }
    qn_free(d);
    return qn_context_add(r, "tensor %s", x->name);
}

// ---------------------------------------------------------------------------------- files

static void put_names(qn_json_writer *w, const char *key, const char *const *names, size_t count)
{
    qn_json_put_array(w, key);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(names[i], '.');
        const char *last = dot ? dot + 1 : names[i];
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) seen = ends_with(names[k], last);
        if (!seen) qn_json_put_string(w, NULL, last);
    }
    qn_json_put_end(w, ']');
}

static qn_result save_config(const extraction *e)
{
    const char **modules = qn_malloc((e->rank_count + 1) * sizeof *modules);
    char *path = qn_path_join(e->o->out, "adapter_config.json");
    qn_json_writer w = { 0 };
    if (!modules || !path) {
        qn_free(modules);
        qn_free(path);
        return qn_no_memory(e->rank_count * sizeof *modules);
    }
    for (size_t i = 0; i < e->rank_count; i++) modules[i] = e->ranks[i].module;
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "peft_type", "LORA");
    qn_json_put_string(&w, "task_type", "CAUSAL_LM");
    qn_json_put_string(&w, "base_model_name_or_path", e->base.ref.text);
    qn_json_put_int(&w, "r", e->stats->rank);
    qn_json_put_int(&w, "lora_alpha", e->stats->rank);
    put_names(&w, "target_modules", modules, e->rank_count);
    put_names(&w, "modules_to_save", e->whole, e->whole_count);
    static const char *const patterns[] = { "rank_pattern", "alpha_pattern" };
    for (int p = 0; p < 2; p++) {
        qn_json_put_object(&w, patterns[p]);
        for (size_t i = 0; i < e->rank_count; i++)
            if (e->ranks[i].rank != e->stats->rank)
                qn_json_put_int(&w, e->ranks[i].module, e->ranks[i].rank);
        qn_json_put_end(&w, '}');
    }
    qn_json_put_bool(&w, "use_rslora", false);
    qn_json_put_bool(&w, "use_dora", false);
    qn_json_put_string(&w, "bias", "none");
    qn_json_put_bool(&w, "fan_in_fan_out", false);
    qn_json_put_number(&w, "lora_dropout", 0);
    qn_json_put_bool(&w, "inference_mode", true);
    qn_json_put_end(&w, '}');
    qn_result r = qn_json_save(&w, path);
    qn_free(modules);
    qn_free(path);
    return r;
}

static qn_result write_piece(qn_safetensors_writer *w, const piece *p, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        float f = p->data[i];
        uint16_t h = p->dtype == QN_ST_F16 ? qn_f16_from_f32(f) : qn_bf16_from_f32(f);
        bool narrow = p->dtype == QN_ST_F16 || p->dtype == QN_ST_BF16;
        QN_TRY(narrow ? qn_safetensors_write(w, &h, sizeof h)
                      : qn_safetensors_write(w, &f, sizeof f));
    }
    return QN_OK;
}

static qn_result write_pieces(const extraction *e, qn_safetensors_writer *w)
{
    const qn_safetensor *t;
    for (size_t i = 0; i < e->count; i++) {
        const piece *p = &e->pieces[i];
        qn_st_dtype d = p->dtype == QN_ST_F64 ? QN_ST_F32 : p->dtype;
        QN_TRY(qn_safetensors_add(w, p->name, d, p->rank, p->dim));
    }
    for (;;) {
        QN_TRY(qn_safetensors_next(w, &t));
        if (!t) return QN_OK;
        for (size_t i = 0; i < e->count; i++)
            if (strcmp(e->pieces[i].name, t->name) == 0)
                QN_TRY(write_piece(w, &e->pieces[i], t->count));
    }
}

static qn_result save(const extraction *e)
{
    const qn_st_meta meta[] = { { "format", "pt" } };
    qn_safetensors_writer *w = NULL;
    QN_TRY(qn_make_dirs(e->o->out));
    char *path = qn_path_join(e->o->out, "adapter_model.safetensors");
    qn_result r = path
                      ? qn_safetensors_create(path, &(qn_safetensors_opts){ meta, 1, 0, false }, &w)
                      : qn_no_memory(1);
    qn_free(path);
    if (r == QN_OK) r = write_pieces(e, w);
    if (r == QN_OK) r = qn_safetensors_commit(&w);
    if (w) qn_safetensors_abandon(&w);
    return r == QN_OK ? save_config(e) : r;
}

static qn_result compile(const char *text, regex_t *out, bool *has)
{
    if (!text) return QN_OK;
    if (regcomp(out, text, REG_EXTENDED | REG_NOSUB) != 0)
        return qn_fail(QN_ERR_INVALID, "\"%.80s\" is no regular expression", text);
    *has = true;
    return QN_OK;
}

static qn_result extract(extraction *e)
{
    const qn_extract_opts *o = e->o;
    qn_model_ref model, base;
    if (qn_file_exists(o->out)) return qn_fail(QN_ERR_INVALID, "%s exists already", o->out);
    QN_TRY(compile(o->include, &e->include, &e->has_include));
    QN_TRY(compile(o->exclude, &e->exclude, &e->has_exclude));
    QN_TRY(qn_model_ref_parse(&e->arena, o->model, &model));
    QN_TRY(qn_model_ref_parse(&e->arena, o->base, &base));
    QN_TRY(qn_checkpoint_open(&model, NULL, o->models, &e->model));
    QN_TRY(qn_checkpoint_open(&base, NULL, o->models, &e->base));
    for (size_t i = 0; i < qn_safetensors_count(e->model.weights); i++)
        QN_TRY(take_tensor(e, qn_safetensors_at(e->model.weights, i)));
    if (!e->count) return qn_fail(QN_ERR_INVALID, "%s and %s do not differ", o->model, o->base);
    return save(e);
}

qn_result qn_extract_lora(qn_device *dev, const qn_extract_opts *opts, qn_extract_stats *stats)
{
    extraction e = { .dev = dev, .o = opts, .stats = stats };
    *stats = (qn_extract_stats){ 0 };
    qn_result r = extract(&e);
    if (e.has_include) regfree(&e.include);
    if (e.has_exclude) regfree(&e.exclude);
    for (size_t i = 0; i < e.count; i++) qn_free(e.pieces[i].data);
    qn_free(e.pieces);
    qn_free(e.ranks);
    qn_free(e.whole);
    qn_checkpoint_close(&e.model);
    qn_checkpoint_close(&e.base);
    qn_arena_free(&e.arena);
    return r;
}
