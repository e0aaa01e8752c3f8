// Which measurements changed by more than their noise.
#include "bench/compare.h"

#include <math.h>
#include <string.h>

static const double believed = 1.02; // clocks and frequencies wander this much between runs

static const char *const names[] = {
    [QN_DIFF_SAME] = "same",      [QN_DIFF_FASTER] = "faster",   [QN_DIFF_SLOWER] = "SLOWER",
    [QN_DIFF_BROKEN] = "BROKEN",  [QN_DIFF_MENDED] = "mended",   [QN_DIFF_MISSING] = "only before",
    [QN_DIFF_NEW] = "only after", [QN_DIFF_NEITHER] = "neither",
};

const char *qn_bench_verdict_name(qn_bench_verdict v)
{
    return names[v];
}

static bool same_thing(const qn_bench_record *a, const qn_bench_record *b)
{
    return !strcmp(a->bench, b->bench) && !strcmp(a->name, b->name) &&
           !strcmp(a->variant, b->variant) && !strcmp(a->shape, b->shape) &&
           !strcmp(a->form, b->form);
}

static bool measured(const qn_bench_record *r)
{
    return r->status <= QN_BENCH_FLAGGED && r->seconds_median > 0 && r->seconds_p10 > 0 &&
           r->seconds_p90 > 0;
}

static qn_bench_verdict judge(qn_bench_diff *d)
{
    d->ratio = NAN;
    if (!d->after) return QN_DIFF_MISSING;
    if (!d->before) return QN_DIFF_NEW;
    const bool a = measured(d->before), b = measured(d->after);
    if (!a && !b) return QN_DIFF_NEITHER;
    if (!a) return QN_DIFF_MENDED;
    if (!b) return QN_DIFF_BROKEN;
    d->ratio = d->after->seconds_median / d->before->seconds_median;
    if (d->after->seconds_p10 > d->before->seconds_p90 * believed) return QN_DIFF_SLOWER;
    if (d->after->seconds_p90 * believed < d->before->seconds_p10) return QN_DIFF_FASTER;
    return QN_DIFF_SAME;
}

qn_result qn_bench_compare(const qn_bench_log *before, const qn_bench_log *after,
                           qn_bench_diffs *out)
{
    const size_t most = before->count + after->count;
    *out = (qn_bench_diffs){ 0 };
    bool *taken = qn_calloc(after->count + 1, sizeof *taken);
    out->rows = qn_calloc(most + 1, sizeof *out->rows);
    if (!taken || !out->rows) {
        qn_free(taken);
        qn_bench_diffs_free(out);
        return qn_no_memory(most * sizeof *out->rows);
    }
    size_t common = 0;
    for (size_t i = 0; i < before->count; i++) {
        qn_bench_diff *d = &out->rows[out->count++];
        d->before = &before->records[i];
        for (size_t k = 0; k < after->count && !d->after; k++) {
            if (taken[k] || !same_thing(d->before, &after->records[k])) continue;
            d->after = &after->records[k];
            taken[k] = true;
            common++;
        }
    }
    for (size_t k = 0; k < after->count; k++)
        if (!taken[k]) out->rows[out->count++].after = &after->records[k];
    qn_free(taken);
    for (size_t i = 0; i < out->count; i++) {
        out->rows[i].verdict = judge(&out->rows[i]);
        out->verdicts[out->rows[i].verdict]++;
    }
    if (common) return QN_OK;
    qn_bench_diffs_free(out);
    return qn_fail(QN_ERR_INVALID,
                   "nothing to compare: of %zu measurements before and %zu after none has the same "
                   "name, variant, shape and form",
                   before->count, after->count);
}

void qn_bench_diffs_free(qn_bench_diffs *d)
{
    qn_free(d->rows);
    *d = (qn_bench_diffs){ 0 };
}

bool qn_bench_diffs_bad(const qn_bench_diffs *d)
{
    return d->verdicts[QN_DIFF_SLOWER] || d->verdicts[QN_DIFF_BROKEN];
}
