// Records to JSON lines and back.
#include "bench/record.h"

#include "bench/commit.h"
#include "io/json.h"
#include "io/textbuf.h"
#include "platform.h"

#include <math.h>
#include <string.h>

#define LARGEST_FILE (UINT64_C(64) << 20)

static const char *const statuses[] = {
    [QN_BENCH_OK] = "ok",
    [QN_BENCH_FLAGGED] = "flagged",
    [QN_BENCH_UNSUPPORTED] = "unsupported",
    [QN_BENCH_FAILED] = "failed",
};

const char *qn_bench_status_name(qn_bench_status s)
{
    return statuses[s];
}

const char *qn_bench_commit(void)
{
    return QN_COMMIT;
}

qn_bench_record qn_bench_record_start(const char *bench, const char *name, const char *variant,
                                      const char *shape)
{
    qn_bench_record r = {
        .bench = bench,
        .seconds_median = NAN,
        .seconds_p10 = NAN,
        .seconds_p90 = NAN,
        .gflops = NAN,
        .gbytes_per_s = NAN,
        .fraction_of_peak = NAN,
        .tokens_per_s = NAN,
        .memory = NAN,
    };
    snprintf(r.name, sizeof r.name, "%s", name);
    snprintf(r.variant, sizeof r.variant, "%s", variant);
    snprintf(r.shape, sizeof r.shape, "%s", shape);
    return r;
}

void qn_bench_log_start(qn_bench_log *log, const qn_device_info *info)
{
    snprintf(log->device, sizeof log->device, "%s", info->name);
    snprintf(log->driver, sizeof log->driver, "%s", info->driver);
    snprintf(log->commit, sizeof log->commit, "%s", qn_bench_commit());
    snprintf(log->form, sizeof log->form, "%s",
             info->kernel_class == QN_CLASS_FLAT ? "flat" : "tiled");
}

qn_result qn_bench_log_add(qn_bench_log *log, const qn_bench_record *r)
{
    QN_TRY(qn_grow((void **)&log->records, &log->capacity, log->count + 1, sizeof *log->records));
    qn_bench_record *copy = &log->records[log->count++];
    *copy = *r;
    if (!copy->form[0]) snprintf(copy->form, sizeof copy->form, "%s", log->form);
    if (log->done) log->done(log->user, copy);
    return QN_OK;
}

void qn_bench_log_free(qn_bench_log *log)
{
    qn_free(log->records);
    qn_arena_free(&log->arena);
    *log = (qn_bench_log){ 0 };
}

// ------------------------------------------------------------------------------------ members

// The members that are numbers, in the order of the file.
static const struct {
    const char *key;
    size_t at;
} numbers[] = {
    { "seconds_median", offsetof(qn_bench_record, seconds_median) },
    { "seconds_p10", offsetof(qn_bench_record, seconds_p10) },
    { "seconds_p90", offsetof(qn_bench_record, seconds_p90) },
    { "gflops", offsetof(qn_bench_record, gflops) },
    { "gbytes_per_s", offsetof(qn_bench_record, gbytes_per_s) },
    { "fraction_of_peak", offsetof(qn_bench_record, fraction_of_peak) },
    { "tokens_per_s", offsetof(qn_bench_record, tokens_per_s) },
    { "memory", offsetof(qn_bench_record, memory) },
};

// The members that are text, each with its room.
static const struct {
    const char *key;
    size_t at, size;
} texts[] = {
#define TEXT(m)                                                                                    \
    {                                                                                              \
#m, offsetof(qn_bench_record, m), sizeof((qn_bench_record *)0)->m                          \
    }
    TEXT(name), TEXT(variant), TEXT(shape), TEXT(form), TEXT(bound), TEXT(note),
#undef TEXT
};

#define COUNT(list) (sizeof(list) / sizeof *(list))

static void put_text(qn_json_writer *w, const char *key, const char *value)
{
    qn_textbuf clean = { 0 };
    qn_textbuf_clean(&clean, value);
    if (clean.failed && w->status == QN_OK) w->status = qn_textbuf_status(&clean);
    qn_json_put_string(w, key, qn_textbuf_get(&clean));
    qn_textbuf_free(&clean);
}

static void put_record(qn_json_writer *w, const qn_bench_log *log, const qn_bench_record *r)
{
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "bench", r->bench);
    for (size_t i = 0; i < COUNT(texts); i++)
        put_text(w, texts[i].key, (const char *)r + texts[i].at);
    qn_json_put_string(w, "status", statuses[r->status]);
    for (size_t i = 0; i < COUNT(numbers); i++) {
        double v = *(const double *)((const char *)r + numbers[i].at);
        if (isfinite(v))
            qn_json_put_number(w, numbers[i].key, v);
        else
            qn_json_put_null(w, numbers[i].key);
    }
    qn_json_put_int(w, "runs", r->runs);
    put_text(w, "device", log->device);
    put_text(w, "driver", log->driver);
    put_text(w, "commit", log->commit);
    qn_json_put_end(w, '}');
}

qn_result qn_bench_json_line(const qn_bench_log *log, const qn_bench_record *r, char **text)
{
    qn_json_writer w = { .compact = true };
    put_record(&w, log, r);
    qn_result status = w.status;
    if (status == QN_OK && !(*text = qn_strndup(w.text, w.size))) status = qn_no_memory(w.size);
    qn_json_writer_free(&w);
    return status;
}

qn_result qn_bench_save(const qn_bench_log *log, const char *path)
{
    qn_textbuf all = { 0 };
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < log->count; i++) {
        char *line = NULL;
        r = qn_bench_json_line(log, &log->records[i], &line);
        if (r == QN_OK) qn_textbuf_printf(&all, "%s\n", line);
        qn_free(line);
    }
    if (r == QN_OK) r = qn_textbuf_save(&all, path);
    qn_textbuf_free(&all);
    return r;
}

// ------------------------------------------------------------------------------------ reading

static qn_result read_text(qn_json v, const char *key, char *out, size_t size)
{
    const char *s;
    QN_TRY(qn_json_string(v, key, &s));
    if (strlen(s) >= size)
        return qn_json_fail(v, "%s has %zu characters, at most %zu were expected", key, strlen(s),
                            size - 1);
    snprintf(out, size, "%s", s);
    return QN_OK;
}

static qn_result read_record(qn_bench_log *log, qn_json v, qn_bench_record *r)
{
    const char *bench, *status;
    *r = qn_bench_record_start("", "", "", "");
    QN_TRY(qn_json_string(v, "bench", &bench));
    r->bench = qn_arena_printf(&log->arena, "%.32s", bench);
    if (!r->bench) return qn_no_memory(32);
    for (size_t i = 0; i < COUNT(texts); i++)
        QN_TRY(read_text(v, texts[i].key, (char *)r + texts[i].at, texts[i].size));
    for (size_t i = 0; i < COUNT(numbers); i++) {
        double *to = (double *)((char *)r + numbers[i].at);
        QN_TRY(qn_json_number_or(v, numbers[i].key, 0, 1e300, NAN, to));
    }
    QN_TRY(qn_json_int_or(v, "runs", 0, QN_JSON_INT_MAX, 0, &r->runs));
    QN_TRY(qn_json_string(v, "status", &status));
    size_t s = 0;
    while (s < COUNT(statuses) && strcmp(statuses[s], status) != 0) s++;
    if (s == COUNT(statuses))
        return qn_json_fail(v, "status is \"%.20s\", expected ok, flagged, unsupported or failed",
                            status);
    r->status = (qn_bench_status)s;
    return QN_OK;
}

// Every line names its device; a file holds the records of one.
static qn_result read_origin(qn_bench_log *log, qn_json v)
{
    qn_bench_log own = { 0 };
    QN_TRY(read_text(v, "device", own.device, sizeof own.device));
    QN_TRY(read_text(v, "driver", own.driver, sizeof own.driver));
    QN_TRY(read_text(v, "commit", own.commit, sizeof own.commit));
    if (log->device[0] && strcmp(log->device, own.device) != 0)
        return qn_json_fail(v, "device is \"%s\", expected \"%s\" as in the lines before",
                            own.device, log->device);
    memcpy(log->device, own.device, sizeof own.device);
    memcpy(log->driver, own.driver, sizeof own.driver);
    memcpy(log->commit, own.commit, sizeof own.commit);
    return QN_OK;
}

qn_result qn_bench_read_line(qn_bench_log *log, const char *name, const char *line, size_t size)
{
    qn_json_doc *doc = NULL;
    QN_TRY(qn_json_parse(name, line, size, NULL, &doc));
    qn_json root = qn_json_root(doc);
    qn_bench_record record;
    qn_result r = QN_OK;
    if (qn_json_kind_of(root) != QN_JSON_OBJECT)
        r = qn_json_fail(root, "expected an object: a record of quoin bench");
    if (r == QN_OK) r = read_origin(log, root);
    if (r == QN_OK) r = read_record(log, root, &record);
    if (r == QN_OK) r = qn_bench_log_add(log, &record);
    qn_json_close(&doc);
    return r;
}

qn_result qn_bench_load(const char *path, qn_bench_log *out)
{
    char *text;
    size_t size, at = 0;
    int64_t number = 0;
    *out = (qn_bench_log){ 0 };
    QN_TRY(qn_read_file(path, LARGEST_FILE, &text, &size));
    qn_result r = QN_OK;
    while (r == QN_OK && at < size) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - (text + at)) : size - at;
        char name[300];
        number++;
        snprintf(name, sizeof name, "%.250s, record %lld", path, (long long)number);
        if (length) r = qn_bench_read_line(out, name, text + at, length);
        at += length + 1;
    }
    if (r == QN_OK && !out->count)
        r = qn_fail(QN_ERR_FORMAT, "%s: there is no record of quoin bench in it", path);
    qn_free(text);
    if (r != QN_OK) qn_bench_log_free(out);
    return r;
}
