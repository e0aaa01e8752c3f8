// Writing safetensors: one file, or shards with an index; the same declarations give the same
// bytes.
#include <quoin/io.h>

#include "io/json.h"
#include "io/map.h"
#include "io/utf8.h"
#include "mem.h"
#include "platform.h"
#include "safetensors_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_LIMIT ((uint64_t)100 << 20)
#define SHARD_LIMIT 512 // files held open until the commit

typedef struct shard {
    size_t first, end; // its tensors
    uint64_t size;     // their bytes
    char *path;
    qn_atomic_file *file;
    bool done;         // visible, or found complete
} shard;

struct qn_safetensors_writer {
    char *path;
    qn_arena arena;
    qn_safetensor *tensors;
    size_t count, capacity;
    qn_strmap names;
    qn_st_meta *meta;
    size_t meta_count;
    uint64_t shard_limit, total, kept;
    bool by_shard;
    shard *shards;
    size_t shard_count, shard_capacity;
    size_t current;   // tensor whose data is due
    size_t at_shard;  // of that tensor
    uint64_t written; // bytes of it
    bool sealed, asked;
    qn_result status; // the first failure sticks: what follows would be misplaced
};

static char *keep(qn_safetensors_writer *w, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = qn_arena_alloc(&w->arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static bool good_text(const char *s)
{
    return s && qn_utf8_valid(s, strlen(s)) == strlen(s);
}

static qn_result copy_options(qn_safetensors_writer *w, const char *path,
                              const qn_safetensors_opts *opts)
{
    w->path = keep(w, path);
    if (!w->path) return qn_no_memory(strlen(path));
    if (!opts) return QN_OK;
    w->shard_limit = opts->shard_limit;
    w->by_shard = opts->by_shard;
    w->meta = qn_arena_alloc(&w->arena, (opts->meta_count + 1) * sizeof *w->meta);
    if (!w->meta) return qn_no_memory(opts->meta_count * sizeof *w->meta);
    for (size_t i = 0; i < opts->meta_count; i++) {
        const qn_st_meta *m = &opts->meta[i];
        if (!good_text(m->key) || !good_text(m->value))
            return qn_fail(QN_ERR_INVALID, "%s: metadata %zu is not a pair of UTF-8 strings", path,
                           i);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(m->key, opts->meta[k].key))
                return qn_fail(QN_ERR_INVALID, "%s: metadata %s is there twice", path, m->key);
        w->meta[i] = (qn_st_meta){ keep(w, m->key), keep(w, m->value) };
        if (!w->meta[i].key || !w->meta[i].value) return qn_no_memory(strlen(m->value));
    }
    w->meta_count = opts->meta_count;
    return QN_OK;
}

qn_result qn_safetensors_create(const char *path, const qn_safetensors_opts *opts,
                                qn_safetensors_writer **out)
{
    if (!path || !*path || !out)
        return qn_fail(QN_ERR_INVALID, "a path and a place for the writer");
    qn_safetensors_writer *w = qn_calloc(1, sizeof *w);
    if (!w) return qn_no_memory(sizeof *w);
    qn_result r = copy_options(w, path, opts);
    if (r == QN_OK)
        *out = w;
    else
        qn_safetensors_abandon(&w);
    return r;
}

static qn_result declare(qn_safetensors_writer *w, qn_safetensor t, const int64_t *dim)
{
    if (!good_text(t.name) || !*t.name || !strcmp(t.name, "__metadata__"))
        return qn_fail(QN_ERR_INVALID, "%s: \"%.80s\" cannot be the name of a tensor", w->path,
                       good_text(t.name) ? t.name : "");
    if (w->sealed)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s: declared after the first data", w->path,
                       t.name);
    if (!qn_st_dtype_size(t.dtype))
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s: unknown dtype", w->path, t.name);
    if (t.rank < 0 || t.rank > QN_ST_MAX_RANK)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s: %d dimensions, expected at most %d", w->path,
                       t.name, t.rank, QN_ST_MAX_RANK);
    t.count = 1;
    for (int i = 0; i < t.rank; i++) {
        t.dim[i] = dim[i];
        if (dim[i] < 0 || !qn_mul_u64(t.count, (uint64_t)dim[i], &t.count))
            return qn_fail(QN_ERR_INVALID, "%s: tensor %s: dimension %d is %" PRId64, w->path,
                           t.name, i, dim[i]);
    }
    uint64_t total;
    if (!qn_mul_u64(t.count, qn_st_dtype_size(t.dtype), &t.size) ||
        !qn_add_u64(w->total, t.size, &total) || total > QN_JSON_INT_MAX)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s: more bytes than a file holds", w->path,
                       t.name);
    if (w->count >= QN_MAP_NONE) return qn_fail(QN_ERR_INVALID, "%s: too many tensors", w->path);

    uint32_t found;
    t.name = keep(w, t.name);
    if (!t.name) return qn_no_memory(1);
    QN_TRY(qn_grow((void **)&w->tensors, &w->capacity, w->count + 1, sizeof *w->tensors));
    QN_TRY(qn_strmap_add(&w->names, t.name, strlen(t.name), (uint32_t)w->count, &found));
    if (found != w->count)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s is declared twice", w->path, t.name);
    w->tensors[w->count++] = t;
    w->total = total;
    return QN_OK;
}

// The first failure of a writer is its last word.
static qn_result stick(qn_safetensors_writer *w, qn_result r)
{
    if (w->status == QN_OK) w->status = r;
    return r;
}

static qn_result alive(const qn_safetensors_writer *w)
{
    if (w->status == QN_OK) return QN_OK;
    return qn_fail(w->status, "%s: given up after an earlier failure", w->path);
}

qn_result qn_safetensors_add(qn_safetensors_writer *w, const char *name, qn_st_dtype dtype,
                             int rank, const int64_t *dim)
{
    QN_TRY(alive(w));
    return stick(w, declare(w, (qn_safetensor){ .name = name, .dtype = dtype, .rank = rank }, dim));
}

static int by_width_and_name(const void *a, const void *b)
{
    const qn_safetensor *x = a, *y = b;
    uint32_t p = qn_st_dtype_size(x->dtype), q = qn_st_dtype_size(y->dtype);
    if (p != q) return p > q ? -1 : 1;
    return strcmp(x->name, y->name);
}

// Fills shards in order, each up to the limit; a tensor larger than that has one of its own.
static qn_result assign_shards(qn_safetensors_writer *w)
{
    for (size_t i = 0; i < w->count || !w->shard_count; i++) {
        shard *last = w->shard_count ? &w->shards[w->shard_count - 1] : NULL;
        uint64_t size = i < w->count ? w->tensors[i].size : 0;
        if (!last || (w->shard_limit && last->size && size > w->shard_limit - last->size)) {
            if (w->shard_count == SHARD_LIMIT)
                return qn_fail(QN_ERR_INVALID, "%s: more than %d shards of %" PRIu64 " bytes",
                               w->path, SHARD_LIMIT, w->shard_limit);
            QN_TRY(qn_grow((void **)&w->shards, &w->shard_capacity, w->shard_count + 1,
                           sizeof *w->shards));
            last = &w->shards[w->shard_count++];
            *last = (shard){ .first = i, .end = i };
        }
        last->size += size;
        if (i < w->count) last->end = i + 1;
    }
    return QN_OK;
}

static qn_result name_shards(qn_safetensors_writer *w)
{
    static const char suffix[] = ".safetensors";
    size_t n = strlen(w->path), k = sizeof suffix - 1;
    int stem = (int)(n > k && !strcmp(w->path + n - k, suffix) ? n - k : n);
    for (size_t i = 0; i < w->shard_count; i++) {
        char *path = w->shard_count == 1
                         ? w->path
                         : qn_arena_printf(&w->arena, "%.*s-%05zu-of-%05zu.safetensors", stem,
                                           w->path, i + 1, w->shard_count);
        if (!path) return qn_no_memory(n);
        w->shards[i].path = path;
    }
    return QN_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void put_header(const qn_safetensors_writer *w, const shard *s, qn_json_writer *json)
{
    qn_json_put_object(json, NULL);
    if (w->meta_count) qn_json_put_object(json, "__metadata__");
    for (size_t i = 0; i < w->meta_count; i++)
        qn_json_put_string(json, w->meta[i].key, w->meta[i].value);
    if (w->meta_count) qn_json_put_end(json, '}');
    uint64_t at = 0;
    for (size_t i = s->first; i < s->end; i++) {
        const qn_safetensor *t = &w->tensors[i];
        qn_json_put_object(json, t->name);
        qn_json_put_string(json, "dtype", qn_st_dtype_name(t->dtype));
        qn_json_put_array(json, "shape");
        for (int d = 0; d < t->rank; d++) qn_json_put_int(json, NULL, t->dim[d]);
        qn_json_put_end(json, ']');
        qn_json_put_array(json, "data_offsets");
        qn_json_put_int(json, NULL, (int64_t)at);
        qn_json_put_int(json, NULL, (int64_t)(at += t->size));
        qn_json_put_end(json, ']');
        qn_json_put_end(json, '}');
    }
    qn_json_put_end(json, '}');
}

// The first bytes of a shard's file, everything in front of its data, in a fresh array.
static qn_result make_header(const qn_safetensors_writer *w, const shard *s, char **out,
                             uint64_t *size)
{
    qn_json_writer json = { .compact = true };
    put_header(w, s, &json);
    qn_result r = json.status;
    uint64_t padded = (json.size + 7) & ~(uint64_t)7;
    if (r == QN_OK && padded > HEADER_LIMIT)
        r = qn_fail(QN_ERR_INVALID, "%s: a header of %" PRIu64 " bytes, expected at most %" PRIu64,
                    w->path, padded, HEADER_LIMIT);
    char *header = r == QN_OK ? qn_malloc((size_t)padded + 8) : NULL;
    if (r == QN_OK && !header) r = qn_no_memory((size_t)padded + 8);
    if (r == QN_OK) {
        for (int i = 0; i < 8; i++) header[i] = (char)(padded >> 8 * i & 0xff);
        memcpy(header + 8, json.text, json.size);
        memset(header + 8 + json.size, ' ', (size_t)padded - json.size);
        *out = header;
        *size = padded + 8;
    }
    qn_json_writer_free(&json);
    return r;
}

static qn_result open_shard(qn_safetensors_writer *w, shard *s)
{
    char *header;
    uint64_t size;
    QN_TRY(make_header(w, s, &header, &size));
    qn_result r = qn_atomic_open(s->path, &s->file);
    if (r == QN_OK && w->by_shard) r = qn_atomic_reserve(s->file, size + s->size);
    if (r == QN_OK) r = qn_atomic_write(s->file, header, size);
    qn_free(header);
    return r;
}

// Whether the shard's file is there, whole, with the header that would be written.
static qn_result is_done(const qn_safetensors_writer *w, const shard *s, bool *done)
{
    char *header;
    uint64_t size;
    qn_mapping map;
    *done = false;
    if (!qn_file_exists(s->path) || qn_is_dir(s->path)) return QN_OK;
    QN_TRY(make_header(w, s, &header, &size));
    qn_result r = qn_map_file(s->path, &map);
    if (r == QN_OK) {
        *done = map.size == size + s->size && memcmp(map.data, header, (size_t)size) == 0;
        qn_unmap_file(&map);
    }
    qn_free(header);
    return r;
}

static qn_result seal(qn_safetensors_writer *w)
{
    if (w->sealed) return QN_OK;
    w->sealed = true;
    if (w->count) qsort(w->tensors, w->count, sizeof *w->tensors, by_width_and_name);
    QN_TRY(assign_shards(w));
    QN_TRY(name_shards(w));
    for (size_t i = 0; w->by_shard && i < w->shard_count; i++) {
        QN_TRY(is_done(w, &w->shards[i], &w->shards[i].done));
        if (w->shards[i].done) w->kept += w->shards[i].size;
    }
    return w->shards[0].done ? QN_OK : open_shard(w, &w->shards[0]);
}

const char *qn_safetensors_due(qn_safetensors_writer *w, size_t i)
{
    if (alive(w) != QN_OK || stick(w, seal(w)) != QN_OK) return NULL;
    for (size_t s = w->at_shard; s < w->shard_count; s++) {
        const shard *x = &w->shards[s];
        size_t first = x->first;
        if (w->asked && w->current + 1 > first) first = w->current + 1;
        if (x->done || first >= x->end) continue;
        if (i < x->end - first) return w->tensors[first + i].name;
        i -= x->end - first;
    }
    return NULL;
}

uint64_t qn_safetensors_total(const qn_safetensors_writer *w, uint64_t *kept)
{
    if (kept) *kept = w->kept;
    return w->total;
}

static qn_result complete(const qn_safetensors_writer *w)
{
    const qn_safetensor *t = &w->tensors[w->current];
    if (w->written == t->size) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "%s: tensor %s: %" PRIu64 " of %" PRIu64 " bytes written",
                   w->path, t->name, w->written, t->size);
}

static qn_result close_shard(qn_safetensors_writer *w, shard *s)
{
    if (!w->by_shard || s->done) return QN_OK;
    s->done = true;
    return qn_atomic_commit(&s->file);
}

static qn_result advance(qn_safetensors_writer *w, const qn_safetensor **tensor)
{
    QN_TRY(seal(w));
    if (w->asked && w->current < w->count) {
        QN_TRY(complete(w));
        w->current++;
        w->written = 0;
    }
    w->asked = true;
    while (w->current < w->count) {
        shard *s = &w->shards[w->at_shard];
        if (w->current < s->end && !s->done) break;
        w->current = s->end;
        QN_TRY(close_shard(w, s));
        if (w->current == w->count) break;
        s = &w->shards[++w->at_shard];
        if (!s->done) QN_TRY(open_shard(w, s));
    }
    *tensor = w->current < w->count ? &w->tensors[w->current] : NULL;
    return QN_OK;
}

qn_result qn_safetensors_next(qn_safetensors_writer *w, const qn_safetensor **tensor)
{
    QN_TRY(alive(w));
    return stick(w, advance(w, tensor));
}

qn_result qn_safetensors_write(qn_safetensors_writer *w, const void *data, uint64_t size)
{
    QN_TRY(alive(w));
    if (!w->asked || w->current == w->count)
        return stick(w, qn_fail(QN_ERR_INVALID, "%s: data for no tensor", w->path));
    const qn_safetensor *t = &w->tensors[w->current];
    if (size > t->size - w->written)
        return stick(w, qn_fail(QN_ERR_INVALID,
                                "%s: tensor %s: %" PRIu64 " bytes, expected at most %" PRIu64,
                                w->path, t->name, size, t->size - w->written));
    w->written += size;
    if (!size) return QN_OK;
    return stick(w, qn_atomic_write(w->shards[w->at_shard].file, data, size));
}

static qn_result save_index(const qn_safetensors_writer *w, const char *path)
{
    qn_json_writer json = { 0 };
    qn_json_put_object(&json, NULL);
    qn_json_put_object(&json, "metadata");
    qn_json_put_int(&json, "total_size", (int64_t)w->total);
    qn_json_put_end(&json, '}');
    qn_json_put_object(&json, "weight_map");
    for (size_t i = 0; i < w->shard_count; i++)
        for (size_t t = w->shards[i].first; t < w->shards[i].end; t++)
            qn_json_put_string(&json, w->tensors[t].name, base_name(w->shards[i].path));
    qn_json_put_end(&json, '}');
    qn_json_put_end(&json, '}');
    return qn_json_save(&json, path);
}

static qn_result finish(qn_safetensors_writer *w)
{
    QN_TRY(alive(w));
    const qn_safetensor *rest;
    QN_TRY(advance(w, &rest));
    if (rest)
        return qn_fail(QN_ERR_INVALID, "%s: tensor %s: no data was written", w->path, rest->name);
    char *index = qn_arena_printf(&w->arena, "%s.index.json", w->path);
    if (!index) return qn_no_memory(strlen(w->path));
    for (size_t i = 0; i < w->shard_count; i++)
        if (!w->shards[i].done) QN_TRY(qn_atomic_commit(&w->shards[i].file));
    if (w->shard_count > 1) QN_TRY(save_index(w, index));
    const char *stale = w->shard_count > 1 ? w->path : index;
    if (qn_file_exists(stale) && remove(stale))
        return qn_fail(QN_ERR_IO, "%s: the older form of the same tensors cannot be removed",
                       stale);
    return QN_OK;
}

qn_result qn_safetensors_commit(qn_safetensors_writer **w)
{
    qn_result r = finish(*w);
    qn_safetensors_abandon(w);
    return r;
}

void qn_safetensors_abandon(qn_safetensors_writer **w)
{
    if (!*w) return;
    for (size_t i = 0; i < (*w)->shard_count; i++)
        if ((*w)->shards[i].file) qn_atomic_abandon(&(*w)->shards[i].file);
    qn_free((*w)->shards);
    qn_free((*w)->tensors);
    qn_strmap_free(&(*w)->names);
    qn_arena_free(&(*w)->arena);
    qn_free(*w);
    *w = NULL;
}
