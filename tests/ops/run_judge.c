// What counts as right.
//
// A value that sums n rounded terms in f32 has a probable error of sqrt(n) u times the magnitude
// of the terms, u = 2^-24 the unit roundoff; four more roundings are granted for what surrounds the
// sum, and `slack` for functions that are less exact than correctly rounded. Results and terms
// below the least normal number may be flushed to zero by a driver, so each may lose 2^-126.
// A 16-bit result is such a value rounded once more: half a unit in its last place.
#include "run_impl.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

void run_fault(run_job *j, const char *fmt, ...)
{
    qn_check_case *c = j->report;
    if (c->failure[0]) return;
    int n = snprintf(c->failure, sizeof c->failure, "%s: ", j->form);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->failure + n, sizeof c->failure - (size_t)n, fmt, ap);
    va_end(ap);
}

void run_fault_call(run_job *j, qn_result r, const char *what)
{
    run_fault(j, "%s: %s: %s", what, qn_result_name(r), qn_error_message());
}

static void note_worst(run_job *j, const char *tensor, int64_t index, double units, double relative)
{
    qn_check_case *c = j->report;
    if (c->tensor[0] && !(units > c->units)) return;
    snprintf(c->tensor, sizeof c->tensor, "%s", tensor);
    c->index = index;
    c->units = units;
    c->relative = relative;
    c->form = j->form;
}

void run_judge(run_job *j, const char *tensor, int64_t index, double got, double expected,
               double tolerance, double relative_to)
{
    if (isnan(expected) ? isnan(got) : got == expected) { // equal infinities too
        note_worst(j, tensor, index, 0, 0);
        return;
    }
    double error = fabs(got - expected);
    bool good = error <= tolerance && isfinite(expected);
    double units = isfinite(error) && tolerance > 0 ? error / tolerance : INFINITY;
    double relative = relative_to > 0 ? error / relative_to : INFINITY;
    note_worst(j, tensor, index, units, relative);
    if (good) return;
    if (isnan(got))
        run_fault(j, "%s[%lld] is NaN (never written?), expected %.9g", tensor, (long long)index,
                  expected);
    else
        run_fault(j, "%s[%lld] = %.9g, expected %.9g: error %.3g, tolerance %.3g", tensor,
                  (long long)index, got, expected, error, tolerance);
}

void run_judge_tensor(run_job *j, const char *tensor, qn_dtype dtype, const void *bytes,
                      const qn_ref *ref)
{
    double units = 4 + sqrt(ref->terms) + ref->slack;
    double flushed = (1 + ref->terms) * FLT_MIN;
    size_t width = qn_dtype_size(dtype);
    for (int64_t i = 0; i < ref->count; i++) {
        double got, expected = ref->v[i], tolerance = 0;
        run_decode(dtype, (const char *)bytes + (size_t)i * width, &got, 1);
        double magnitude = ref->mag[i] > 0 ? ref->mag[i] : fabs(expected);
        if (dtype != QN_I32) {
            // Too large for the format: infinity is right.
            run_format f = run_format_of(dtype);
            double rounded = run_round(f, expected);
            if (isinf(rounded)) expected = rounded;
            tolerance = units * 0x1p-24 * magnitude + flushed;
            // The finer of the two neighbourhoods: no place for a wrong neighbour.
            if (dtype != QN_F32)
                tolerance += fmin(run_half_ulp(f, expected), run_half_ulp(f, got));
        }
        run_judge(j, tensor, i, got, expected, tolerance, magnitude);
    }
}
