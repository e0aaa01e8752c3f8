// Weights between files and stores. [moduleformer] section 2.
#include "weights.h"
#include "fail.h"
#include "half.h"
#include "mem.h"
#include "platform.h"

#include <quoin/blocks.h>
#include <quoin/model.h>

#include <stdio.h>
#include <string.h>

enum { PIECE = 1 << 20 }; // values converted at once: a multiple of any block

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

bool qn_is_gguf(const char *path)
{
    return ends_with(path, ".gguf");
}

qn_result qn_weights_open(const char *path, qn_weights *out)
{
    *out = (qn_weights){ 0 };
    return qn_is_gguf(path) ? qn_gguf_open(path, &out->gguf) : qn_safetensors_open(path, &out->st);
}

void qn_weights_close(qn_weights *w)
{
    qn_safetensors_close(&w->st);
    qn_gguf_close(&w->gguf);
}

// ------------------------------------------------------------------------------ names

// Beginnings of names: as published, and as users of GGUF know them. %d is the layer.
static const struct {
    const char *published, *gguf;
} outer_names[] = {
    { "transformer.wte.", "token_embd." },
    { "transformer.ln_f.", "output_norm." },
    { "lm_head.", "output." },
}, layer_names[] = {
    { "ln_1.", "attn_norm." },
    { "ln_2.", "ffn_norm." },
    { "attn.q_proj.experts.", "attn_q_exps." },
    { "attn.q_proj.output_experts.", "attn_output_exps." },
    { "attn.q_proj.gate.", "attn_gate_inp." },
    { "attn.k_proj.", "attn_k." },
    { "attn.v_proj.", "attn_v." },
    { "mlpf.experts.", "ffn_up_exps." },
    { "mlpf.output_experts.", "ffn_down_exps." },
    { "mlpf.gate.", "ffn_gate_inp." },
    { "memory.", "sr_" },
};

char *qn_gguf_name_of(const char *name, char out[QN_GGUF_NAME])
{
    int layer, used = 0;
    for (size_t i = 0; i < sizeof outer_names / sizeof *outer_names; i++) {
        const size_t n = strlen(outer_names[i].published);
        if (strncmp(name, outer_names[i].published, n) != 0) continue;
        snprintf(out, QN_GGUF_NAME, "%s%s", outer_names[i].gguf, name + n);
        return out;
    }
    if (sscanf(name, "transformer.h.%d.%n", &layer, &used) == 1 && used)
        for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++) {
            const size_t n = strlen(layer_names[i].published);
            if (strncmp(name + used, layer_names[i].published, n) != 0) continue;
            snprintf(out, QN_GGUF_NAME, "blk.%d.%s%s", layer, layer_names[i].gguf, name + used + n);
            return out;
        }
    snprintf(out, QN_GGUF_NAME, "%s", name);
    return out;
}

// ------------------------------------------------------------------------------ finding

static char *format_dims(int rank, const int64_t *dim, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, i ? ",%lld" : "%lld", (long long)dim[i]);
    if (at < size) snprintf(text + at, size - at, "]");
    return text;
}

static qn_result check_shape(const qn_param_info *p, int rank, const int64_t *dim)
{
    char found[128], expected[QN_SHAPE_TEXT];
    bool same = rank == p->shape.rank;
    for (int i = 0; same && i < rank; i++) same = dim[i] == p->shape.dim[i];
    if (same) return QN_OK;
    return qn_fail(QN_ERR_FORMAT, "tensor %s: shape %s, expected %s", p->name,
                   format_dims(rank, dim, found, sizeof found),
                   qn_shape_format(p->shape, expected));
}

static qn_result find_st(const qn_weights *w, const qn_param_info *p, qn_weight *out)
{
    const qn_safetensor *t = qn_safetensors_find(w->st, p->name);
    if (!t) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", p->name);
    QN_TRY(check_shape(p, t->rank, t->dim));
    if (!qn_st_dtype_is_float(t->dtype))
        return qn_fail(QN_ERR_FORMAT, "tensor %s: type %s, expected floating-point values", p->name,
                       qn_st_dtype_name(t->dtype));
    *out = (qn_weight){ .dtype = t->dtype == QN_ST_F32    ? QN_F32
                                 : t->dtype == QN_ST_F16  ? QN_F16
                                 : t->dtype == QN_ST_BF16 ? QN_BF16
                                                          : QN_DTYPE_COUNT,
                        .count = t->count, .size = t->size, .data = t->data, .st = t };
    return QN_OK;
}

static qn_dtype dtype_of_gguf(uint32_t type)
{
    switch (type) {
    case QN_GGUF_TENSOR_F16: return QN_F16;
    case QN_GGUF_TENSOR_BF16: return QN_BF16;
    case QN_GGUF_TENSOR_Q8_0: return QN_Q8_0;
    case QN_GGUF_TENSOR_Q4_0: return QN_Q4_0;
    default: return QN_F32;
    }
}

qn_result qn_weights_find(const qn_weights *w, const qn_param_info *p, qn_weight *out)
{
    if (w->st) return find_st(w, p, out);
    char name[QN_GGUF_NAME];
    const qn_gguf_tensor *t = qn_gguf_find(w->gguf, qn_gguf_name_of(p->name, name));
    if (!t) return qn_fail(QN_ERR_FORMAT, "tensor %s is missing", name);
    QN_TRY(check_shape(p, t->rank, t->dim));
    *out = (qn_weight){ .dtype = dtype_of_gguf(t->type), .count = t->count, .size = t->size,
                        .data = t->data };
    return QN_OK;
}

// What published files hold beside the parameters: constant buffers of the attention, and the
// output matrix of a tied model.
static bool is_expected_extra(const qn_model_config *c, const char *name)
{
    return ends_with(name, ".attn.mask") || ends_with(name, ".attn.cum_weight") ||
           (c->tie_word_embeddings && strcmp(name, "lm_head.weight") == 0);
}

typedef struct counting {
    const qn_weights *w;
    size_t found;
} counting;

static qn_result count_one(void *user, const qn_param_info *p)
{
    counting *x = user;
    char name[QN_GGUF_NAME];
    x->found += x->w->st ? qn_safetensors_find(x->w->st, p->name) != NULL
                         : qn_gguf_find(x->w->gguf, qn_gguf_name_of(p->name, name)) != NULL;
    return QN_OK;
}

typedef struct looking {
    const char *name;
    bool gguf, found;
} looking;

static qn_result look_at(void *user, const qn_param_info *p)
{
    looking *l = user;
    char name[QN_GGUF_NAME];
    l->found |= strcmp(l->gguf ? qn_gguf_name_of(p->name, name) : p->name, l->name) == 0;
    return QN_OK;
}

qn_result qn_weights_check(const qn_weights *w, const qn_model_config *c)
{
    counting known = { w, 0 };
    QN_TRY(qn_parameters(c, count_one, &known));
    const size_t count = w->st ? qn_safetensors_count(w->st) : qn_gguf_count(w->gguf);
    if (known.found == count) return QN_OK;
    for (size_t i = 0; i < count; i++) {
        looking l = { .gguf = !w->st };
        l.name = w->st ? qn_safetensors_at(w->st, i)->name : qn_gguf_at(w->gguf, i)->name;
        if (is_expected_extra(c, l.name)) continue;
        QN_TRY(qn_parameters(c, look_at, &l));
        if (!l.found)
            return qn_fail(QN_ERR_FORMAT, "tensor %s is not part of the model that config.json "
                                          "describes", l.name);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------ values

qn_result qn_weight_f32(const qn_weight *w, uint64_t first, uint64_t count, float *out)
{
    if (w->st) return qn_safetensor_f32(w->st, first, count, out);
    const uint8_t *at = w->data;
    if (qn_dtype_is_block(w->dtype)) {
        qn_blocks_to_f32(w->dtype, at + first / QN_BLOCK * qn_block_bytes(w->dtype),
                         (size_t)(count / QN_BLOCK), out);
        return QN_OK;
    }
    at += first * qn_dtype_size(w->dtype);
    if (w->dtype == QN_F32) {
        memcpy(out, at, (size_t)count * sizeof *out);
        return QN_OK;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint16_t h;
        memcpy(&h, at + 2 * i, sizeof h);
        out[i] = w->dtype == QN_F16 ? qn_f32_from_f16(h) : qn_f32_from_bf16(h);
    }
    return QN_OK;
}

qn_dtype qn_weight_kept(const qn_param_info *p, const qn_weight *w, qn_dtype wanted)
{
    if (p->kind != QN_PARAM_NORMAL && p->kind != QN_PARAM_EXPERT) return QN_F32;
    qn_dtype stored = w->dtype == QN_DTYPE_COUNT ? QN_F32 : w->dtype;
    if (wanted == QN_AS_STORED) wanted = stored;
    const bool rows = p->shape.dim[p->shape.rank - 1] % QN_BLOCK == 0;
    if (p->router || (qn_dtype_is_block(wanted) && !rows))
        return wanted != QN_F32 && (stored == QN_F16 || stored == QN_BF16) ? stored : QN_F32;
    return wanted;
}

void qn_narrow(float *x, size_t n, qn_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = dtype == QN_F16 ? qn_f16_from_f32(x[i]) : qn_bf16_from_f32(x[i]);
        memcpy((char *)x + i * sizeof h, &h, sizeof h);
    }
}

// ------------------------------------------------------------------------------ loading

typedef struct loading {
    const qn_weights *w;
    qn_store *store;
    const qn_load_progress *progress;
    uint64_t done; // bytes of the store
    float *piece;  // PIECE values
    uint8_t *blocks, *integers;
    uint16_t *scales; // of PIECE values
} loading;

static qn_result advance(loading *l, uint64_t bytes)
{
    l->done += bytes;
    const qn_load_progress *p = l->progress;
    if (!p || !p->report || p->report(p->user, l->done, qn_store_bytes(l->store))) return QN_OK;
    return qn_fail(QN_ERR_CANCELLED, "loading was stopped");
}

// The bytes as they are.
static qn_result copy(loading *l, const qn_store_entry *e, const qn_weight *w)
{
    const uint64_t piece = (uint64_t)PIECE * sizeof(float);
    for (uint64_t at = 0; at < e->size; at += piece) {
        const uint64_t n = e->size - at < piece ? e->size - at : piece;
        QN_TRY(qn_store_write_part(l->store, e->name, at, (const char *)w->data + at, n));
        QN_TRY(advance(l, n));
    }
    return QN_OK;
}

static qn_result write_blocks(loading *l, const qn_store_entry *e, uint64_t first, uint64_t count,
                              const void *blocks)
{
    const uint64_t all = (uint64_t)qn_shape_count(e->shape), n = count / QN_BLOCK;
    const uint32_t per_byte = e->dtype == QN_Q4_0 ? 2 : 1;
    qn_blocks_split(e->dtype, blocks, (size_t)n, l->integers, l->scales);
    QN_TRY(qn_store_write_part(l->store, e->name, first / per_byte, l->integers,
                               count / per_byte));
    const uint64_t scales = qn_blocks_scales_at(e->dtype, all) + first / QN_BLOCK * 2;
    QN_TRY(qn_store_write_part(l->store, e->name, scales, l->scales, n * 2));
    return advance(l, count / per_byte + n * 2);
}

static qn_result convert_piece(loading *l, const qn_store_entry *e, const qn_weight *w,
                               uint64_t first, uint64_t n)
{
    if (qn_dtype_is_block(e->dtype) && w->dtype == e->dtype)
        return write_blocks(l, e, first, n,
                            (const char *)w->data +
                                first / QN_BLOCK * qn_block_bytes(e->dtype));
    QN_TRY(qn_weight_f32(w, first, n, l->piece));
    if (qn_dtype_is_block(e->dtype)) {
        if (!qn_blocks_from_f32(e->dtype, l->piece, (size_t)(n / QN_BLOCK), l->blocks))
            return qn_fail(QN_ERR_FORMAT, "tensor %s holds NaN, infinity or values too large for %s",
                           e->name, qn_dtype_name(e->dtype));
        return write_blocks(l, e, first, n, l->blocks);
    }
    const uint64_t size = qn_dtype_size(e->dtype);
    if (e->dtype != QN_F32) qn_narrow(l->piece, (size_t)n, e->dtype);
    QN_TRY(qn_store_write_part(l->store, e->name, first * size, l->piece, n * size));
    return advance(l, n * size);
}

static qn_result load_one(void *user, const qn_param_info *p)
{
    loading *l = user;
    qn_weight w;
    QN_TRY(qn_weights_find(l->w, p, &w));
    const qn_store_entry *e = qn_store_find(l->store, p->name);
    if (!e) return qn_fail(QN_ERR_INVALID, "the store has no tensor %s", p->name);
    if (w.dtype == e->dtype && !qn_dtype_is_block(e->dtype))
        QN_TRY(copy(l, e, &w));
    else
        for (uint64_t at = 0; at < w.count; at += PIECE)
            QN_TRY(convert_piece(l, e, &w, at, w.count - at < PIECE ? w.count - at : PIECE));
    qn_map_release(w.data, w.size);
    return QN_OK;
}

qn_result qn_weights_load(const qn_weights *w, const qn_model_config *c, qn_store *store,
                          const qn_load_progress *progress)
{
    loading l = { .w = w, .store = store, .progress = progress };
    l.piece = qn_malloc(PIECE * sizeof *l.piece);
    l.blocks = qn_malloc(PIECE / QN_BLOCK * 34);
    l.integers = qn_malloc(PIECE);
    l.scales = qn_malloc(PIECE / QN_BLOCK * sizeof *l.scales);
    qn_result r = l.piece && l.blocks && l.integers && l.scales ? QN_OK
                                                                : qn_no_memory(PIECE * 4);
    if (r == QN_OK) r = qn_weights_check(w, c);
    if (r == QN_OK) r = qn_parameters(c, load_one, &l);
    qn_free(l.piece);
    qn_free(l.blocks);
    qn_free(l.integers);
    qn_free(l.scales);
    return r;
}

qn_result qn_model_load(const qn_model_config *c, qn_store *store, const char *dir)
{
    qn_weights w;
    QN_TRY(qn_weights_open(dir, &w));
    qn_result r = qn_weights_load(&w, c, store, NULL);
    qn_weights_close(&w);
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
