// Reading [safetensors]: u64 length of the header, a JSON header, the tensors' bytes.
#include <quoin/io.h>

#include "io/json.h"
#include "io/map.h"
#include "mem.h"
#include "platform.h"
#include "safetensors_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT ((uint64_t)100 << 20)
#define SHARD_LIMIT 4096 // files of one model

struct qn_safetensors {
    char *path;
    qn_mapping map;
    bool mapped;    // map is ours to release
    qn_arena arena; // names and metadata
    qn_safetensor *tensors;
    size_t count;
    qn_st_meta *meta;
    size_t meta_count;
    qn_safetensors **shards; // of an index; then map is empty
    size_t shard_count;
};

static char *keep(qn_safetensors *s, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = qn_arena_alloc(&s->arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static qn_result read_meta(qn_safetensors *s, qn_json meta)
{
    QN_TRY(qn_json_object(meta, NULL, &meta));
    size_t count = qn_json_count(meta);
    s->meta = qn_arena_alloc(&s->arena, (count + 1) * sizeof *s->meta);
    if (!s->meta) return qn_no_memory(count * sizeof *s->meta);
    for (qn_json v = qn_json_first(meta); v.node; v = qn_json_next(v)) {
        const char *value;
        QN_TRY(qn_json_string(v, NULL, &value));
        qn_st_meta pair = { keep(s, qn_json_key(v)), keep(s, value) };
        if (!pair.key || !pair.value) return qn_no_memory(strlen(value));
        s->meta[s->meta_count++] = pair;
    }
    return QN_OK;
}

static qn_result read_shape(qn_json info, qn_safetensor *t)
{
    qn_json shape;
    QN_TRY(qn_json_array(info, "shape", &shape));
    t->count = 1;
    for (qn_json v = qn_json_first(shape); v.node; v = qn_json_next(v)) {
        if (t->rank == QN_ST_MAX_RANK)
            return qn_json_fail(shape, "found %zu dimensions, expected at most %d",
                                qn_json_count(shape), QN_ST_MAX_RANK);
        QN_TRY(qn_json_int(v, NULL, 0, INT64_MAX, &t->dim[t->rank]));
        if (!qn_mul_u64(t->count, (uint64_t)t->dim[t->rank], &t->count))
            return qn_json_fail(shape, "more elements than any file holds");
        t->rank++;
    }
    if (!qn_mul_u64(t->count, qn_st_dtype_size(t->dtype), &t->size))
        return qn_json_fail(shape, "more bytes than any file holds");
    return QN_OK;
}

static qn_result read_tensor(qn_safetensors *s, qn_json info, uint64_t header, qn_safetensor *t)
{
    const char *dtype;
    QN_TRY(qn_json_object(info, NULL, &info));
    QN_TRY(qn_json_string(info, "dtype", &dtype));
    if (!qn_st_dtype_parse(dtype, &t->dtype))
        return qn_json_fail(info, "dtype \"%.40s\" is not supported; expected one of %s", dtype,
                            QN_ST_DTYPES);
    QN_TRY(read_shape(info, t));

    qn_json offsets;
    QN_TRY(qn_json_array(info, "data_offsets", &offsets));
    if (qn_json_count(offsets) != 2) return qn_json_fail(offsets, "expected [begin, end]");
    int64_t begin, end;
    qn_json first = qn_json_first(offsets);
    QN_TRY(qn_json_int(first, NULL, 0, INT64_MAX, &begin));
    QN_TRY(qn_json_int(qn_json_next(first), NULL, begin, INT64_MAX, &end));
    uint64_t available = s->map.size - header;
    if ((uint64_t)end > available)
        return qn_json_fail(offsets,
                            "end at byte %" PRId64 " of data, but the file has %" PRIu64
                            " (is it cut short?)",
                            end, available);
    if ((uint64_t)(end - begin) != t->size)
        return qn_json_fail(offsets, "span %" PRId64 " bytes, but dtype and shape need %" PRIu64,
                            end - begin, t->size);
    t->data = (const char *)s->map.data + header + begin;
    t->name = keep(s, qn_json_key(info));
    return t->name ? QN_OK : qn_no_memory(strlen(qn_json_key(info)));
}

static int by_place(const void *a, const void *b)
{
    const qn_safetensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->data, q = (uintptr_t)y->data;
    if (p != q) return p < q ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size); // an empty one comes before its neighbour
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const qn_safetensor *)a)->name, ((const qn_safetensor *)b)->name);
}

// The tensors' bytes follow each other without hole or overlap up to the end of the file.
static qn_result check_layout(qn_safetensors *s, uint64_t header)
{
    const char *data = (const char *)s->map.data + header;
    uint64_t at = 0;
    if (s->count) qsort(s->tensors, s->count, sizeof *s->tensors, by_place);
    for (size_t i = 0; i < s->count; i++) {
        const qn_safetensor *t = &s->tensors[i];
        uint64_t begin = (uint64_t)((const char *)t->data - data);
        if (begin < at)
            return qn_fail(QN_ERR_FORMAT, "%s: tensor %s: its data overlaps that of %s", s->path,
                           t->name, s->tensors[i - 1].name);
        if (begin > at)
            return qn_fail(QN_ERR_FORMAT,
                           "%s: tensor %s: bytes %" PRIu64 " to %" PRIu64
                           " before it belong to no tensor",
                           s->path, t->name, at, begin);
        at = begin + t->size;
    }
    if (at != s->map.size - header)
        return qn_fail(QN_ERR_FORMAT, "%s: %" PRIu64 " bytes behind the last tensor", s->path,
                       s->map.size - header - at);
    return QN_OK;
}

static qn_result read_header(qn_safetensors *s, qn_json root, uint64_t header)
{
    size_t capacity = qn_json_count(root);
    s->tensors = qn_calloc(capacity, sizeof *s->tensors);
    if (!s->tensors) return qn_no_memory(capacity * sizeof *s->tensors);
    for (qn_json v = qn_json_first(root); v.node; v = qn_json_next(v)) {
        if (!strcmp(qn_json_key(v), "__metadata__")) {
            QN_TRY(read_meta(s, v));
            continue;
        }
        QN_TRY(read_tensor(s, v, header, &s->tensors[s->count]));
        s->count++;
    }
    return check_layout(s, header);
}

static qn_result read_content(qn_safetensors *s)
{
    const uint8_t *bytes = s->map.data;
    if (s->map.size < 8)
        return qn_fail(QN_ERR_FORMAT, "%s: %" PRIu64 " bytes, too short for a safetensors file",
                       s->path, s->map.size);
    uint64_t length = 0;
    for (int i = 8; i-- > 0;) length = length << 8 | bytes[i];
    if (length > s->map.size - 8 || length > HEADER_LIMIT)
        return qn_fail(QN_ERR_FORMAT,
                       "%s: a header of %" PRIu64 " bytes in a file of %" PRIu64
                       " (not a safetensors file, or cut short)",
                       s->path, length, s->map.size);
    if (!length || bytes[8] != '{')
        return qn_fail(QN_ERR_FORMAT, "%s: the header does not begin with '{'", s->path);

    qn_json_limits limits = { .size = HEADER_LIMIT, .depth = 8, .values = (uint64_t)16 << 20 };
    qn_json_doc *doc;
    QN_TRY(qn_json_parse(s->path, (const char *)bytes + 8, length, &limits, &doc));
    qn_result r = read_header(s, qn_json_root(doc), 8 + length);
    qn_json_close(&doc);
    return r;
}

static qn_result open_single(qn_safetensors *s)
{
    QN_TRY(qn_map_file(s->path, &s->map));
    s->mapped = true;
    return read_content(s);
}

static qn_result open_file(const char *path, bool index, qn_safetensors **out);

// A shard is a plain name beside the index: nothing that leads elsewhere.
static bool plain_name(const char *name)
{
    if (!*name || *name == '.' || strlen(name) > 255) return false;
    for (const char *p = name; *p; p++)
        if (strchr("/\\:", *p) || (unsigned char)*p < 0x20) return false;
    return true;
}

static qn_result open_shard(qn_safetensors *s, const char *dir, qn_json entry, const char *name)
{
    if (!plain_name(name))
        return qn_json_fail(entry, "\"%.80s\" is not a plain file name beside the index", name);
    if (s->shard_count == SHARD_LIMIT)
        return qn_json_fail(entry, "more than %d shards", SHARD_LIMIT);
    size_t capacity = s->shard_count + 1;
    void *grown = qn_realloc(s->shards, capacity * sizeof(qn_safetensors *));
    if (!grown) return qn_no_memory(capacity * sizeof(qn_safetensors *));
    s->shards = grown;
    char *path = qn_path_join(dir, name);
    if (!path) return qn_no_memory(strlen(dir));
    qn_result r = open_file(path, false, &s->shards[s->shard_count]);
    if (r == QN_OK) s->shard_count++;
    qn_free(path);
    return r;
}

static qn_result read_index(qn_safetensors *s, const char *dir, qn_json root, qn_strmap *files)
{
    qn_json map;
    QN_TRY(qn_json_object(root, "weight_map", &map));
    size_t capacity = qn_json_count(map);
    s->tensors = qn_calloc(capacity, sizeof *s->tensors);
    if (!s->tensors) return qn_no_memory(capacity * sizeof *s->tensors);
    for (qn_json v = qn_json_first(map); v.node; v = qn_json_next(v)) {
        const char *file;
        uint32_t shard;
        QN_TRY(qn_json_string(v, NULL, &file));
        uint32_t fresh = (uint32_t)s->shard_count;
        QN_TRY(qn_strmap_add(files, file, strlen(file), fresh, &shard));
        if (shard == fresh) QN_TRY(open_shard(s, dir, v, file));
        const qn_safetensor *t = qn_safetensors_find(s->shards[shard], qn_json_key(v));
        if (!t) return qn_json_fail(v, "%s has no such tensor", file);
        s->tensors[s->count++] = *t;
    }
    if (s->shard_count) s->meta = s->shards[0]->meta;
    if (s->shard_count) s->meta_count = s->shards[0]->meta_count;
    return QN_OK;
}

static qn_result open_index(qn_safetensors *s)
{
    qn_json_limits limits = { .size = HEADER_LIMIT, .depth = 8, .values = (uint64_t)16 << 20 };
    qn_json_doc *doc;
    QN_TRY(qn_json_open(s->path, &limits, &doc));
    const char *slash = strrchr(s->path, '/');
    qn_strmap files = { 0 };
    char *dir = slash ? qn_strndup(s->path, (size_t)(slash - s->path) + 1) : qn_strdup(".");
    qn_result r = dir ? read_index(s, dir, qn_json_root(doc), &files) : qn_no_memory(1);
    qn_free(dir);
    qn_strmap_free(&files);
    qn_json_close(&doc);
    return r;
}

static qn_result create(const char *path, qn_safetensors **out)
{
    qn_safetensors *s = qn_calloc(1, sizeof *s);
    if (!s) return qn_no_memory(sizeof *s);
    s->path = qn_strdup(path);
    *out = s;
    if (s->path) return QN_OK;
    qn_safetensors_close(out);
    return qn_no_memory(strlen(path));
}

// Hands out what was read, or closes it.
static qn_result finish(qn_safetensors *s, qn_result r, qn_safetensors **out)
{
    if (r != QN_OK) {
        qn_safetensors_close(&s);
        return qn_fail_printable(r);
    }
    if (s->count) qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
    *out = s;
    return QN_OK;
}

static qn_result open_file(const char *path, bool index, qn_safetensors **out)
{
    qn_safetensors *s = NULL;
    QN_TRY(create(path, &s));
    return finish(s, index ? open_index(s) : open_single(s), out);
}

qn_result qn_safetensors_parse(const char *name, const void *data, size_t size,
                               qn_safetensors **out)
{
    qn_safetensors *s = NULL;
    QN_TRY(create(name, &s));
    s->map = (qn_mapping){ .data = data, .size = size };
    return finish(s, read_content(s), out);
}

// dir/name in a fresh allocation, NULL when there is no such file.
static qn_result look_for(const char *dir, const char *name, char **path)
{
    *path = qn_path_join(dir, name);
    if (!*path) return qn_no_memory(strlen(dir));
    if (qn_file_exists(*path)) return QN_OK;
    qn_free(*path);
    *path = NULL;
    return QN_OK;
}

static qn_result open_dir(const char *dir, qn_safetensors **out)
{
    static const struct {
        const char *name;
        enum { SINGLE, INDEX, PICKLE } kind;
    } forms[] = {
        { "model.safetensors", SINGLE },
        { "model.safetensors.index.json", INDEX },
        { "pytorch_model.bin", PICKLE },
        { "pytorch_model.bin.index.json", PICKLE },
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        char *path;
        QN_TRY(look_for(dir, forms[i].name, &path));
        if (!path) continue;
        qn_result r = forms[i].kind != PICKLE
                          ? open_file(path, forms[i].kind == INDEX, out)
                          : qn_fail(QN_ERR_UNSUPPORTED,
                                    "%s: pickled weights can run code and are not read; convert "
                                    "them to safetensors first",
                                    path);
        qn_free(path);
        return r;
    }
    return qn_fail(QN_ERR_IO, "%s: neither model.safetensors nor model.safetensors.index.json",
                   dir);
}

qn_result qn_safetensors_open(const char *path, qn_safetensors **out)
{
    static const char suffix[] = ".index.json";
    if (!path || !out) return qn_fail(QN_ERR_INVALID, "a path and a place for the files");
    if (qn_is_dir(path)) return open_dir(path, out);
    size_t n = strlen(path), k = sizeof suffix - 1;
    return open_file(path, n > k && !strcmp(path + n - k, suffix), out);
}

void qn_safetensors_close(qn_safetensors **s)
{
    if (!*s) return;
    for (size_t i = 0; i < (*s)->shard_count; i++) qn_safetensors_close(&(*s)->shards[i]);
    qn_free((*s)->shards);
    qn_free((*s)->tensors);
    qn_arena_free(&(*s)->arena);
    if ((*s)->mapped) qn_unmap_file(&(*s)->map);
    qn_free((*s)->path);
    qn_free(*s);
    *s = NULL;
}

size_t qn_safetensors_count(const qn_safetensors *s)
{
    return s->count;
}

const qn_safetensor *qn_safetensors_at(const qn_safetensors *s, size_t i)
{
    return i < s->count ? &s->tensors[i] : NULL;
}

const qn_safetensor *qn_safetensors_find(const qn_safetensors *s, const char *name)
{
    qn_safetensor wanted = { .name = name };
    if (!s->count) return NULL;
    return bsearch(&wanted, s->tensors, s->count, sizeof *s->tensors, by_name);
}

const qn_st_meta *qn_safetensors_meta(const qn_safetensors *s, size_t *count)
{
    *count = s->meta_count;
    return s->meta;
}
