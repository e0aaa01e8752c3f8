// Named tensors that persist on a device: one buffer, an offset for each.
#include "graph_impl.h"

#include <quoin/blocks.h>

#include <string.h>

struct qn_store {
    qn_device *dev;
    char *name;
    qn_store_entry *entries;
    size_t count, cap;
    int32_t *table; // open addressing over names; -1 is empty
    size_t table_size;
    uint64_t bytes;
    uint64_t chunk;      // bytes of each buffer but the last; no tensor straddles two
    qn_buffer **buffers; // NULL before allocation
    size_t buffer_count;
};

static uint64_t hash(const char *s)
{
    uint64_t h = 1469598103934665603u; // FNV-1a
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

qn_result qn_store_create(qn_device *dev, const char *name, qn_store **out)
{
    *out = NULL;
    qn_store *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->dev = dev;
    s->chunk = qn_device_describe(dev)->max_allocation / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
    s->name = qn_strdup(name);
    if (!s->name) {
        qn_free(s);
        return qn_no_memory(strlen(name) + 1);
    }
    *out = s;
    return QN_OK;
}

void qn_store_destroy(qn_store **store)
{
    qn_store *s = *store;
    *store = NULL;
    if (!s) return;
    for (size_t i = 0; i < s->buffer_count; i++) qn_buffer_destroy(&s->buffers[i]);
    qn_free(s->buffers);
    for (size_t i = 0; i < s->count; i++) qn_free((void *)s->entries[i].name);
    qn_free(s->entries);
    qn_free(s->table);
    qn_free(s->name);
    qn_free(s);
}

static qn_result rehash(qn_store *s)
{
    size_t size = 16;
    while (size < 2 * (s->count + 1)) size *= 2;
    if (size == s->table_size) return QN_OK;
    int32_t *table = qn_malloc(size * sizeof *table);
    if (!table) return qn_no_memory(size * sizeof *table);
    memset(table, 0xff, size * sizeof *table);
    for (size_t i = 0; i < s->count; i++) {
        size_t at = hash(s->entries[i].name) & (size - 1);
        while (table[at] >= 0) at = (at + 1) & (size - 1);
        table[at] = (int32_t)i;
    }
    qn_free(s->table);
    s->table = table;
    s->table_size = size;
    return QN_OK;
}

static size_t slot_of(const qn_store *s, const char *name)
{
    size_t at = hash(name) & (s->table_size - 1);
    while (s->table[at] >= 0 && strcmp(s->entries[s->table[at]].name, name) != 0)
        at = (at + 1) & (s->table_size - 1);
    return at;
}

const qn_store_entry *qn_store_find(const qn_store *s, const char *name)
{
    if (!s->count) return NULL;
    int32_t i = s->table[slot_of(s, name)];
    return i < 0 ? NULL : &s->entries[i];
}

qn_result qn_store_add(qn_store *s, const char *name, qn_dtype dtype, qn_shape shape)
{
    if (s->buffers)
        return qn_fail(QN_ERR_INVALID, "%s: %s cannot be added after allocation", s->name, name);
    if (qn_store_find(s, name))
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s was added twice", s->name, name);
    if (shape.rank < 0 || shape.rank > QN_MAX_RANK)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s has rank %d, at most %d is possible", s->name,
                       name, shape.rank, QN_MAX_RANK);
    uint64_t size = 1;
    for (int i = 0; i < shape.rank; i++)
        if (shape.dim[i] < 1 || !qn_mul_u64(size, (uint64_t)shape.dim[i], &size) ||
            size > (uint64_t)1 << 44) {
            char text[QN_SHAPE_TEXT];
            return qn_fail(QN_ERR_INVALID, "%s: tensor %s: shape %s is not possible", s->name, name,
                           qn_shape_format(shape, text));
        }
    if (qn_dtype_is_block(dtype) && qn_shape_last(shape) % QN_BLOCK)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s has rows of %lld, %s needs a multiple of %d",
                       s->name, name, (long long)qn_shape_last(shape), qn_dtype_name(dtype),
                       QN_BLOCK);
    size = qn_dtype_bytes(dtype, size);
    QN_TRY(qn_grow((void **)&s->entries, &s->cap, s->count + 1, sizeof *s->entries));
    QN_TRY(rehash(s));
    char *copy = qn_strdup(name);
    if (!copy) return qn_no_memory(strlen(name) + 1);
    if (s->bytes % s->chunk + size > s->chunk) // a buffer of its own; an end at the next multiple
        s->bytes = (s->bytes + s->chunk - 1) / s->chunk * s->chunk;
    s->entries[s->count] = (qn_store_entry){
        .name = copy, .dtype = dtype, .shape = shape, .offset = s->bytes, .size = size,
    };
    s->table[slot_of(s, copy)] = (int32_t)s->count++;
    s->bytes += (size + QN_RANGE_ALIGN - 1) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
    return QN_OK;
}

qn_result qn_store_allocate(qn_store *s)
{
    if (s->buffers) return QN_OK;
    const uint64_t bytes = s->bytes ? s->bytes : QN_RANGE_ALIGN;
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].size > s->chunk)
            return qn_fail(QN_ERR_NO_DEVICE_MEMORY,
                           "%s: tensor %s wants %llu MiB, but this device gives at most %llu MiB "
                           "in one allocation",
                           s->name, s->entries[i].name,
                           (unsigned long long)(s->entries[i].size >> 20),
                           (unsigned long long)(s->chunk >> 20));
    const size_t count = (size_t)((bytes + s->chunk - 1) / s->chunk);
    qn_buffer **buffers = qn_calloc(count, sizeof *buffers);
    if (!buffers) return qn_no_memory(count * sizeof *buffers);
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        const uint64_t left = bytes - i * s->chunk;
        qn_buffer_opts opts = { .size = left < s->chunk ? left : s->chunk, .name = s->name };
        r = qn_buffer_create(s->dev, &opts, &buffers[i]);
    }
    if (r != QN_OK) {
        for (size_t i = 0; i < count; i++) qn_buffer_destroy(&buffers[i]);
        qn_free(buffers);
        return r;
    }
    s->buffers = buffers;
    s->buffer_count = count;
    return QN_OK;
}

size_t qn_store_count(const qn_store *s)
{
    return s->count;
}

const qn_store_entry *qn_store_at(const qn_store *s, size_t i)
{
    return i < s->count ? &s->entries[i] : NULL;
}

uint64_t qn_store_bytes(const qn_store *s)
{
    return s->bytes;
}

bool qn_store_is_split(const qn_store *s)
{
    return s->bytes > s->chunk;
}

qn_buffer *qn_store_buffer(const qn_store *s, uint64_t *offset)
{
    if (!s->buffers) return NULL;
    qn_buffer *b = s->buffers[*offset / s->chunk];
    *offset %= s->chunk;
    return b;
}

const char *qn_store_name(const qn_store *s)
{
    return s->name;
}

static qn_result locate(const qn_store *s, const char *name, uint64_t size,
                        const qn_store_entry **entry)
{
    *entry = qn_store_find(s, name);
    if (!*entry) {
        const char *near = qn_nearest_entry(s, name);
        return qn_fail(QN_ERR_INVALID, "%s has no tensor %s%s%s", s->name, name,
                       near ? "; the nearest is " : "", near ? near : "");
    }
    if (!s->buffers) return qn_fail(QN_ERR_INVALID, "%s is not allocated yet", s->name);
    if ((*entry)->size != size)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s has %llu bytes, %llu were given", s->name,
                       name, (unsigned long long)(*entry)->size, (unsigned long long)size);
    return QN_OK;
}

qn_result qn_store_write(qn_store *s, const char *name, const void *data, uint64_t size)
{
    const qn_store_entry *e;
    QN_TRY(locate(s, name, size, &e));
    return qn_store_write_part(s, name, 0, data, size);
}

qn_result qn_store_write_part(qn_store *s, const char *name, uint64_t at, const void *data,
                              uint64_t size)
{
    const qn_store_entry *e = qn_store_find(s, name);
    QN_TRY(locate(s, name, e ? e->size : 0, &e));
    if (at > e->size || size > e->size - at)
        return qn_fail(QN_ERR_INVALID, "%s: bytes %llu to %llu of tensor %s, which has %llu",
                       s->name, (unsigned long long)at, (unsigned long long)(at + size), name,
                       (unsigned long long)e->size);
    uint64_t offset = e->offset + at;
    qn_buffer *b = qn_store_buffer(s, &offset);
    return qn_context_add(qn_buffer_write(b, offset, data, size), "writing %s", name);
}

qn_result qn_store_read(const qn_store *s, const char *name, void *data, uint64_t size)
{
    const qn_store_entry *e;
    QN_TRY(locate(s, name, size, &e));
    uint64_t offset = e->offset;
    qn_buffer *b = qn_store_buffer(s, &offset);
    return qn_context_add(qn_buffer_read(b, offset, data, size), "reading %s", name);
}

// Levenshtein distance, cut off at names longer than the rows.
static int distance(const char *a, const char *b)
{
    enum { LIMIT = 128 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= LIMIT || m >= LIMIT) return LIMIT;
    int row[LIMIT];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int up = row[j], change = diagonal + (a[i - 1] != b[j - 1]);
            int best = up + 1 < row[j - 1] + 1 ? up + 1 : row[j - 1] + 1;
            row[j] = change < best ? change : best;
            diagonal = up;
        }
    }
    return row[m];
}

const char *qn_nearest_entry(const qn_store *s, const char *name)
{
    const char *best = NULL;
    int best_distance = (int)strlen(name) / 3 + 2;
    for (size_t i = 0; i < s->count; i++) {
        int d = distance(name, s->entries[i].name);
        if (d < best_distance) {
            best_distance = d;
            best = s->entries[i].name;
        }
    }
    return best;
}
