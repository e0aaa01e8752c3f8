// Writing and resuming metrics.jsonl.
#include "io/metrics.h"
#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST (UINT64_C(1) << 30) // bytes of a file that a run may resume

struct qn_metrics {
    FILE *file;
    char *path;
};

// The step of a line that we wrote: {"step":12,... or {"step":12}
static bool read_step(const char *line, size_t size, int64_t *step)
{
    static const char head[] = "{\"step\":";
    size_t n = sizeof head - 1;
    if (size <= n || memcmp(line, head, n) || line[size - 1] != '}') return false;
    char *end;
    errno = 0;
    *step = strtoll(line + n, &end, 10); // ends within the line, at the latest at its '}'
    return !errno && end > line + n && (*end == ',' || *end == '}');
}

// How much of the text to keep: the lines up to the first one beyond last_step.
static qn_result kept_size(const char *path, const char *text, size_t size, int64_t last_step,
                           size_t *keep)
{
    size_t at = 0;
    for (size_t number = 1; at < size; number++) {
        const char *end = memchr(text + at, '\n', size - at);
        if (!end) break; // half a line
        int64_t step;
        size_t length = (size_t)(end - text) - at;
        if (!read_step(text + at, length, &step)) {
            return qn_fail(QN_ERR_FORMAT,
                           "%s: line %zu: expected an object that begins with \"step\"", path,
                           number);
        }
        if (step > last_step) break;
        at += length + 1;
    }
    *keep = at;
    return QN_OK;
}

static qn_result cut(const char *path, int64_t last_step)
{
    if (last_step < 0) return qn_write_file(path, "", 0);
    if (!qn_file_exists(path)) return QN_OK;
    char *text;
    size_t size, keep = 0;
    QN_TRY(qn_read_file(path, LARGEST, &text, &size));
    qn_result r = kept_size(path, text, size, last_step, &keep);
    if (r == QN_OK && keep < size) r = qn_write_file(path, text, keep);
    qn_free(text);
    return r;
}

qn_result qn_metrics_open(const char *path, int64_t last_step, qn_metrics **out)
{
    *out = NULL;
    QN_TRY(cut(path, last_step));
    qn_metrics *m = qn_calloc(1, sizeof *m);
    if (!m) return qn_no_memory(sizeof *m);
    m->path = qn_strdup(path);
    m->file = m->path ? fopen(path, "ab") : NULL;
    if (m->file) {
        *out = m;
        return QN_OK;
    }
    qn_result r =
        m->path ? qn_fail(QN_ERR_IO, "%s: %s", path, strerror(errno)) : qn_no_memory(strlen(path));
    qn_metrics_close(&m);
    return r;
}

qn_result qn_metrics_write(qn_metrics *m, int64_t step, const qn_metric *items, size_t count)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    qn_json_put_int(&w, "step", step);
    for (size_t i = 0; i < count; i++) {
        if (items[i].text)
            qn_json_put_string(&w, items[i].key, items[i].text);
        else if (isfinite(items[i].value))
            qn_json_put_number(&w, items[i].key, items[i].value);
        else
            qn_json_put_null(&w, items[i].key);
    }
    qn_json_put_end(&w, '}');
    qn_result r = w.status;
    if (r == QN_OK) {
        bool whole = fwrite(w.text, 1, w.size, m->file) == w.size && fputc('\n', m->file) != EOF &&
                     fflush(m->file) == 0;
        if (!whole) r = qn_fail(QN_ERR_IO, "%s: %s", m->path, strerror(errno));
    }
    qn_json_writer_free(&w);
    return r;
}

qn_result qn_metrics_close(qn_metrics **mp)
{
    qn_metrics *m = *mp;
    if (!m) return QN_OK;
    qn_result r = QN_OK;
    if (m->file && fclose(m->file)) r = qn_fail(QN_ERR_IO, "%s: %s", m->path, strerror(errno));
    qn_free(m->path);
    qn_free(m);
    *mp = NULL;
    return r;
}
