// Ranges, ticks and their labels.
#include "io/svg_scale.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

qn_scale qn_scale_start(bool log)
{
    return (qn_scale){ .log = log, .empty = true };
}

bool qn_scale_shows(const qn_scale *s, double v)
{
    return isfinite(v) && (!s->log || v >= DBL_MIN);
}

void qn_scale_see(qn_scale *s, double v)
{
    if (!qn_scale_shows(s, v)) return;
    if (s->log) v = log10(v);
    if (s->empty || v < s->lo) s->lo = v;
    if (s->empty || v > s->hi) s->hi = v;
    s->empty = false;
}

double qn_nice_step(double rough)
{
    double power = pow(10, floor(log10(rough)));
    double digit = rough / power;
    // The small allowance keeps 0.1 + 0.2 and its like from taking the next larger step.
    return power * (digit <= 1 + 1e-9 ? 1 : digit <= 2 + 1e-9 ? 2 : digit <= 5 + 1e-9 ? 5 : 10);
}

static double step_for(const qn_scale *s, int wanted)
{
    double span = s->hi / wanted - s->lo / wanted; // cannot overflow
    return qn_nice_step(span > 0 ? span : 1);
}

void qn_scale_finish(qn_scale *s, double from, double to, bool keep_limits)
{
    s->from = from;
    s->to = to;
    if (s->empty) {
        s->lo = 0;
        s->hi = 1;
        return;
    }
    // A span below what doubles can divide into ticks is a single value.
    double size = fmax(fabs(s->lo), fabs(s->hi));
    if (s->hi - s->lo <= 1e-12 * size || s->hi - s->lo < 1e-300) {
        double room = s->log ? 0.5 : size > 1e-290 ? size / 2 : 1;
        s->lo -= room;
        s->hi += room;
    }
    if (keep_limits || s->log) return;
    double step = step_for(s, 5);
    double lo = floor(s->lo / step + 1e-9) * step, hi = ceil(s->hi / step - 1e-9) * step;
    if (isfinite(lo)) s->lo = lo;
    if (isfinite(hi)) s->hi = hi;
}

double qn_scale_at(const qn_scale *s, double v)
{
    if (s->log) v = log10(v);
    // Halves, so that the span of the largest doubles does not overflow.
    double share = (v / 2 - s->lo / 2) / (s->hi / 2 - s->lo / 2);
    return s->from + share * (s->to - s->from);
}

void qn_format_tick(double v, double step, double largest, char text[24])
{
    static const struct {
        double from, unit, step;
        const char *name;
    } units[] = { { 1e9, 1e9, 1e6, "G" }, { 1e6, 1e6, 1e3, "M" }, { 1e4, 1e3, 10, "k" } };
    if (fabs(v) < 1e-9 * step) v = 0;
    if (v == 0 || largest >= 1e12 || step < 1e-6) {
        snprintf(text, 24, "%.6g", v);
        return;
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (largest < units[i].from || step < units[i].step) continue;
        snprintf(text, 24, "%.6g%s", v / units[i].unit, units[i].name);
        return;
    }
    int digits = step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
    snprintf(text, 24, "%.*f", digits, v);
}

static qn_ticks linear_ticks(const qn_scale *s, int wanted)
{
    qn_ticks t = { 0 };
    double step = step_for(s, wanted), first = ceil(s->lo / step - 1e-9);
    for (int i = 0; i < QN_TICKS; i++) {
        double v = (first + i) * step;
        if (!isfinite(v) || v > s->hi + 1e-9 * step) break;
        t.value[t.count] = v;
        qn_format_tick(v, step, fmax(fabs(s->lo), fabs(s->hi)), t.label[t.count++]);
    }
    return t;
}

static void log_label(double v, char text[24])
{
    if (v >= 1e-3 && v < 1e3)
        snprintf(text, 24, "%g", v);
    else if (v >= 1e3 && v < 1e6)
        snprintf(text, 24, "%gk", v / 1e3);
    else if (v >= 1e6 && v < 1e9)
        snprintf(text, 24, "%gM", v / 1e6);
    else
        snprintf(text, 24, "%.0e", v);
}

// Powers of ten; with 2 and 5 between them where there are few, every n-th where there are many.
static qn_ticks log_ticks(const qn_scale *s, int wanted)
{
    static const double few[] = { 1, 2, 5 }, less[] = { 1, 1.5, 2, 3, 5, 7 };
    qn_ticks t = { 0 };
    double decades = s->hi - s->lo;
    if (decades < 0.15) { // too narrow for a logarithmic pattern
        qn_scale plain = { .lo = pow(10, s->lo), .hi = pow(10, s->hi) };
        return linear_ticks(&plain, wanted);
    }
    const double *digits = decades < 1 ? less : few;
    size_t count = decades < 1 ? 6 : decades < 2.5 ? 3 : 1;
    int stride = decades > 2 * wanted ? (int)ceil(decades / wanted) : 1;
    for (double e = floor(s->lo); e <= s->hi + 1e-9; e += stride) {
        for (size_t i = 0; i < count; i++) {
            double v = digits[i] * pow(10, e), l = log10(v);
            if (l < s->lo - 1e-9 || l > s->hi + 1e-9 || t.count == QN_TICKS) continue;
            t.value[t.count] = v;
            log_label(v, t.label[t.count++]);
        }
    }
    return t;
}

qn_ticks qn_scale_ticks(const qn_scale *s, int wanted)
{
    return s->log ? log_ticks(s, wanted) : linear_ticks(s, wanted);
}
