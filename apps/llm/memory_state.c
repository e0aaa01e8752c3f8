// What texts remember: stores, rows of them, files.
#include "memory_state.h"
#include "fail.h"
#include "mem.h"
#include "parameters.h"

#include <math.h>
#include <quoin/io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 64 };
static const char *const parts[] = { "F", "C", "conv" };

static void name_of(char name[NAME], int layer, int part)
{
    snprintf(name, NAME, "layers.%d.sr.%s", layer, parts[part]);
}

qn_result qn_lm_declare_memory(const qn_model_config *c, qn_store *memory, int64_t rows)
{
    for (int i = 0; i < c->n_layer; i++) {
        qn_memory_shape s;
        if (!qn_memory_of(c, i, &s)) continue;
        const int64_t width = s.heads * (2 * s.keys + s.values);
        const int64_t matrix = s.heads * s.keys * s.values;
        const int64_t size[] = { matrix, matrix, (s.taps - 1) * width };
        const bool is[] = { true, s.full, s.taps > 1 };
        for (int p = 0; p < 3; p++) {
            char name[NAME];
            name_of(name, i, p);
            if (is[p]) QN_TRY(qn_store_add(memory, name, QN_F32, QN_SHAPE(rows, 1, size[p])));
        }
    }
    return QN_OK;
}

// The store's tensor [rows, 1, everything of a row].
static const qn_tensor *table(qn_graph *g, const qn_lm_opts *o, int layer, int part)
{
    char name[NAME];
    name_of(name, layer, part);
    return qn_store_find(o->memory, name) ? qn_frozen(g, o->memory, name) : NULL;
}

void qn_memory_read(qn_graph *g, const qn_lm_opts *o, const qn_memory_shape *s, int layer,
                    qn_memory_state *out)
{
    const qn_shape matrix = QN_SHAPE(o->batch, s->heads, s->keys, s->values);
    const qn_shape rows = QN_SHAPE(o->batch, s->taps - 1, s->heads * (2 * s->keys + s->values));
    const qn_tensor **to[] = { &out->plastic, &out->consolidated, &out->before };
    for (int p = 0; p < 3; p++) {
        const qn_tensor *t = table(g, o, layer, p);
        if (t && o->memory_rows) {
            t = qn_reshape(g, t, QN_SHAPE(t->shape.dim[0], t->shape.dim[2]));
            t = qn_embedding(g, t, o->memory_rows);
        }
        // The convolution's gradient reads its start rows after new ones have taken their place.
        if (t && !o->memory_rows && p == 2) t = qn_scale(g, t, 1, 0);
        *to[p] = t ? qn_reshape(g, t, p == 2 ? rows : matrix) : NULL;
    }
}

void qn_memory_write(qn_graph *g, const qn_lm_opts *o, int layer, const qn_memory_state *s)
{
    const qn_tensor *const from[] = { s->plastic, s->consolidated, s->before };
    for (int p = 0; p < 3; p++) {
        const qn_tensor *t = table(g, o, layer, p);
        if (!t || !from[p]) continue;
        const qn_tensor *x = qn_reshape(g, from[p], QN_SHAPE(o->batch, 1, t->shape.dim[2]));
        if (o->memory_rows)
            qn_assign_rows(g, t, o->memory_rows, x);
        else
            qn_assign(g, t, x);
    }
}

// ---------------------------------------------------------------------------- a bank of texts

struct qn_memory_bank {
    qn_store *store;
    int64_t rows;
    char fingerprint[24];
    struct row {
        float *base; // what the text begins with, all tensors one behind the other; NULL: nothing
        uint64_t tokens; // read before that
    } *row;
    size_t size; // elements of a row over all tensors
};

// FNV-1a over 64 bits: the same on every machine and in every run, as files need it.
static uint64_t hash_on(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *byte = data;
    for (size_t i = 0; i < size; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

// Description, and every parameter that is kept in f32 whatever the matrices are: embeddings, norms,
// biases, memories. The matrices follow from the same training.
typedef struct printing {
    const qn_store *weights;
    uint64_t hash;
} printing;

static qn_result print_one(void *user, const qn_param_info *p)
{
    printing *at = user;
    if (p->kind == QN_PARAM_NORMAL || p->kind == QN_PARAM_EXPERT) return QN_OK;
    const qn_store_entry *e = qn_store_find(at->weights, p->name);
    void *data = qn_malloc((size_t)e->size);
    if (!data) return qn_no_memory((size_t)e->size);
    qn_result r = qn_store_read(at->weights, p->name, data, e->size);
    if (r == QN_OK) at->hash = hash_on(at->hash, data, (size_t)e->size);
    qn_free(data);
    return r;
}

static qn_result fingerprint(const qn_model_config *c, const qn_store *weights, char out[24])
{
    char *text;
    QN_TRY(qn_model_config_text(c, &text));
    printing at = { weights, hash_on(0xcbf29ce484222325u, text, strlen(text)) };
    qn_free(text);
    QN_TRY(qn_parameters(c, print_one, &at));
    snprintf(out, 24, "%016llx", (unsigned long long)at.hash);
    return QN_OK;
}

qn_result qn_memory_bank_create(qn_device *dev, const qn_model_config *c, const qn_store *weights,
                                int64_t rows, qn_memory_bank **out)
{
    *out = NULL;
    if (!qn_memory_any(c)) return QN_OK;
    qn_memory_bank *b = qn_calloc(1, sizeof *b);
    if (!b) return qn_no_memory(sizeof *b);
    b->rows = rows;
    b->row = qn_calloc((size_t)rows, sizeof *b->row);
    qn_result r = b->row ? QN_OK : qn_no_memory((size_t)rows * sizeof *b->row);
    if (r == QN_OK) r = fingerprint(c, weights, b->fingerprint);
    if (r == QN_OK) r = qn_store_create(dev, "memories", &b->store);
    if (r == QN_OK) r = qn_lm_declare_memory(c, b->store, rows);
    if (r == QN_OK) r = qn_store_allocate(b->store);
    for (size_t i = 0; r == QN_OK && i < qn_store_count(b->store); i++)
        b->size += (size_t)qn_store_at(b->store, i)->shape.dim[2];
    if (r == QN_OK)
        *out = b;
    else
        qn_memory_bank_destroy(&b);
    return r;
}

void qn_memory_bank_destroy(qn_memory_bank **bank)
{
    qn_memory_bank *b = *bank;
    *bank = NULL;
    if (!b) return;
    qn_store_destroy(&b->store);
    for (int64_t i = 0; b->row && i < b->rows; i++) qn_free(b->row[i].base);
    qn_free(b->row);
    qn_free(b);
}

qn_store *qn_memory_bank_store(const qn_memory_bank *b)
{
    return b ? b->store : NULL;
}

// Copies a row of every tensor out of the store, or into it (NULL: zeros).
static qn_result copy_row(qn_memory_bank *b, int64_t row, const float *from, float *to)
{
    for (size_t i = 0, at = 0; i < qn_store_count(b->store); i++) {
        const qn_store_entry *e = qn_store_at(b->store, i);
        const size_t width = (size_t)e->shape.dim[2];
        float *all = qn_malloc((size_t)e->size);
        if (!all) return qn_no_memory((size_t)e->size);
        qn_result r = qn_store_read(b->store, e->name, all, e->size);
        float *own = all + (size_t)row * width;
        if (to) {
            memcpy(to + at, own, width * sizeof *own);
        } else {
            if (from)
                memcpy(own, from + at, width * sizeof *own);
            else
                memset(own, 0, width * sizeof *own);
            if (r == QN_OK) r = qn_store_write(b->store, e->name, all, e->size);
        }
        qn_free(all);
        QN_TRY(r);
        at += width;
    }
    return QN_OK;
}

qn_result qn_memory_bank_reset(qn_memory_bank *b, int64_t row)
{
    return b ? copy_row(b, row, b->row[row].base, NULL) : QN_OK;
}

static const char version[] = "1";

qn_result qn_memory_bank_save(qn_memory_bank *b, int64_t row, uint64_t tokens, const char *path,
                              bool long_term)
{
    if (!b) return qn_fail(QN_ERR_INVALID, "%s: the model has no memory to save", path);
    char count[24];
    snprintf(count, sizeof count, "%llu", (unsigned long long)(b->row[row].tokens + tokens));
    const qn_st_meta meta[] = { { "fingerprint", b->fingerprint },
                                { "tokens", count },
                                { "sr_version", version } };
    const qn_safetensors_opts opts = { .meta = meta, .meta_count = 3 };
    float *all = qn_malloc(b->size * sizeof *all);
    if (!all) return qn_no_memory(b->size * sizeof *all);
    qn_safetensors_writer *w = NULL;
    qn_result r = copy_row(b, row, NULL, all);
    if (r == QN_OK) r = qn_safetensors_create(path, &opts, &w);
    for (size_t i = 0; r == QN_OK && i < qn_store_count(b->store); i++) {
        const qn_store_entry *e = qn_store_at(b->store, i);
        const bool kept = !long_term || strcmp(strrchr(e->name, '.'), ".C") == 0;
        if (kept) r = qn_safetensors_add(w, e->name, QN_ST_F32, 1, &e->shape.dim[2]);
    }
    const qn_safetensor *t = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        size_t at = 0;
        for (size_t i = 0; strcmp(qn_store_at(b->store, i)->name, t->name) != 0; i++)
            at += (size_t)qn_store_at(b->store, i)->shape.dim[2];
        r = qn_safetensors_write(w, all + at, t->size);
    }
    qn_free(all);
    if (r == QN_OK) return qn_safetensors_commit(&w);
    if (w) qn_safetensors_abandon(&w);
    return r;
}

static const char *meta_of(const qn_safetensors *f, const char *key)
{
    size_t count;
    const qn_st_meta *meta = qn_safetensors_meta(f, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(meta[i].key, key) == 0) return meta[i].value;
    return NULL;
}

// Every tensor of the file is one of the store's, of its size and finite; `all` receives them, zeros
// for those that the file has not.
static qn_result read_file(const qn_memory_bank *b, const qn_safetensors *f, float *all)
{
    size_t known = 0, at = 0;
    for (size_t i = 0; i < qn_store_count(b->store); i++) {
        const qn_store_entry *e = qn_store_at(b->store, i);
        const size_t width = (size_t)e->shape.dim[2];
        const qn_safetensor *t = qn_safetensors_find(f, e->name);
        float *own = all + at;
        at += width;
        if (!t) continue;
        known++;
        if (t->count != width || t->dtype != QN_ST_F32)
            return qn_fail(QN_ERR_FORMAT, "tensor %s has %llu elements of %s, expected %zu of F32",
                           e->name, (unsigned long long)t->count, qn_st_dtype_name(t->dtype), width);
        QN_TRY(qn_safetensor_f32(t, 0, width, own));
        for (size_t k = 0; k < width; k++)
            if (!isfinite(own[k]))
                return qn_fail(QN_ERR_FORMAT, "tensor %s holds %g in place %zu, expected finite "
                                              "numbers", e->name, (double)own[k], k);
    }
    if (!known || known != qn_safetensors_count(f))
        return qn_fail(QN_ERR_FORMAT, "%zu of its %zu tensors are a memory's, expected all of them",
                       known, qn_safetensors_count(f));
    return QN_OK;
}

static qn_result check_meta(const qn_memory_bank *b, const qn_safetensors *f, uint64_t *tokens)
{
    const char *print = meta_of(f, "fingerprint"), *count = meta_of(f, "tokens");
    const char *found = meta_of(f, "sr_version");
    if (!print || !count || !found)
        return qn_fail(QN_ERR_FORMAT, "it is not a memory file: fingerprint, tokens and sr_version "
                                      "are expected in its metadata");
    if (strcmp(found, version) != 0)
        return qn_fail(QN_ERR_UNSUPPORTED, "memory files of version %s are not known, expected %s",
                       found, version);
    if (strcmp(print, b->fingerprint) != 0)
        return qn_fail(QN_ERR_INVALID, "it belongs to another model: fingerprint %s, expected %s",
                       print, b->fingerprint);
    *tokens = strtoull(count, NULL, 10);
    return QN_OK;
}

qn_result qn_memory_bank_load(qn_memory_bank *b, int64_t row, const char *path)
{
    if (!b) return qn_fail(QN_ERR_INVALID, "%s: the model has no memory to load it into", path);
    qn_safetensors *f;
    QN_TRY(qn_safetensors_open(path, &f));
    float *all = qn_calloc(b->size, sizeof *all);
    uint64_t tokens = 0;
    qn_result r = all ? check_meta(b, f, &tokens) : qn_no_memory(b->size * sizeof *all);
    if (r == QN_OK) r = read_file(b, f, all);
    if (r == QN_OK) r = copy_row(b, row, all, NULL);
    qn_safetensors_close(&f);
    if (r != QN_OK) {
        qn_free(all);
        return qn_context_add(r, "memory %s", path);
    }
    qn_free(b->row[row].base);
    b->row[row] = (struct row){ all, tokens };
    return QN_OK;
}
