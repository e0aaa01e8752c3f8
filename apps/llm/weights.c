// Weights between files and stores. [moduleformer] section 2.
#include <quoin/io.h>
#include <quoin/model.h>

#include "fail.h"
#include "half.h"
#include "mem.h"
#include "parameters.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

typedef struct loading {
    const qn_safetensors *file;
    qn_store *store;
    size_t used; // tensors of the file that are parameters
} loading;

static void format_dims(const qn_safetensor *t, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < t->rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, i ? ",%lld" : "%lld", (long long)t->dim[i]);
    if (at < size) snprintf(text + at, size - at, "]");
}

static bool same_shape(const qn_safetensor *t, qn_shape s)
{
    if (t->rank != s.rank) return false;
    for (int i = 0; i < s.rank; i++)
        if (t->dim[i] != s.dim[i]) return false;
    return true;
}

// Rounds f32 values in place of themselves to the store's 16-bit type.
static void narrow(float *x, size_t n, qn_dtype dtype)
{
    uint16_t *half = (uint16_t *)(void *)x;
    for (size_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, (char *)x + i * sizeof value, sizeof value);
        uint16_t h = dtype == QN_F16 ? qn_f16_from_f32(value) : qn_bf16_from_f32(value);
        memcpy((char *)half + i * sizeof h, &h, sizeof h);
    }
}

static qn_result load_one(void *user, const qn_param_info *p)
{
    loading *l = user;
    const qn_safetensor *t = qn_safetensors_find(l->file, p->name);
    char found[128], expected[QN_SHAPE_TEXT];
    if (!t) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", p->name);
    if (!same_shape(t, p->shape)) {
        format_dims(t, found, sizeof found);
        return qn_fail(QN_ERR_FORMAT, "tensor %s: shape %s, expected %s", p->name, found,
                       qn_shape_format(p->shape, expected));
    }
    if (!qn_st_dtype_is_float(t->dtype))
        return qn_fail(QN_ERR_FORMAT, "tensor %s: type %s, expected floating-point values", p->name,
                       qn_st_dtype_name(t->dtype));
    const qn_store_entry *e = qn_store_find(l->store, p->name);
    l->used++;
    float *x = qn_malloc((size_t)t->count * sizeof *x);
    if (!x) return qn_no_memory((size_t)t->count * sizeof *x);
    qn_result r = qn_safetensor_f32(t, 0, t->count, x);
    if (r == QN_OK && e->dtype != QN_F32) narrow(x, (size_t)t->count, e->dtype);
    if (r == QN_OK) r = qn_store_write(l->store, p->name, x, e->size);
    qn_free(x);
    return r;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

// What published files hold beside the parameters: constant buffers of the attention, and the
// output matrix of a tied model.
static bool is_expected_extra(const qn_model_config *c, const char *name)
{
    return ends_with(name, ".attn.mask") || ends_with(name, ".attn.cum_weight") ||
           (c->tie_word_embeddings && strcmp(name, "lm_head.weight") == 0);
}

static qn_result check_extras(const qn_model_config *c, const qn_safetensors *f,
                              const qn_store *store)
{
    for (size_t i = 0; i < qn_safetensors_count(f); i++) {
        const char *name = qn_safetensors_at(f, i)->name;
        if (!qn_store_find(store, name) && !is_expected_extra(c, name))
            return qn_fail(QN_ERR_FORMAT, "tensor %s is not part of the model that config.json "
                                          "describes", name);
    }
    return QN_OK;
}

qn_result qn_model_load(const qn_model_config *c, qn_store *store, const char *dir)
{
    qn_safetensors *f;
    QN_TRY(qn_safetensors_open(dir, &f));
    loading l = { f, store, 0 };
    qn_result r = qn_parameters(c, load_one, &l);
    if (r == QN_OK) r = check_extras(c, f, store);
    qn_safetensors_close(&f);
    return qn_context_add(r, "%s", dir);
}

qn_result qn_store_write_file(const qn_store *const *stores, const char *const *prefixes,
                              size_t count, const char *path, const qn_st_meta *meta,
                              size_t meta_count)
{
    qn_safetensors_writer *w;
    qn_safetensors_opts opts = { .meta = meta, .meta_count = meta_count };
    QN_TRY(qn_safetensors_create(path, &opts, &w));
    qn_result r = QN_OK;
    char name[256];
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; r == QN_OK && i < qn_store_count(stores[s]); i++) {
            const qn_store_entry *e = qn_store_at(stores[s], i);
            snprintf(name, sizeof name, "%s%s", prefixes[s], e->name);
            r = qn_safetensors_add(w, name, QN_ST_F32, e->shape.rank, e->shape.dim);
        }
    const qn_safetensor *t = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        size_t s = 0; // no prefix is the beginning of another one
        while (strncmp(t->name, prefixes[s], strlen(prefixes[s])) != 0) s++;
        void *data = qn_malloc((size_t)t->size);
        r = data ? qn_store_read(stores[s], t->name + strlen(prefixes[s]), data, t->size)
                 : qn_no_memory((size_t)t->size);
        if (r == QN_OK) r = qn_safetensors_write(w, data, t->size);
        qn_free(data);
    }
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

qn_result qn_model_save(const qn_store *store, const char *dir)
{
    char *path = qn_path_join(dir, "model.safetensors");
    if (!path) return qn_no_memory(strlen(dir));
    static const qn_st_meta meta[] = { { "format", "pt" } }; // what other loaders look for
    qn_result r = qn_store_write_file(&store, &(const char *const){ "" }, 1, path, meta, 1);
    qn_free(path);
    return r;
}
