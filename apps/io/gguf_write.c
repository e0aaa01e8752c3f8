// Writing [gguf], version 3.
#include "io/gguf.h"

#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <string.h>

enum { VERSION = 3, ALIGNMENT = 32, MOST_NAME = 64 };

struct qn_gguf_writer {
    char *path;
    qn_atomic_file *file;
    uint8_t *head, *infos;        // metadata and tensors as the file has them
    size_t head_size, head_cap, infos_size, infos_cap;
    uint64_t values, tensors;
    uint64_t *sizes; // of the tensors
    size_t size_cap;
    uint64_t offset;              // where the next declared tensor starts
    uint64_t current, written;    // the tensor whose data is due, and what has come of it
    bool started;
};

static qn_result put(uint8_t **at, size_t *size, size_t *cap, const void *data, size_t n)
{
    QN_TRY(qn_grow((void **)at, cap, *size + n + 1, 1));
    if (n) memcpy(*at + *size, data, n);
    *size += n;
    return QN_OK;
}

static void little(uint8_t *out, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(v >> 8 * i);
}

static qn_result put_head(qn_gguf_writer *w, uint64_t v, int bytes)
{
    uint8_t b[8];
    little(b, v, bytes);
    return put(&w->head, &w->head_size, &w->head_cap, b, (size_t)bytes);
}

static qn_result put_info(qn_gguf_writer *w, uint64_t v, int bytes)
{
    uint8_t b[8];
    little(b, v, bytes);
    return put(&w->infos, &w->infos_size, &w->infos_cap, b, (size_t)bytes);
}

qn_result qn_gguf_create(const char *path, qn_gguf_writer **out)
{
    *out = NULL;
    qn_gguf_writer *w = qn_calloc(1, sizeof *w);
    if (!w) return qn_no_memory(sizeof *w);
    w->path = qn_strdup(path);
    qn_result r = w->path ? qn_atomic_open(path, &w->file) : qn_no_memory(strlen(path) + 1);
    if (r == QN_OK)
        *out = w;
    else
        qn_gguf_abandon(&w);
    return r;
}

void qn_gguf_abandon(qn_gguf_writer **writer)
{
    qn_gguf_writer *w = *writer;
    *writer = NULL;
    if (!w) return;
    if (w->file) qn_atomic_abandon(&w->file);
    qn_free(w->head);
    qn_free(w->infos);
    qn_free(w->sizes);
    qn_free(w->path);
    qn_free(w);
}

static qn_result put_key(qn_gguf_writer *w, const char *key, qn_gguf_kind kind)
{
    QN_TRY(put_head(w, strlen(key), 8));
    QN_TRY(put(&w->head, &w->head_size, &w->head_cap, key, strlen(key)));
    w->values++;
    return put_head(w, kind, 4);
}

qn_result qn_gguf_put_text(qn_gguf_writer *w, const char *key, const char *text)
{
    QN_TRY(put_key(w, key, QN_GGUF_STRING));
    QN_TRY(put_head(w, strlen(text), 8));
    return put(&w->head, &w->head_size, &w->head_cap, text, strlen(text));
}

qn_result qn_gguf_put_u32(qn_gguf_writer *w, const char *key, uint32_t value)
{
    QN_TRY(put_key(w, key, QN_GGUF_U32));
    return put_head(w, value, 4);
}

qn_result qn_gguf_put_f32(qn_gguf_writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    QN_TRY(put_key(w, key, QN_GGUF_F32));
    return put_head(w, bits, 4);
}

qn_result qn_gguf_put_bool(qn_gguf_writer *w, const char *key, bool value)
{
    QN_TRY(put_key(w, key, QN_GGUF_BOOL));
    return put_head(w, value, 1);
}

qn_result qn_gguf_add(qn_gguf_writer *w, const char *name, uint32_t type, int rank,
                      const int64_t *dim)
{
    if (strlen(name) > MOST_NAME)
        return qn_fail(QN_ERR_INVALID, "%s: the name %s is longer than %d bytes", w->path, name,
                       MOST_NAME);
    uint64_t count = 1;
    QN_TRY(put_info(w, strlen(name), 8));
    QN_TRY(put(&w->infos, &w->infos_size, &w->infos_cap, name, strlen(name)));
    QN_TRY(put_info(w, (uint64_t)rank, 4));
    for (int i = rank; i-- > 0;) {
        count *= (uint64_t)dim[i];
        QN_TRY(put_info(w, (uint64_t)dim[i], 8));
    }
    QN_TRY(put_info(w, type, 4));
    QN_TRY(put_info(w, w->offset, 8));
    QN_TRY(qn_grow((void **)&w->sizes, &w->size_cap, w->tensors + 1, sizeof *w->sizes));
    const uint64_t size = qn_gguf_bytes(type, count);
    w->sizes[w->tensors++] = size;
    w->offset += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return QN_OK;
}

static qn_result pad(qn_gguf_writer *w, uint64_t size)
{
    static const uint8_t zeros[ALIGNMENT];
    return size % ALIGNMENT ? qn_atomic_write(w->file, zeros, ALIGNMENT - size % ALIGNMENT) : QN_OK;
}

static qn_result begin_data(qn_gguf_writer *w)
{
    if (w->started) return QN_OK;
    w->started = true;
    uint8_t start[24] = { 'G', 'G', 'U', 'F' };
    little(start + 4, VERSION, 4);
    little(start + 8, w->tensors, 8);
    little(start + 16, w->values, 8);
    QN_TRY(qn_atomic_write(w->file, start, sizeof start));
    if (w->head_size) QN_TRY(qn_atomic_write(w->file, w->head, w->head_size));
    if (w->infos_size) QN_TRY(qn_atomic_write(w->file, w->infos, w->infos_size));
    return pad(w, sizeof start + w->head_size + w->infos_size);
}

qn_result qn_gguf_write(qn_gguf_writer *w, const void *data, uint64_t size)
{
    QN_TRY(begin_data(w));
    if (w->current == w->tensors || size > w->sizes[w->current] - w->written)
        return qn_fail(QN_ERR_INVALID, "%s: more data than its tensors hold", w->path);
    QN_TRY(qn_atomic_write(w->file, data, (size_t)size));
    w->written += size;
    if (w->written < w->sizes[w->current]) return QN_OK;
    w->written = 0;
    return pad(w, w->sizes[w->current++]);
}

qn_result qn_gguf_commit(qn_gguf_writer **writer)
{
    qn_gguf_writer *w = *writer;
    qn_result r = begin_data(w);
    if (r == QN_OK && w->current < w->tensors)
        r = qn_fail(QN_ERR_INVALID, "%s: tensor %llu of %llu has no data", w->path,
                    (unsigned long long)w->current, (unsigned long long)w->tensors);
    if (r == QN_OK) r = qn_atomic_commit(&w->file);
    qn_gguf_abandon(writer);
    return r;
}
