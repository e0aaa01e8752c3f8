// Reading [gguf]: a header, metadata, descriptions of tensors, padding, the tensors' bytes.
#include "io/gguf.h"

#include "fail.h"
#include "io/map.h"
#include "mem.h"
#include "platform.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { KIND_COUNT = QN_GGUF_F64 + 1, MOST_NESTED = 4, NAME_LIMIT = 1 << 16 };
enum { DEFAULT_ALIGNMENT = 32, MOST_ALIGNMENT = 1 << 20 };

typedef struct value {
    qn_gguf_text key;
    uint32_t kind;
    const uint8_t *data; // of a text: behind its length
    uint64_t size;       // of a text
} value;

struct qn_gguf {
    char *path;
    qn_mapping map;
    bool mapped; // map is ours to release
    value *values;
    size_t value_count, value_cap;
    qn_gguf_tensor *tensors;
    size_t tensor_count, tensor_cap;
    qn_strmap names, keys;
    qn_arena arena;
};

// What is left to read.
typedef struct cursor {
    const qn_gguf *g;
    const uint8_t *at, *end;
} cursor;

static const struct {
    uint32_t id;
    const char *name;
    uint32_t block, bytes;
} types[] = {
    { QN_GGUF_TENSOR_F32, "F32", 1, 4 },    { QN_GGUF_TENSOR_F16, "F16", 1, 2 },
    { QN_GGUF_TENSOR_BF16, "BF16", 1, 2 },  { QN_GGUF_TENSOR_Q8_0, "Q8_0", 32, 34 },
    { QN_GGUF_TENSOR_Q4_0, "Q4_0", 32, 18 }, { 3, "Q4_1", 0, 0 },
    { 6, "Q5_0", 0, 0 },                    { 7, "Q5_1", 0, 0 },
    { 10, "Q2_K", 0, 0 },                   { 11, "Q3_K", 0, 0 },
    { 12, "Q4_K", 0, 0 },                   { 13, "Q5_K", 0, 0 },
    { 14, "Q6_K", 0, 0 },                   { 15, "Q8_K", 0, 0 },
};
enum { TYPES = sizeof types / sizeof *types };

const char *qn_gguf_type_name(uint32_t type)
{
    for (int i = 0; i < TYPES; i++)
        if (types[i].id == type) return types[i].name;
    return NULL;
}

uint32_t qn_gguf_block(uint32_t type)
{
    for (int i = 0; i < TYPES; i++)
        if (types[i].id == type) return types[i].block;
    return 0;
}

uint64_t qn_gguf_bytes(uint32_t type, uint64_t count)
{
    for (int i = 0; i < TYPES; i++)
        if (types[i].id == type && types[i].block) return count / types[i].block * types[i].bytes;
    return 0;
}

static qn_result bad(const qn_gguf *g, const char *fmt, ...) QN_PRINTF(2, 3);
static qn_result bad(const qn_gguf *g, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return qn_fail(QN_ERR_FORMAT, "%s: %s", g->path, text);
}

static qn_result take(cursor *c, uint64_t size, const uint8_t **out)
{
    if (size > (uint64_t)(c->end - c->at))
        return bad(c->g, "the file ends at byte %llu, in the middle of its header",
                   (unsigned long long)c->g->map.size);
    *out = c->at;
    c->at += size;
    return QN_OK;
}

static uint64_t little(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static qn_result take_int(cursor *c, int bytes, uint64_t *out)
{
    const uint8_t *p;
    QN_TRY(take(c, (uint64_t)bytes, &p));
    *out = little(p, bytes);
    return QN_OK;
}

static qn_result take_text(cursor *c, qn_gguf_text *out)
{
    uint64_t size;
    const uint8_t *p;
    QN_TRY(take_int(c, 8, &size));
    QN_TRY(take(c, size, &p));
    *out = (qn_gguf_text){ (const char *)p, (size_t)size };
    return QN_OK;
}

static uint32_t size_of_kind(uint32_t kind)
{
    static const uint8_t sizes[KIND_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return kind < KIND_COUNT ? sizes[kind] : 0;
}

// Steps over a value.
static qn_result skip_value(cursor *c, uint32_t kind, int depth)
{
    const uint8_t *p;
    qn_gguf_text text;
    if (kind >= KIND_COUNT) return bad(c->g, "metadata of type %u, expected 0 to 12", kind);
    if (size_of_kind(kind)) return take(c, size_of_kind(kind), &p);
    if (kind == QN_GGUF_STRING) return take_text(c, &text);
    uint64_t element, count, bytes;
    if (depth == MOST_NESTED) return bad(c->g, "arrays nested deeper than %d", MOST_NESTED);
    QN_TRY(take_int(c, 4, &element));
    QN_TRY(take_int(c, 8, &count));
    if (element >= KIND_COUNT)
        return bad(c->g, "an array of type %llu, expected 0 to 12", (unsigned long long)element);
    if (size_of_kind((uint32_t)element)) {
        if (!qn_mul_u64(count, size_of_kind((uint32_t)element), &bytes)) bytes = UINT64_MAX;
        return take(c, bytes, &p);
    }
    // Every element takes at least eight bytes, so the file's end ends this loop.
    for (uint64_t i = 0; i < count; i++) QN_TRY(skip_value(c, (uint32_t)element, depth + 1));
    return QN_OK;
}

static qn_result read_value(qn_gguf *g, cursor *c)
{
    value v = { 0 };
    uint64_t kind;
    uint32_t found;
    QN_TRY(take_text(c, &v.key));
    if (!v.key.size || v.key.size > NAME_LIMIT)
        return bad(g, "a metadata key of %zu bytes", v.key.size);
    QN_TRY(take_int(c, 4, &kind));
    v.kind = (uint32_t)kind;
    v.data = c->at;
    if (v.kind == QN_GGUF_STRING) {
        qn_gguf_text text;
        QN_TRY(take_text(c, &text));
        v.data = (const uint8_t *)text.data;
        v.size = text.size;
    } else {
        QN_TRY(skip_value(c, v.kind, 0));
    }
    QN_TRY(qn_strmap_add(&g->keys, v.key.data, v.key.size, (uint32_t)g->value_count, &found));
    if (found != g->value_count)
        return bad(g, "the metadata key %.*s occurs twice", (int)v.key.size, v.key.data);
    QN_TRY(qn_grow((void **)&g->values, &g->value_cap, g->value_count + 1, sizeof *g->values));
    g->values[g->value_count++] = v;
    return QN_OK;
}

static qn_result read_tensor(qn_gguf *g, cursor *c)
{
    qn_gguf_tensor t = { .count = 1 };
    qn_gguf_text name;
    uint64_t rank, dim, type, offset;
    QN_TRY(take_text(c, &name));
    if (!name.size || name.size > NAME_LIMIT || memchr(name.data, 0, name.size))
        return bad(g, "a tensor's name of %zu bytes is no name", name.size);
    char *copy = qn_arena_alloc(&g->arena, name.size + 1);
    if (!copy) return qn_no_memory(name.size + 1);
    memcpy(copy, name.data, name.size);
    t.name = copy;
    QN_TRY(take_int(c, 4, &rank));
    if (rank > QN_GGUF_RANK)
        return bad(g, "tensor %s has %llu dimensions, expected at most %d", t.name,
                   (unsigned long long)rank, QN_GGUF_RANK);
    t.rank = (int)rank;
    for (int i = t.rank; i-- > 0;) {
        QN_TRY(take_int(c, 8, &dim));
        if (dim < 1 || dim > INT64_MAX || !qn_mul_u64(t.count, dim, &t.count) ||
            t.count > (uint64_t)1 << 56)
            return bad(g, "tensor %s has a dimension of %llu", t.name, (unsigned long long)dim);
        t.dim[i] = (int64_t)dim;
    }
    QN_TRY(take_int(c, 4, &type));
    QN_TRY(take_int(c, 8, &offset));
    t.type = (uint32_t)type;
    const char *type_name = qn_gguf_type_name(t.type);
    const uint32_t block = qn_gguf_block(t.type);
    if (!block && type_name)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "%s: tensor %s is %s; F32, F16, BF16, Q8_0 and Q4_0 can be read", g->path,
                       t.name, type_name);
    if (!block)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "%s: tensor %s has type %u; F32, F16, BF16, Q8_0 and Q4_0 can be read",
                       g->path, t.name, t.type);
    if (block > 1 && (t.rank == 0 || t.dim[t.rank - 1] % block))
        return bad(g, "tensor %s has rows of %lld, %s needs a multiple of %u", t.name,
                   (long long)(t.rank ? t.dim[t.rank - 1] : 1), type_name, block);
    t.size = qn_gguf_bytes(t.type, t.count);
    t.data = (const void *)(uintptr_t)offset; // until the data's place is known
    uint32_t found;
    QN_TRY(qn_strmap_add(&g->names, t.name, name.size, (uint32_t)g->tensor_count, &found));
    if (found != g->tensor_count) return bad(g, "tensor %s occurs twice", t.name);
    QN_TRY(qn_grow((void **)&g->tensors, &g->tensor_cap, g->tensor_count + 1, sizeof *g->tensors));
    g->tensors[g->tensor_count++] = t;
    return QN_OK;
}

static qn_result place_tensors(qn_gguf *g, const cursor *c)
{
    const uint8_t *start = g->map.data;
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (qn_gguf_integer_of(g, "general.alignment", &alignment) &&
        (alignment < 8 || alignment > MOST_ALIGNMENT || alignment % 8))
        return bad(g, "general.alignment is %lld, expected a multiple of 8", (long long)alignment);
    const uint64_t step = (uint64_t)alignment, at = (uint64_t)(c->at - start);
    const uint64_t base = (at + step - 1) / step * step;
    const uint64_t room = g->map.size > base ? g->map.size - base : 0;
    for (size_t i = 0; i < g->tensor_count; i++) {
        qn_gguf_tensor *t = &g->tensors[i];
        const uint64_t offset = (uint64_t)(uintptr_t)t->data;
        if (offset % step)
            return bad(g, "tensor %s starts at byte %llu of the data, not at a multiple of %llu",
                       t->name, (unsigned long long)offset, (unsigned long long)step);
        if (offset > room || t->size > room - offset)
            return bad(g, "tensor %s: its %llu bytes reach beyond the file's end", t->name,
                       (unsigned long long)t->size);
        t->data = start + base + offset;
    }
    return QN_OK;
}

static qn_result read_all(qn_gguf *g)
{
    cursor c = { g, g->map.data, (const uint8_t *)g->map.data + g->map.size };
    const uint8_t *magic;
    uint64_t version, tensors, values;
    if (g->map.size < 24) return bad(g, "%llu bytes are no GGUF file",
                                     (unsigned long long)g->map.size);
    QN_TRY(take(&c, 4, &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return bad(g, "it does not start with \"GGUF\"");
    QN_TRY(take_int(&c, 4, &version));
    if (version == UINT32_C(0x03000000) || version == UINT32_C(0x02000000))
        return bad(g, "it is in big-endian order, only little-endian files are read");
    if (version != 2 && version != 3)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: GGUF version %llu, expected 2 or 3", g->path,
                       (unsigned long long)version);
    QN_TRY(take_int(&c, 8, &tensors));
    QN_TRY(take_int(&c, 8, &values));
    // The shortest of each take 24 and 13 bytes.
    if (tensors > g->map.size / 24 || values > g->map.size / 13)
        return bad(g, "%llu tensors and %llu metadata values do not fit the file",
                   (unsigned long long)tensors, (unsigned long long)values);
    for (uint64_t i = 0; i < values; i++) QN_TRY(read_value(g, &c));
    for (uint64_t i = 0; i < tensors; i++) QN_TRY(read_tensor(g, &c));
    return place_tensors(g, &c);
}

static qn_result start(const char *path, qn_gguf **out)
{
    qn_gguf *g = qn_calloc(1, sizeof *g);
    if (!g) return qn_no_memory(sizeof *g);
    g->path = qn_strdup(path);
    *out = g;
    return g->path ? QN_OK : qn_no_memory(strlen(path) + 1);
}

static qn_result finish(qn_gguf *g, qn_result r, qn_gguf **out)
{
    if (r == QN_OK) r = read_all(g);
    if (r == QN_OK)
        *out = g;
    else
        qn_gguf_close(&g);
    return r;
}

qn_result qn_gguf_open(const char *path, qn_gguf **out)
{
    *out = NULL;
    qn_gguf *g = NULL;
    qn_result r = start(path, &g);
    if (r == QN_OK) r = qn_map_file(path, &g->map);
    if (r == QN_OK) g->mapped = true;
    return finish(g, r, out);
}

qn_result qn_gguf_parse(const char *name, const void *data, uint64_t size, qn_gguf **out)
{
    *out = NULL;
    qn_gguf *g = NULL;
    qn_result r = start(name, &g);
    if (r == QN_OK) g->map = (qn_mapping){ data, size };
    return finish(g, r, out);
}

void qn_gguf_close(qn_gguf **gguf)
{
    qn_gguf *g = *gguf;
    *gguf = NULL;
    if (!g) return;
    if (g->mapped) qn_unmap_file(&g->map);
    qn_strmap_free(&g->names);
    qn_strmap_free(&g->keys);
    qn_arena_free(&g->arena);
    qn_free(g->values);
    qn_free(g->tensors);
    qn_free(g->path);
    qn_free(g);
}

size_t qn_gguf_count(const qn_gguf *g)
{
    return g->tensor_count;
}

const qn_gguf_tensor *qn_gguf_at(const qn_gguf *g, size_t i)
{
    return i < g->tensor_count ? &g->tensors[i] : NULL;
}

const qn_gguf_tensor *qn_gguf_find(const qn_gguf *g, const char *name)
{
    uint32_t i = qn_strmap_find(&g->names, name, strlen(name));
    return i == QN_MAP_NONE ? NULL : &g->tensors[i];
}

static const value *find_value(const qn_gguf *g, const char *key)
{
    uint32_t i = qn_strmap_find(&g->keys, key, strlen(key));
    return i == QN_MAP_NONE ? NULL : &g->values[i];
}

bool qn_gguf_text_of(const qn_gguf *g, const char *key, qn_gguf_text *out)
{
    const value *v = find_value(g, key);
    if (!v || v->kind != QN_GGUF_STRING) return false;
    *out = (qn_gguf_text){ (const char *)v->data, (size_t)v->size };
    return true;
}

bool qn_gguf_integer_of(const qn_gguf *g, const char *key, int64_t *out)
{
    const value *v = find_value(g, key);
    if (!v || v->kind == QN_GGUF_F32 || v->kind == QN_GGUF_F64 || v->kind == QN_GGUF_BOOL ||
        !size_of_kind(v->kind))
        return false;
    const int bytes = (int)size_of_kind(v->kind);
    uint64_t x = little(v->data, bytes);
    const bool is_signed = v->kind == QN_GGUF_I8 || v->kind == QN_GGUF_I16 ||
                           v->kind == QN_GGUF_I32 || v->kind == QN_GGUF_I64;
    if (is_signed && bytes < 8 && x >> (8 * bytes - 1)) x |= UINT64_MAX << 8 * bytes;
    if (!is_signed && x > INT64_MAX) return false;
    *out = (int64_t)x;
    return true;
}
