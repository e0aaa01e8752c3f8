// Event files: protocol buffers written by hand, framed as TFRecords.
//
//   Event            1 wall_time double, 2 step int64, 3 file_version string, 5 Summary,
//                    7 SessionLog
//   SessionLog       1 status enum (1 = start)
//   Summary          1 Value, repeated
//   Summary.Value    1 tag string, 2 simple_value float, 5 HistogramProto
//   HistogramProto   1 min, 2 max, 3 num, 4 sum, 5 sum_squares: doubles,
//                    6 bucket_limit, 7 bucket: packed doubles
#include "io/tensorboard.h"
#include "io/textbuf.h"
#include "mem.h"
#include "platform.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#ifndef _WIN32
#include <unistd.h>
#endif

struct qn_tensorboard {
    FILE *file;
    char *path;
    qn_textbuf event, part, record; // kept between events for their memory
};

// ------------------------------------------------------------------------------------ checksum

uint32_t qn_crc32c(const void *data, size_t size)
{
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    while (size--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

uint32_t qn_crc32c_masked(const void *data, size_t size)
{
    uint32_t crc = qn_crc32c(data, size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

// ------------------------------------------------------------------------------------ wire format

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void put_varint(qn_textbuf *t, uint64_t v)
{
    unsigned char b[10];
    size_t n = 0;
    for (; v > 0x7f; v >>= 7) b[n++] = (unsigned char)(v | 0x80);
    b[n++] = (unsigned char)v;
    qn_textbuf_add(t, b, n);
}

static void put_little(qn_textbuf *t, uint64_t v, size_t size)
{
    unsigned char b[8];
    for (size_t i = 0; i < size; i++) b[i] = (unsigned char)(v >> (8 * i));
    qn_textbuf_add(t, b, size);
}

static void put_key(qn_textbuf *t, unsigned field, unsigned wire)
{
    put_varint(t, field << 3 | wire);
}

static void put_double_bits(qn_textbuf *t, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_little(t, bits, 8);
}

static void put_double(qn_textbuf *t, unsigned field, double v)
{
    put_key(t, field, FIXED64);
    put_double_bits(t, v);
}

static void put_float(qn_textbuf *t, unsigned field, double v)
{
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    put_key(t, field, FIXED32);
    put_little(t, bits, 4);
}

static void put_bytes(qn_textbuf *t, unsigned field, const void *data, size_t size)
{
    put_key(t, field, BYTES);
    put_varint(t, size);
    qn_textbuf_add(t, data, size);
}

// ------------------------------------------------------------------------------------ events

static double wall_time(void)
{
    struct timespec now;
    if (timespec_get(&now, TIME_UTC) != TIME_UTC) return (double)time(NULL);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void begin_event(qn_tensorboard *t, int64_t step)
{
    t->event.size = 0;
    put_double(&t->event, 1, wall_time());
    if (!step) return;
    put_key(&t->event, 2, VARINT);
    put_varint(&t->event, (uint64_t)step);
}

static qn_result write_event(qn_tensorboard *t)
{
    qn_textbuf *r = &t->record;
    r->size = 0;
    put_little(r, t->event.size, 8);
    put_little(r, qn_crc32c_masked(qn_textbuf_get(r), r->size), 4);
    qn_textbuf_add(r, qn_textbuf_get(&t->event), t->event.size);
    put_little(r, qn_crc32c_masked(qn_textbuf_get(&t->event), t->event.size), 4);
    QN_TRY(qn_textbuf_status(&t->event));
    QN_TRY(qn_textbuf_status(&t->part));
    QN_TRY(qn_textbuf_status(r));
    if (fwrite(qn_textbuf_get(r), 1, r->size, t->file) != r->size) {
        return qn_fail(QN_ERR_IO, "%s: %s", t->path, strerror(errno));
    }
    return QN_OK;
}

// Wraps the Value in t->part into Summary and Event and writes it.
static qn_result write_value(qn_tensorboard *t, int64_t step)
{
    begin_event(t, step);
    qn_textbuf *summary = &t->record; // free until the event is framed
    summary->size = 0;
    put_bytes(summary, 1, qn_textbuf_get(&t->part), t->part.size);
    put_bytes(&t->event, 5, qn_textbuf_get(summary), summary->size);
    return write_event(t);
}

qn_result qn_tensorboard_scalar(qn_tensorboard *t, int64_t step, const char *tag, double value)
{
    t->part.size = 0;
    put_bytes(&t->part, 1, tag, strlen(tag));
    put_float(&t->part, 2, value);
    return write_value(t, step);
}

qn_result qn_tensorboard_load(qn_tensorboard *t, int64_t step, const char *tag, const double *load,
                              size_t count)
{
    if (!count) return qn_fail(QN_ERR_INVALID, "%s: a histogram needs at least one value", tag);
    double num = 0, sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(load[i] >= 0) || isinf(load[i])) {
            return qn_fail(QN_ERR_INVALID, "%s: load[%zu] is %g, expected a number of at least 0",
                           tag, i, load[i]);
        }
        num += load[i];
        sum += load[i] * (double)i;
        squares += load[i] * (double)i * (double)i;
    }
    qn_textbuf h = { 0 };
    put_double(&h, 1, -0.5); // expert i is the bucket from i - 0.5 to i + 0.5
    put_double(&h, 2, (double)count - 0.5);
    put_double(&h, 3, num);
    put_double(&h, 4, sum);
    put_double(&h, 5, squares);
    put_key(&h, 6, BYTES);
    put_varint(&h, 8 * (uint64_t)count);
    for (size_t i = 0; i < count; i++) put_double_bits(&h, (double)i + 0.5);
    put_key(&h, 7, BYTES);
    put_varint(&h, 8 * (uint64_t)count);
    for (size_t i = 0; i < count; i++) put_double_bits(&h, load[i]);
    t->part.size = 0;
    put_bytes(&t->part, 1, tag, strlen(tag));
    put_bytes(&t->part, 5, qn_textbuf_get(&h), h.size);
    qn_result r = qn_textbuf_status(&h);
    qn_textbuf_free(&h);
    return r == QN_OK ? write_value(t, step) : r;
}

// ------------------------------------------------------------------------------------ file

static void host_name(char *name, size_t size)
{
    snprintf(name, size, "localhost");
#ifndef _WIN32
    if (gethostname(name, size) != 0) snprintf(name, size, "localhost");
    name[size - 1] = 0;
#endif
    for (char *s = name; *s; s++) {
        if (*s == '/' || *s == '\\') *s = '_';
    }
}

// A name that no file has yet: a second run within one second gets ".1" and so on.
static qn_result create_file(qn_tensorboard *t, const char *dir)
{
    char host[128], name[256];
    host_name(host, sizeof host);
    long long now = (long long)time(NULL);
    for (int attempt = 0; attempt < 1000; attempt++) {
        int n = snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s", now, host);
        if (attempt) snprintf(name + n, sizeof name - (size_t)n, ".%d", attempt);
        qn_free(t->path);
        t->path = qn_path_join(dir, name);
        if (!t->path) return qn_no_memory(strlen(dir) + sizeof name);
        t->file = fopen(t->path, "wbx");
        if (t->file) return QN_OK;
        if (errno != EEXIST) break;
    }
    return qn_fail(QN_ERR_IO, "%s: %s", t->path, strerror(errno));
}

static qn_result write_head(qn_tensorboard *t, int64_t first_step)
{
    begin_event(t, 0);
    put_bytes(&t->event, 3, "brain.Event:2", 13);
    QN_TRY(write_event(t));
    if (first_step <= 0) return QN_OK;
    begin_event(t, first_step);
    put_bytes(&t->event, 7, "\x08\x01", 2); // SessionLog { status: START }
    return write_event(t);
}

qn_result qn_tensorboard_open(const char *dir, int64_t first_step, qn_tensorboard **out)
{
    *out = NULL;
    QN_TRY(qn_make_dirs(dir));
    qn_tensorboard *t = qn_calloc(1, sizeof *t);
    if (!t) return qn_no_memory(sizeof *t);
    qn_result r = create_file(t, dir);
    if (r == QN_OK) r = write_head(t, first_step);
    if (r == QN_OK) r = qn_tensorboard_flush(t);
    if (r == QN_OK)
        *out = t;
    else
        qn_tensorboard_close(&t);
    return r;
}

qn_result qn_tensorboard_flush(qn_tensorboard *t)
{
    return fflush(t->file) ? qn_fail(QN_ERR_IO, "%s: %s", t->path, strerror(errno)) : QN_OK;
}

const char *qn_tensorboard_path(const qn_tensorboard *t)
{
    return t->path;
}

qn_result qn_tensorboard_close(qn_tensorboard **tp)
{
    qn_tensorboard *t = *tp;
    if (!t) return QN_OK;
    qn_result r = QN_OK;
    if (t->file && fclose(t->file)) r = qn_fail(QN_ERR_IO, "%s: %s", t->path, strerror(errno));
    qn_textbuf_free(&t->event);
    qn_textbuf_free(&t->part);
    qn_textbuf_free(&t->record);
    qn_free(t->path);
    qn_free(t);
    *tp = NULL;
    return r;
}
