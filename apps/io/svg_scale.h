// Axes: a range of values laid over a range of pixels, and where its ticks go.
#ifndef QN_SVG_SCALE_H
#define QN_SVG_SCALE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct qn_scale {
    double lo, hi;   // values; logarithms (base 10) where log
    double from, to; // pixels
    bool log;
    bool empty; // no value was seen
} qn_scale;

qn_scale qn_scale_start(bool log);
// Widens the range to hold v; what cannot be shown is ignored.
void qn_scale_see(qn_scale *s, double v);
// Ends at round numbers, gives single values room. Call once, when all values were seen.
void qn_scale_finish(qn_scale *s, double from, double to, bool keep_limits);
bool qn_scale_shows(const qn_scale *s, double v);
double qn_scale_at(const qn_scale *s, double v); // pixel of v

#define QN_TICKS 16
typedef struct qn_ticks {
    double value[QN_TICKS];
    char label[QN_TICKS][24];
    size_t count;
} qn_ticks;
// About `wanted` of them, at multiples of 1, 2 or 5 times a power of ten.
qn_ticks qn_scale_ticks(const qn_scale *s, int wanted);

// 1, 2 or 5 times a power of ten: the smallest such step that is at least `rough` (> 0).
double qn_nice_step(double rough);
// A value as a label in the unit that suits the largest one beside it: "0.25", "12", "150k".
void qn_format_tick(double v, double step, double largest, char text[24]);

#endif
