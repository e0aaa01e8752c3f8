// Learning rates by step, and the numbers of an AdamW step.
#include "llm/schedule.h"

#include "fail.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

static const char *const names[QN_DECAY_COUNT] = {
    [QN_DECAY_CONSTANT] = "constant",
    [QN_DECAY_COSINE] = "cosine",
};

const char *qn_decay_name(qn_decay d)
{
    return (unsigned)d < QN_DECAY_COUNT ? names[d] : NULL;
}

qn_result qn_decay_parse(const char *name, qn_decay *out)
{
    for (int d = 0; d < QN_DECAY_COUNT; d++)
        if (strcmp(name, names[d]) == 0) {
            *out = (qn_decay)d;
            return QN_OK;
        }
    return qn_fail(QN_ERR_INVALID, "schedule %s is not known; there are constant and cosine", name);
}

qn_result qn_schedule_check(const qn_schedule *s)
{
    if (!qn_decay_name(s->decay))
        return qn_fail(QN_ERR_INVALID, "schedule %d is not known", (int)s->decay);
    if (!(s->peak >= 0) || !isfinite(s->peak))
        return qn_fail(QN_ERR_INVALID, "learning rate %g, expected a finite number of at least 0",
                       s->peak);
    if (!(s->floor >= 0 && s->floor <= s->peak))
        return qn_fail(QN_ERR_INVALID, "final learning rate %g, expected 0 to %g, the peak",
                       s->floor, s->peak);
    if (s->warmup < 0)
        return qn_fail(QN_ERR_INVALID, "%lld warm-up steps, expected at least 0",
                       (long long)s->warmup);
    if (s->decay == QN_DECAY_COSINE && s->steps <= s->warmup)
        return qn_fail(QN_ERR_INVALID,
                       "a cosine schedule of %lld steps ends within its %lld warm-up steps",
                       (long long)s->steps, (long long)s->warmup);
    return QN_OK;
}

double qn_schedule_rate(const qn_schedule *s, int64_t step)
{
    if (step < s->warmup) return s->peak * (double)step / (double)s->warmup;
    if (s->decay == QN_DECAY_CONSTANT) return s->peak;
    if (step >= s->steps) return s->floor;
    double done = (double)(step - s->warmup) / (double)(s->steps - s->warmup);
    return s->floor + (s->peak - s->floor) * 0.5 * (1 + cos(pi * done));
}

qn_result qn_adam_check(const qn_adam *o)
{
    if (!(o->beta1 >= 0 && o->beta1 < 1) || !(o->beta2 >= 0 && o->beta2 < 1))
        return qn_fail(QN_ERR_INVALID, "betas %g and %g, expected 0 to below 1", o->beta1,
                       o->beta2);
    if (!(o->epsilon > 0) || !isfinite(o->epsilon))
        return qn_fail(QN_ERR_INVALID, "epsilon %g, expected a number above 0", o->epsilon);
    if (!(o->clip >= 0) || !isfinite(o->clip))
        return qn_fail(QN_ERR_INVALID, "clip %g, expected a norm, or 0 for none", o->clip);
    return QN_OK;
}

// 1 - beta^step without cancellation where beta is near 1.
static float correction(double beta, int64_t step)
{
    return (float)-expm1((double)step * log(beta));
}

void qn_adam_hyper(const qn_adam *o, double rate, int64_t step, float hyper[QN_ADAM_HYPER])
{
    const float all[QN_ADAM_HYPER] = {
        (float)rate,
        (float)(1 - o->beta1),
        (float)(1 - o->beta2),
        (float)o->epsilon,
        (float)o->clip,
        correction(o->beta1, step),
        correction(o->beta2, step),
    };
    memcpy(hyper, all, sizeof all);
}

double qn_adam_scale(const qn_adam *o, double norm)
{
    return o->clip > 0 ? fmin(1, o->clip / (norm + 1e-6)) : 1;
}
