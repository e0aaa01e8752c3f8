// One tensor of a merge: shapes, types, loading.
#include "tensor.h"

#include "half.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    qn_st_dtype dtype;
    qn_storage storage;
} dtypes[] = {
    { "float32", QN_ST_F32, QN_STORE_F32 },
    { "float16", QN_ST_F16, QN_STORE_F16 },
    { "bfloat16", QN_ST_BF16, QN_STORE_BF16 },
};
#define DTYPES (sizeof dtypes / sizeof *dtypes)

qn_result qn_merge_dtype(const char *name, qn_st_dtype *out)
{
    *out = QN_MERGE_AS_STORED;
    if (!name) return QN_OK;
    const char *plain = strncmp(name, "torch.", 6) == 0 ? name + 6 : name;
    for (size_t i = 0; i < DTYPES; i++)
        if (strcmp(dtypes[i].name, plain) == 0) {
            *out = dtypes[i].dtype;
            return QN_OK;
        }
    return qn_fail(QN_ERR_INVALID, "type \"%.40s\", expected float32, float16 or bfloat16", name);
}

const char *qn_merge_dtype_name(qn_st_dtype d)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == d) return dtypes[i].name;
    return "float32";
}

static qn_storage storage_of(qn_st_dtype d)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (dtypes[i].dtype == d) return dtypes[i].storage;
    return QN_STORE_F32; // F64 is rounded to it
}

// ---------------------------------------------------------------------------------- shapes

static int64_t rows_of(const qn_tensor_source *s)
{
    return s->rows ? s->row_count : s->tensor->dim[0];
}

static bool same_shape(const qn_tensor_source *a, const qn_tensor_source *b)
{
    const qn_safetensor *x = a->tensor, *y = b->tensor;
    if (x->rank != y->rank) return false;
    for (int i = 0; i < x->rank; i++) {
        int64_t p = i == 0 ? rows_of(a) : x->dim[i], q = i == 0 ? rows_of(b) : y->dim[i];
        if (p != q) return false;
    }
    return true;
}

static const char *shape_text(const qn_tensor_source *s, char text[96])
{
    size_t at = (size_t)snprintf(text, 96, "[");
    for (int i = 0; i < s->tensor->rank && at < 80; i++)
        at += (size_t)snprintf(text + at, 96 - at, "%s%lld", i ? "," : "",
                               (long long)(i == 0 ? rows_of(s) : s->tensor->dim[i]));
    snprintf(text + at, 96 - at, "]");
    return text;
}

static void drop(qn_merge_tensor *t, size_t i)
{
    t->count--;
    memmove(&t->models[i], &t->models[i + 1], (t->count - i) * sizeof *t->models);
    memmove(&t->sources[i], &t->sources[i + 1], (t->count - i) * sizeof *t->sources);
    if (t->base > (int)i) t->base--;
}

static qn_result unequal(const qn_merge_tensor *t, size_t i, size_t j)
{
    char a[96], b[96];
    return qn_fail(QN_ERR_INVALID, "tensor %s: shape %s in %s, but %s in %s", t->name,
                   shape_text(&t->sources[i], a), t->models[i].model, shape_text(&t->sources[j], b),
                   t->models[j].model);
}

static void crop(qn_merge_tensor *t)
{
    for (size_t i = 0; i < t->count; i++) {
        int64_t rows = rows_of(&t->sources[i]), columns = t->sources[i].tensor->dim[1];
        if (i == 0 || rows < t->dim[0]) t->dim[0] = rows;
        if (i == 0 || columns < t->dim[1]) t->dim[1] = columns;
    }
    qn_log(QN_LOG_WARN, "%s: shapes differ; the common %lld rows of %lld are merged", t->name,
           (long long)t->dim[0], (long long)t->dim[1]);
}

static qn_result settle_shape(qn_merge_tensor *t)
{
    size_t like = t->base >= 0 ? (size_t)t->base : 0;
    bool flat = true, equal = true;
    for (size_t i = 0; i < t->count; i++) {
        flat = flat && t->sources[i].tensor->rank == 2;
        equal = equal && same_shape(&t->sources[i], &t->sources[like]);
    }
    t->rank = t->sources[like].tensor->rank;
    memcpy(t->dim, t->sources[like].tensor->dim, sizeof t->dim);
    if (t->rank) t->dim[0] = rows_of(&t->sources[like]);
    if (equal) return QN_OK;
    bool like_base = t->method->unequal == QN_UNEQUAL_LIKE_BASE && t->base >= 0;
    if (t->embedding && flat && t->method->unequal == QN_UNEQUAL_CROPPED) {
        crop(t);
        return QN_OK;
    }
    for (size_t i = t->count; i-- > 0;) {
        like = t->base >= 0 ? (size_t)t->base : 0;
        if (same_shape(&t->sources[i], &t->sources[like])) continue;
        if (!like_base) return unequal(t, i, like);
        char a[96], b[96];
        const char *fate = t->embedding && flat ? "what it lacks counts as unchanged" : "left out";
        qn_log(QN_LOG_WARN, "%s: shape %s in %s, but %s in the base; %s", t->name,
               shape_text(&t->sources[i], a), t->models[i].model, shape_text(&t->sources[like], b),
               fate);
        if (!(t->embedding && flat)) drop(t, i);
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- types

static bool as_it_is(const qn_merge_tensor *t, const qn_tensor_source *s)
{
    if (s->rows || s->tensor->rank != t->rank) return false;
    return memcmp(s->tensor->dim, t->dim, (size_t)t->rank * sizeof *t->dim) == 0;
}

// Tensors of other types are not computed with: all models must have the same.
static qn_result settle_other(qn_merge_tensor *t)
{
    const qn_safetensor *first = t->sources[0].tensor;
    for (size_t i = 1; i < t->count; i++) {
        const qn_safetensor *x = t->sources[i].tensor;
        if (x->dtype != first->dtype || x->size != first->size ||
            memcmp(x->data, first->data, (size_t)x->size) != 0)
            return qn_fail(QN_ERR_INVALID,
                           "tensor %s: type %s is not computed with, and %s and %s differ", t->name,
                           qn_st_dtype_name(first->dtype), t->models[0].model, t->models[i].model);
    }
    t->copied = true;
    t->stored = first->dtype;
    return QN_OK;
}

static bool is_computed(const qn_safetensor *t)
{
    return qn_st_dtype_is_float(t->dtype);
}

qn_result qn_merge_prepare(qn_merge_tensor *t)
{
    if (!t->count) return qn_fail(QN_ERR_INVALID, "tensor %s: no model has it", t->name);
    QN_TRY(settle_shape(t));
    t->out_count = 1;
    for (int i = 0; i < t->rank; i++) t->out_count *= (uint64_t)t->dim[i];
    for (size_t i = 0; i < t->count; i++) t->models[i].input = (int)i;
    const qn_safetensor *first = t->sources[0].tensor;
    if (!is_computed(first)) return settle_other(t);
    qn_st_dtype common = first->dtype;
    bool native = true;
    for (size_t i = 0; i < t->count; i++) {
        if (!is_computed(t->sources[i].tensor)) return settle_other(t);
        native = native && t->sources[i].tensor->dtype == common && !t->sources[i].rows;
        bool whole = as_it_is(t, &t->sources[i]);
        native = native && (whole || t->method->unequal == QN_UNEQUAL_CROPPED);
        native = native && (whole || t->dim[1] == t->sources[i].tensor->dim[1]);
    }
    bool short_type = t->dtype == QN_ST_F16 || t->dtype == QN_ST_BF16;
    t->stored = t->out_dtype != QN_MERGE_AS_STORED ? t->out_dtype
                : t->dtype != QN_MERGE_AS_STORED   ? t->dtype
                                                   : common;
    if (t->stored == QN_ST_F64) t->stored = QN_ST_F32;
    // 16-bit inputs stay as they are unless another 16-bit type is asked for.
    t->storage = short_type                      ? storage_of(t->dtype)
                 : native && common != QN_ST_F64 ? storage_of(common)
                                                 : QN_STORE_F32;
    t->copied = t->out_count == 0;
    return QN_OK;
}

bool qn_merge_divisible(const qn_merge_tensor *t)
{
    bool whole = t->method->elementwise && !t->copied && !t->masks;
    for (size_t i = 0; i < t->count; i++) whole = whole && as_it_is(t, &t->sources[i]);
    return whole;
}

void qn_merge_piece(const qn_merge_tensor *t, uint64_t first, uint64_t count,
                    qn_tensor_source *sources, qn_safetensor *views, qn_merge_tensor *out)
{
    *out = *t;
    out->sources = sources;
    out->rank = 1;
    out->dim[0] = (int64_t)count;
    out->out_count = count;
    for (size_t i = 0; i < t->count; i++) {
        const qn_safetensor *x = t->sources[i].tensor;
        uint64_t size = qn_st_dtype_size(x->dtype);
        views[i] = (qn_safetensor){ .name = x->name,
                                    .dtype = x->dtype,
                                    .rank = 1,
                                    .dim = { (int64_t)count },
                                    .count = count,
                                    .size = count * size,
                                    .data = (const char *)x->data + first * size };
        sources[i] = (qn_tensor_source){ .tensor = &views[i] };
    }
}

static uint64_t storage_bytes(qn_storage s)
{
    return s == QN_STORE_F32 ? 4 : 2;
}

uint64_t qn_merge_slot_bytes(const qn_merge_tensor *t)
{
    return t->out_count * storage_bytes(t->storage);
}

uint64_t qn_merge_out_bytes(const qn_merge_tensor *t)
{
    return t->out_count * qn_st_dtype_size(t->stored);
}

// ---------------------------------------------------------------------------------- loading

static void narrow(const float *from, uint64_t count, qn_storage storage, void *to)
{
    uint16_t *out = to;
    if (storage == QN_STORE_F32) memcpy(to, from, (size_t)count * sizeof *from);
    if (storage == QN_STORE_F16)
        for (uint64_t i = 0; i < count; i++) out[i] = qn_f16_from_f32(from[i]);
    if (storage == QN_STORE_BF16)
        for (uint64_t i = 0; i < count; i++) out[i] = qn_bf16_from_f32(from[i]);
}

// Values [first, first + count) of a source, as f32 rounded to the type asked for.
static qn_result read_values(const qn_merge_tensor *t, const qn_tensor_source *s, uint64_t row,
                             uint64_t column, uint64_t count, float *out)
{
    if (!s->rows) {
        uint64_t width = t->rank == 2 ? (uint64_t)s->tensor->dim[1] : 1;
        return qn_safetensor_f32(s->tensor, row * width + column, count, out);
    }
    return s->rows(s->user, row, 1, out);
}

// By rows: what the source lacks is the base's.
static qn_result load_rows(const qn_merge_tensor *t, const qn_tensor_source *s, char *slot)
{
    uint64_t width = (uint64_t)t->dim[1], have = (uint64_t)s->tensor->dim[1];
    uint64_t size = storage_bytes(t->storage), common = have < width ? have : width;
    const qn_tensor_source *base = t->base >= 0 ? &t->sources[t->base] : NULL;
    float *row = qn_malloc((size_t)(have > width ? have : width) * sizeof *row);
    if (!row) return qn_no_memory((size_t)width * sizeof *row);
    qn_result r = QN_OK;
    for (uint64_t i = 0; r == QN_OK && i < (uint64_t)t->dim[0]; i++) {
        bool there = i < (uint64_t)rows_of(s);
        if (base && (!there || common < width)) r = read_values(t, base, i, 0, width, row);
        if (r == QN_OK && there) r = read_values(t, s, i, 0, common, row);
        narrow(row, width, t->storage, slot + i * width * size);
    }
    qn_free(row);
    return r;
}

// In pieces, converted.
static qn_result load_values(const qn_merge_tensor *t, const qn_tensor_source *s, char *slot)
{
    enum { PIECE = 1 << 14 };
    uint64_t size = storage_bytes(t->storage);
    float piece[PIECE];
    for (uint64_t at = 0; at < t->out_count; at += PIECE) {
        uint64_t count = t->out_count - at < PIECE ? t->out_count - at : PIECE;
        QN_TRY(qn_safetensor_f32(s->tensor, at, count, piece));
        narrow(piece, count, t->storage, slot + at * size);
    }
    return QN_OK;
}

// Piece by piece, so that what was copied does not stay in memory twice.
static void copy_mapped(char *to, const char *from, uint64_t size)
{
    const uint64_t piece = (uint64_t)8 << 20;
    for (uint64_t at = 0; at < size; at += piece) {
        uint64_t n = size - at < piece ? size - at : piece;
        if (at + n < size)
            qn_map_prefetch(from + at + n, size - at - n < piece ? size - at - n : piece);
        memcpy(to + at, from + at, (size_t)n);
        qn_map_release(from + at, n);
    }
}

static qn_result load_source(const qn_merge_tensor *t, const qn_tensor_source *s, char *slot)
{
    bool prefix = t->rank == 2 && !s->rows && s->tensor->dim[1] == t->dim[1] &&
                  s->tensor->dim[0] >= t->dim[0]; // rows cut off at the end
    bool whole = as_it_is(t, s) || prefix;
    if (whole && storage_of(s->tensor->dtype) == t->storage && s->tensor->dtype != QN_ST_F64) {
        copy_mapped(slot, s->tensor->data, qn_merge_slot_bytes(t));
        return QN_OK;
    }
    if (s->rows && t->rank != 2) { // made as one row
        float *all = qn_malloc((size_t)t->out_count * sizeof *all);
        if (!all) return qn_no_memory((size_t)t->out_count * sizeof *all);
        qn_result r = s->rows(s->user, 0, 1, all);
        narrow(all, t->out_count, t->storage, slot);
        qn_free(all);
        return r;
    }
    return whole ? load_values(t, s, slot) : load_rows(t, s, slot);
}

qn_result qn_merge_reserve_inputs(qn_blend *b, int set, const qn_merge_tensor *t)
{
    return t->copied ? QN_OK : qn_blend_reserve(b, set, t->count, qn_merge_slot_bytes(t));
}

qn_result qn_merge_reserve_output(qn_blend *b, int set, const qn_merge_tensor *t)
{
    return t->copied ? QN_OK : qn_blend_reserve_result(b, set, qn_merge_out_bytes(t));
}

qn_result qn_merge_fill(qn_blend *b, int set, const qn_merge_tensor *t)
{
    if (t->copied) return QN_OK;
    for (size_t i = 0; i < t->count; i++)
        QN_TRY(qn_context_add(load_source(t, &t->sources[i], qn_blend_slot(b, set, i)),
                              "tensor %s of %s", t->name, t->models[i].model));
    return QN_OK;
}

qn_result qn_merge_load(qn_blend *b, int set, const qn_merge_tensor *t)
{
    QN_TRY(qn_merge_reserve_inputs(b, set, t));
    QN_TRY(qn_merge_reserve_output(b, set, t));
    return qn_merge_fill(b, set, t);
}

qn_result qn_merge_compute(qn_blend *b, int set, const qn_merge_tensor *t)
{
    if (t->copied) return QN_OK;
    uint64_t width = t->rank ? (uint64_t)t->dim[t->rank - 1] : 1;
    uint64_t columns = t->rank ? t->out_count / (uint64_t)t->dim[0] : 1;
    QN_TRY(qn_blend_begin(b, set,
                          &(qn_blend_tensor){ .count = t->out_count,
                                              .width = width,
                                              .columns = columns,
                                              .inputs = t->count,
                                              .storage = t->storage,
                                              .out = storage_of(t->stored) }));
    QN_TRY(qn_method_run(b, t->method,
                         &(qn_merge_job){ .tensor = t->name,
                                          .rank = t->rank,
                                          .dim = t->dim,
                                          .count = t->out_count,
                                          .models = t->models,
                                          .model_count = t->count,
                                          .base = t->base,
                                          .params = t->params,
                                          .seed = t->seed,
                                          .masks = t->masks }));
    return qn_blend_end(b);
}
