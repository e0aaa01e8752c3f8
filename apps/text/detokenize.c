// Decoding: all at once, or as tokens arrive.
#include "bpe.h"
#include "fail.h"
#include "io/utf8.h"

#include <inttypes.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" // U+FFFD

void qn_text_free(qn_text *t)
{
    qn_free(t->data);
    *t = (qn_text){ 0 };
}

qn_result qn_text_append(qn_text *t, const char *data, size_t size)
{
    QN_TRY(qn_grow((void **)&t->data, &t->capacity, t->size + size + 1, 1));
    if (size) memcpy(t->data + t->size, data, size);
    t->size += size;
    t->data[t->size] = 0;
    return QN_OK;
}

// Takes the bytes that were held together with new ones; appends what is decided, holds the rest.
static qn_result repair(qn_token_stream *s, const char *data, size_t size, qn_text *out)
{
    while (size || s->held_size) {
        // Held bytes are the beginning of one character: it ends within the next four.
        char joined[8];
        size_t held = s->held_size, extra = size < 4 ? size : 4;
        memcpy(joined, s->held, held);
        if (extra) memcpy(joined + held, data, extra);
        const char *at = held ? joined : data;
        int step = qn_utf8_step(at, held ? held + extra : size, NULL);
        if (!step) {
            memmove(s->held, at, held ? held + extra : size);
            s->held_size = (uint32_t)(held ? held + extra : size);
            return QN_OK;
        }
        size_t used = (size_t)(step < 0 ? -step : step);
        if (step > 0 && !held) used = qn_utf8_valid(data, size); // all of a run at once
        QN_TRY(step > 0 ? qn_text_append(out, at, used)
                        : qn_text_append(out, REPLACEMENT, strlen(REPLACEMENT)));
        // A beginning is never invalid by itself, so `used` covers all that was held.
        s->held_size = 0;
        data += used - held;
        size -= used - held;
    }
    return QN_OK;
}

static qn_result push(qn_token_stream *s, int32_t id, bool whole, qn_text *out)
{
    size_t size;
    const char *bytes = qn_token_bytes(s->tokenizer, id, &size);
    if (!bytes)
        return qn_fail(QN_ERR_INVALID, "token %" PRId32 " is not in the vocabulary of %" PRId32, id,
                       qn_tokenizer_size(s->tokenizer));
    if (s->skip_special && qn_token_is_special(s->tokenizer, id)) return QN_OK;
    return whole ? repair(s, bytes, size, out) : qn_text_append(out, bytes, size);
}

qn_result qn_token_stream_push(qn_token_stream *s, int32_t id, qn_text *out)
{
    qn_token_stream before = *s;
    size_t size = out->size;
    qn_result r = push(s, id, true, out);
    if (r == QN_OK) return qn_text_append(out, "", 0); // terminated even when nothing came
    *s = before;
    out->size = size;
    return r;
}

qn_result qn_token_stream_finish(qn_token_stream *s, qn_text *out)
{
    const char *rest = s->held_size ? REPLACEMENT : "";
    QN_TRY(qn_text_append(out, rest, strlen(rest)));
    s->held_size = 0;
    return QN_OK;
}

qn_result qn_tokenizer_decode(const qn_tokenizer *t, const int32_t *ids, size_t count,
                              const qn_decode_opts *opts, qn_text *out)
{
    qn_token_stream s = { .tokenizer = t, .skip_special = opts && opts->skip_special };
    size_t size = out->size;
    qn_result r = QN_OK;
    for (size_t i = 0; i < count && r == QN_OK; i++)
        r = push(&s, ids[i], opts && opts->repair, out);
    if (r == QN_OK) r = qn_token_stream_finish(&s, out);
    if (r != QN_OK) out->size = size;
    return r;
}
