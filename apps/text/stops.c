// Searching for stop strings in a stream.
#include "stops.h"
#include "fail.h"
#include "text/bpe.h"

#include <string.h>

void qn_stops_free(qn_stops *s)
{
    qn_text_free(&s->held);
}

// The longest stop string that ends the first n bytes; -1: none.
static int64_t ending(const qn_stops *s, size_t n)
{
    int64_t best = -1;
    for (size_t i = 0; i < s->count; i++) {
        size_t m = strlen(s->stop[i]);
        if (m > n || memcmp(s->held.data + n - m, s->stop[i], m)) continue;
        if (best < 0 || m > strlen(s->stop[best])) best = (int64_t)i;
    }
    return best;
}

// Bytes at the end of what is held that a stop string begins with, the most of any.
static size_t beginning(const qn_stops *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->count; i++) {
        size_t m = strlen(s->stop[i]) - 1, n = s->held.size < m ? s->held.size : m;
        for (; n > most; n--)
            if (!memcmp(s->held.data + s->held.size - n, s->stop[i], n)) most = n;
    }
    return most;
}

qn_result qn_stops_push(qn_stops *s, const char *bytes, size_t size, qn_text *out)
{
    if (s->hit || !size) return QN_OK;
    if (!s->count) return qn_text_append(out, bytes, size);
    size_t n = s->held.size + 1;
    QN_TRY(qn_text_append(&s->held, bytes, size));
    for (; n <= s->held.size; n++) {
        int64_t found = ending(s, n);
        if (found < 0) continue;
        s->hit = true;
        s->at = (size_t)found;
        QN_TRY(qn_text_append(out, s->held.data, n - strlen(s->stop[found])));
        s->held.size = 0;
        return QN_OK;
    }
    size_t keep = beginning(s), go = s->held.size - keep;
    if (!go) return QN_OK;
    QN_TRY(qn_text_append(out, s->held.data, go));
    memmove(s->held.data, s->held.data + go, keep);
    s->held.size = keep;
    return QN_OK;
}

qn_result qn_stops_finish(qn_stops *s, qn_text *out)
{
    size_t size = s->held.size;
    s->held.size = 0;
    return s->hit || !size ? QN_OK : qn_text_append(out, s->held.data, size);
}
