// Metrics, events and pictures of a training run.
#include "train_log.h"
#include "fail.h"
#include "io/json.h"
#include "io/metrics.h"
#include "io/svg.h"
#include "io/tensorboard.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLE = 10, DEAD_SAMPLES = 10, FLUSH = 50 }; // steps; samples; steps

struct qn_train_log {
    char *dir;
    qn_metrics *metrics;
    qn_tensorboard *events;
    double *loads;      // [samples, experts of all routers]
    size_t samples, load_cap, experts;
    int64_t first_step, routers, att_experts, mlp_experts;
    int *idle;          // samples since the expert last got something; -1: reported
};

static qn_result path_of(const qn_train_log *l, const char *name, char **out)
{
    *out = qn_path_join(l->dir, name);
    return *out ? QN_OK : qn_no_memory(strlen(l->dir));
}

qn_result qn_train_log_open(const char *dir, int64_t resumed, qn_train_log **out)
{
    *out = NULL;
    qn_train_log *l = qn_calloc(1, sizeof *l);
    if (!l) return qn_no_memory(sizeof *l);
    l->dir = qn_strdup(dir);
    l->first_step = resumed + 1;
    char *path = NULL;
    qn_result r = l->dir ? path_of(l, "metrics.jsonl", &path) : qn_no_memory(strlen(dir));
    if (r == QN_OK) r = qn_metrics_open(path, resumed > 0 ? resumed : -1, &l->metrics);
    if (r == QN_OK) r = qn_tensorboard_open(dir, resumed > 0 ? resumed + 1 : 0, &l->events);
    qn_free(path);
    if (r == QN_OK)
        *out = l;
    else
        qn_train_log_close(&l);
    return r;
}

static qn_result sample_loads(qn_train_log *l, const qn_train_event *e)
{
    qn_trainer *t = e->trainer;
    if (!l->experts) {
        l->routers = qn_trainer_routers(t);
        l->att_experts = qn_trainer_experts(t, 0);
        l->mlp_experts = qn_trainer_experts(t, 1);
        l->experts = (size_t)(l->routers / 2 * (l->att_experts + l->mlp_experts));
        l->idle = qn_calloc(l->experts, sizeof *l->idle);
        if (!l->idle) return qn_no_memory(l->experts * sizeof *l->idle);
    }
    QN_TRY(qn_grow((void **)&l->loads, &l->load_cap, (l->samples + 1) * l->experts,
                   sizeof *l->loads));
    double *row = l->loads + l->samples * l->experts;
    int32_t counts[256];
    for (int64_t r = 0; r < l->routers; r++) {
        const int64_t E = qn_trainer_experts(t, r);
        QN_TRY(qn_trainer_loads(t, r, counts));
        double total = 0;
        for (int64_t i = 0; i < E; i++) total += counts[i];
        for (int64_t i = 0; i < E; i++)
            row[i] = total > 0 ? counts[i] * (double)E / total : 0;
        char tag[64];
        snprintf(tag, sizeof tag, "load/h%lld.%s", (long long)(r / 2), r % 2 ? "mlp" : "attn");
        if (e->step % FLUSH == 0)
            QN_TRY(qn_tensorboard_load(l->events, e->step, tag, row, (size_t)E));
        row += E;
    }
    l->samples++;
    return QN_OK;
}

const double *qn_train_log_loads(const qn_train_log *l, size_t *count)
{
    *count = l->experts;
    return l->samples ? l->loads + (l->samples - 1) * l->experts : NULL;
}

// "h2.mlp e5" for an index into all experts.
static void expert_name(const qn_train_log *l, size_t index, char *text, size_t size)
{
    const size_t per_layer = (size_t)(l->att_experts + l->mlp_experts), at = index % per_layer;
    const bool mlp = at >= (size_t)l->att_experts;
    snprintf(text, size, "h%zu.%s e%zu", index / per_layer, mlp ? "mlp" : "attn",
             mlp ? at - (size_t)l->att_experts : at);
}

size_t qn_train_log_dead(qn_train_log *l, char *text, size_t size)
{
    size_t found = 0, used = 0;
    text[0] = 0;
    if (!l->samples) return 0;
    const double *row = l->loads + (l->samples - 1) * l->experts;
    for (size_t i = 0; i < l->experts; i++) {
        if (row[i] > 0)
            l->idle[i] = 0;
        else if (l->idle[i] >= 0)
            l->idle[i]++;
        if (l->idle[i] < DEAD_SAMPLES) continue;
        l->idle[i] = -1;
        char name[64];
        expert_name(l, i, name, sizeof name);
        if (used < size) used += (size_t)snprintf(text + used, size - used, "%s%s",
                                                  found ? ", " : "", name);
        found++;
    }
    return found;
}

static qn_result write_scalars(qn_train_log *l, int64_t step, const qn_metric *m, size_t count,
                               const char *group)
{
    QN_TRY(qn_metrics_write(l->metrics, step, m, count));
    for (size_t i = 0; i < count; i++) {
        char tag[64];
        snprintf(tag, sizeof tag, "%s/%s", group, m[i].key);
        QN_TRY(qn_tensorboard_scalar(l->events, step, tag, m[i].value));
    }
    return QN_OK;
}

qn_result qn_train_log_event(qn_train_log *l, const qn_train_event *e)
{
    if (e->kind == QN_TRAIN_EVAL) {
        const qn_metric m[] = { { .key = "held_loss", .value = e->held_loss },
                                { .key = "bits_per_byte", .value = e->bits_per_byte } };
        QN_TRY(write_scalars(l, e->step, m, sizeof m / sizeof *m, "held-out"));
        return qn_tensorboard_flush(l->events);
    }
    if (e->kind != QN_TRAIN_STEP) return QN_OK;
    const qn_metric m[] = {
        { .key = "loss", .value = e->report.loss },
        { .key = "cross_entropy", .value = e->report.ce },
        { .key = "router_loss", .value = e->report.aux },
        { .key = "grad_norm", .value = e->report.grad_norm },
        { .key = "learning_rate", .value = e->learning_rate },
        { .key = "tokens_per_second", .value = e->tokens_per_second },
        { .key = "seconds", .value = e->report.seconds },
    };
    QN_TRY(write_scalars(l, e->step, m, sizeof m / sizeof *m, "train"));
    if (e->step % SAMPLE == 0) QN_TRY(sample_loads(l, e));
    return e->step % FLUSH == 0 ? qn_tensorboard_flush(l->events) : QN_OK;
}

// ------------------------------------------------------------------------------ pictures

typedef struct series {
    double *x, *y;
    size_t count, x_cap, y_cap;
} series;

static qn_result append(series *s, double x, double y)
{
    QN_TRY(qn_grow((void **)&s->x, &s->x_cap, s->count + 1, sizeof *s->x));
    QN_TRY(qn_grow((void **)&s->y, &s->y_cap, s->count + 1, sizeof *s->y));
    s->x[s->count] = x;
    s->y[s->count++] = y;
    return QN_OK;
}

static qn_result read_line(const char *line, size_t size, series *train, series *held)
{
    qn_json_doc *doc;
    QN_TRY(qn_json_parse("metrics.jsonl", line, size, NULL, &doc));
    qn_json o = qn_json_root(doc);
    double step = 0, ce = NAN, loss = NAN;
    qn_result r = qn_json_number(o, "step", 0, 1e15, &step);
    if (r == QN_OK) r = qn_json_number_or(o, "cross_entropy", -1e30, 1e30, NAN, &ce);
    if (r == QN_OK) r = qn_json_number_or(o, "held_loss", -1e30, 1e30, NAN, &loss);
    qn_json_close(&doc);
    if (r == QN_OK && !isnan(ce)) r = append(train, step, ce);
    if (r == QN_OK && !isnan(loss)) r = append(held, step, loss);
    return r;
}

static qn_result read_metrics(const qn_train_log *l, series *train, series *held)
{
    char *path, *text = NULL;
    size_t size = 0;
    QN_TRY(path_of(l, "metrics.jsonl", &path));
    qn_result r = qn_read_file(path, (uint64_t)1 << 32, &text, &size);
    qn_free(path);
    for (size_t at = 0; r == QN_OK && at < size;) {
        size_t n = strcspn(text + at, "\n");
        if (n) r = read_line(text + at, n, train, held);
        at += n + 1;
    }
    qn_free(text);
    return r;
}

// Exponential average with a memory of about a fiftieth of the run.
static void smooth(const double *y, double *out, size_t count)
{
    const double keep = 1 - 1 / fmax(1, (double)count / 50);
    double sum = 0, weight = 0;
    for (size_t i = 0; i < count; i++) {
        sum = keep * sum + y[i];
        weight = keep * weight + 1;
        out[i] = sum / weight;
    }
}

static qn_result save_picture(const qn_train_log *l, const char *name, qn_textbuf *text)
{
    char *path;
    qn_result r = path_of(l, name, &path);
    if (r == QN_OK) r = qn_textbuf_save(text, path);
    qn_free(path);
    return r;
}

static qn_result draw_loss(const qn_train_log *l)
{
    series train = { 0 }, held = { 0 };
    qn_textbuf text = { 0 };
    qn_result r = read_metrics(l, &train, &held);
    double *smoothed = qn_malloc(train.count * sizeof *smoothed);
    if (!smoothed && r == QN_OK) r = qn_no_memory(train.count * sizeof *smoothed);
    if (r == QN_OK) {
        smooth(train.y, smoothed, train.count);
        const qn_svg_series lines[] = {
            { .x = train.x, .y = train.y, .count = train.count, .faint = true },
            { .name = "training (smoothed)", .x = train.x, .y = smoothed, .count = train.count },
            { .name = "held out", .x = held.x, .y = held.y, .count = held.count },
        };
        qn_svg_lines chart = { .title = "Loss", .x_label = "step",
                               .y_label = "cross entropy, nats per token", .series = lines,
                               .series_count = held.count ? 3 : 2 };
        qn_svg_lines_text(&chart, &text);
        r = save_picture(l, "loss.svg", &text);
    }
    qn_textbuf_free(&text);
    qn_free(smoothed);
    qn_free(train.x);
    qn_free(train.y);
    qn_free(held.x);
    qn_free(held.y);
    return r;
}

static qn_result draw_experts(const qn_train_log *l)
{
    if (!l->samples) return QN_OK;
    const size_t name_size = 64;
    double *values = qn_malloc(l->samples * l->experts * sizeof *values);
    char *names = qn_malloc(l->experts * name_size);
    const char **rows = qn_malloc(l->experts * sizeof *rows);
    qn_textbuf text = { 0 };
    qn_result r = values && names && rows ? QN_OK
                                          : qn_no_memory(l->samples * l->experts * sizeof *values);
    if (r == QN_OK) {
        for (size_t e = 0; e < l->experts; e++) {
            rows[e] = names + e * name_size;
            expert_name(l, e, names + e * name_size, name_size);
            for (size_t s = 0; s < l->samples; s++)
                values[e * l->samples + s] = l->loads[s * l->experts + e];
        }
        int64_t first = (l->first_step + SAMPLE - 1) / SAMPLE * SAMPLE;
        qn_svg_heat chart = { .title = "Load of the experts", .x_label = "step",
                              .values = values, .rows = l->experts, .columns = l->samples,
                              .row_names = rows, .first_column = (double)first,
                              .column_step = SAMPLE, .value_label = "share, 1 = even" };
        qn_svg_heat_text(&chart, &text);
        r = save_picture(l, "experts.svg", &text);
    }
    qn_textbuf_free(&text);
    qn_free(values);
    qn_free(names);
    qn_free(rows);
    return r;
}

qn_result qn_train_log_close(qn_train_log **log)
{
    qn_train_log *l = *log;
    *log = NULL;
    if (!l) return QN_OK;
    bool opened = l->metrics && l->events;
    qn_result r = qn_metrics_close(&l->metrics), closed = qn_tensorboard_close(&l->events);
    if (r == QN_OK) r = closed;
    if (r == QN_OK && opened) r = draw_loss(l);
    if (r == QN_OK && opened) r = draw_experts(l);
    qn_free(l->loads);
    qn_free(l->idle);
    qn_free(l->dir);
    qn_free(l);
    return r;
}
