// A roofline, bars, and the page around them.
#include "bench/chart.h"

#include "io/svg.h"

#include <math.h>
#include <string.h>
#include <time.h>

#define MOST_SERIES 14 // operations with a colour of their own; the rest share one

// ------------------------------------------------------------------------------------ roofline

typedef struct points {
    char name[64];
    double *x, *y;
    size_t count;
} points;

static bool has_place(const qn_bench_record *r)
{
    return r->status <= QN_BENCH_FLAGGED && r->gflops > 0 && r->gbytes_per_s > 0;
}

// Groups the records by name. False: out of memory.
static bool gather(const qn_bench_log *log, points *list, size_t *count)
{
    for (size_t i = 0; i < log->count; i++) {
        const qn_bench_record *r = &log->records[i];
        if (!has_place(r)) continue;
        size_t k = 0;
        while (k < *count && strcmp(list[k].name, r->name) != 0) k++;
        if (k == *count) {
            if (k + 1 == MOST_SERIES)
                snprintf(list[k].name, sizeof list[k].name, "others");
            else if (k < MOST_SERIES)
                snprintf(list[k].name, sizeof list[k].name, "%s", r->name);
            if (k < MOST_SERIES) ++*count;
        }
        points *p = &list[k < MOST_SERIES ? k : MOST_SERIES - 1];
        if (!p->x) p->x = qn_calloc(log->count, sizeof *p->x);
        if (!p->y) p->y = qn_calloc(log->count, sizeof *p->y);
        if (!p->x || !p->y) return false;
        p->x[p->count] = r->gflops / r->gbytes_per_s;
        p->y[p->count++] = r->gflops;
    }
    return true;
}

// A roof: memory until arithmetic is nearer, over the range of the points.
static size_t roof(double gbytes_per_s, double gflops, double low, double high, double x[3],
                   double y[3])
{
    const double ridge = gflops / gbytes_per_s;
    size_t n = 0;
    if (low < ridge) x[n] = low, y[n++] = low * gbytes_per_s;
    x[n] = fmax(ridge, low), y[n++] = gflops;
    x[n] = fmax(high, 2 * ridge), y[n++] = gflops;
    return n;
}

void qn_bench_roofline(const qn_bench_log *log, const qn_peaks *peaks, qn_textbuf *out)
{
    points list[MOST_SERIES] = { 0 };
    qn_svg_series series[MOST_SERIES + QN_PEAK_SIZES];
    double x[QN_PEAK_SIZES][3], y[QN_PEAK_SIZES][3];
    char names[QN_PEAK_SIZES][48];
    size_t count = 0, used = 0;
    if (!gather(log, list, &count)) out->failed = true;
    double low = 0.1, high = 10;
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; i < list[k].count; i++) {
            low = fmin(low, list[k].x[i]);
            high = fmax(high, list[k].x[i]);
        }
    const double gflops = 1e-9 * peaks->types[QN_PEAK_F32].flops;
    for (int i = 0; i < QN_PEAK_SIZES && gflops > 0; i++) {
        const double rate = 1e-9 * peaks->copies[i].bytes_per_s;
        if (!(rate > 0)) continue;
        size_t n = roof(rate, gflops, low, high, x[i], y[i]);
        snprintf(names[i], sizeof names[i], "copy of %.0f MiB", peaks->copies[i].bytes / (1 << 20));
        series[used++] = (qn_svg_series){ .name = names[i], .x = x[i], .y = y[i], .count = n };
    }
    for (size_t k = 0; k < count; k++)
        series[used++] = (qn_svg_series){ .name = list[k].name,
                                          .x = list[k].x,
                                          .y = list[k].y,
                                          .count = list[k].count,
                                          .dots = true };
    qn_svg_lines_text(&(qn_svg_lines){ .title = "Roofline",
                                       .x_label = "operations per byte",
                                       .y_label = "GF/s",
                                       .x_log = true,
                                       .y_log = true,
                                       .series = series,
                                       .series_count = used,
                                       .height = 520 },
                      out);
    for (size_t k = 0; k < MOST_SERIES; k++) {
        qn_free(list[k].x);
        qn_free(list[k].y);
    }
}

// ------------------------------------------------------------------------------------ bars

void qn_bench_bars(const qn_bench_log *log, qn_textbuf *out)
{
    qn_arena arena = { 0 };
    const char **names = qn_arena_alloc(&arena, (log->count + 1) * sizeof *names);
    double *values = qn_arena_alloc(&arena, (log->count + 1) * sizeof *values);
    size_t count = 0;
    if (!names || !values) out->failed = true;
    for (size_t i = 0; i < log->count && !out->failed; i++) {
        const qn_bench_record *r = &log->records[i];
        if (!isfinite(r->fraction_of_peak)) continue;
        const char *name = qn_arena_printf(&arena, "%s %s %s", r->name, r->shape, r->variant);
        if (!name) out->failed = true;
        names[count] = name;
        values[count++] = 100 * r->fraction_of_peak;
    }
    qn_svg_bars_text(&(qn_svg_bars){ .title = "Share of the nearer ceiling",
                                     .names = names,
                                     .values = values,
                                     .count = count,
                                     .unit = "%" },
                     out);
    qn_arena_free(&arena);
}

// ------------------------------------------------------------------------------------ page

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
    "<title>quoin bench</title>\n<style>"
    "body{font:14px system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;"
    "color:#1b1f24;background:#fff}table{border-collapse:collapse;width:100%;font-size:12px}"
    "caption{text-align:left;font-weight:600;padding:.6em 0}"
    "th,td{text-align:left;padding:.25em .6em;border-bottom:1px solid #e3e6ea}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".flagged,.failed{color:#b3261e}.wide{overflow-x:auto}svg{max-width:100%;height:auto}"
    "@media(prefers-color-scheme:dark){body{color:#e6eaee;background:#15181c}"
    "th,td{border-color:#2b3036}.flagged,.failed{color:#ff8a80}}</style>\n";

static void cell(qn_textbuf *t, double v, double factor)
{
    qn_textbuf_puts(t, "<td class=\"n\">");
    if (isfinite(v)) qn_textbuf_printf(t, "%.4g", factor * v);
    qn_textbuf_puts(t, "</td>");
}

static void text_cell(qn_textbuf *t, const char *s)
{
    qn_textbuf_puts(t, "<td>");
    qn_textbuf_xml(t, s);
    qn_textbuf_puts(t, "</td>");
}

static void row(qn_textbuf *t, const qn_bench_record *r)
{
    qn_textbuf_printf(t, "<tr class=\"%s\">", qn_bench_status_name(r->status));
    text_cell(t, r->name);
    text_cell(t, r->variant);
    text_cell(t, r->shape);
    cell(t, r->seconds_median, 1e3);
    cell(t, r->seconds_p10, 1e3);
    cell(t, r->seconds_p90, 1e3);
    cell(t, r->gflops, 1);
    cell(t, r->gbytes_per_s, 1);
    cell(t, r->fraction_of_peak, 100);
    cell(t, r->tokens_per_s, 1);
    text_cell(t, r->bound);
    qn_textbuf_puts(t, "<td>");
    if (r->status != QN_BENCH_OK)
        qn_textbuf_printf(t, "%s%s", qn_bench_status_name(r->status), r->note[0] ? ": " : "");
    qn_textbuf_xml(t, r->note);
    qn_textbuf_puts(t, "</td></tr>\n");
}

void qn_bench_html(const qn_bench_log *log, const qn_peaks *peaks, qn_textbuf *t)
{
    const time_t now = time(NULL);
    struct tm utc;
    char date[32] = "";
    if (gmtime_r(&now, &utc)) strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    qn_textbuf_puts(t, head);
    qn_textbuf_puts(t, "<h1>quoin bench</h1>\n<p>");
    qn_textbuf_xml(t, log->device);
    qn_textbuf_puts(t, ", ");
    qn_textbuf_xml(t, log->driver);
    qn_textbuf_printf(t, "<br>quoin %s, revision ", qn_version());
    qn_textbuf_xml(t, log->commit);
    qn_textbuf_printf(t, ", %s</p>\n", date);
    qn_bench_roofline(log, peaks, t);
    qn_bench_bars(log, t);
    qn_textbuf_puts(t, "<div class=\"wide\"><table><caption>Every measurement: medians, and the "
                       "bounds that a tenth of the runs are below and above</caption>\n<tr>"
                       "<th>what<th>variant<th>shape<th class=\"n\">ms<th class=\"n\">p10"
                       "<th class=\"n\">p90<th class=\"n\">GF/s<th class=\"n\">GB/s"
                       "<th class=\"n\">% of ceiling<th class=\"n\">tokens/s<th>ceiling"
                       "<th>remark</tr>\n");
    for (size_t i = 0; i < log->count; i++) row(t, &log->records[i]);
    qn_textbuf_puts(t, "</table></div>\n</html>\n");
}

qn_peaks qn_bench_peaks_in(const qn_bench_log *log)
{
    qn_peaks p = { 0 };
    int copies = 0;
    for (size_t i = 0; i < log->count; i++) {
        const qn_bench_record *r = &log->records[i];
        if (strcmp(r->bench, "peak") != 0 || r->status > QN_BENCH_FLAGGED) continue;
        if (!strcmp(r->name, "f32") && r->gflops > 0) p.types[QN_PEAK_F32].flops = 1e9 * r->gflops;
        if (!strcmp(r->name, "memory") && r->gbytes_per_s > 0 && copies < QN_PEAK_SIZES) {
            p.copies[copies].bytes = 1e9 * r->gbytes_per_s * r->seconds_median;
            p.copies[copies++].bytes_per_s = 1e9 * r->gbytes_per_s;
        }
    }
    return p;
}
