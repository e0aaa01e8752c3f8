// The table of merge methods, and what all of them have in common.
#include "method.h"

#include <math.h>
#include <string.h>

static const char *const param_names[QN_P_COUNT] = {
    [QN_P_WEIGHT] = "weight",
    [QN_P_DENSITY] = "density",
    [QN_P_GAMMA] = "gamma",
    [QN_P_EPSILON] = "epsilon",
    [QN_P_SCALE] = "scale",
    [QN_P_T] = "t",
    [QN_P_NORMALIZE] = "normalize",
    [QN_P_RESCALE] = "rescale",
    [QN_P_LAMBDA] = "lambda",
    [QN_P_INT8_MASK] = "int8_mask",
    [QN_P_NUSLERP_FLATTEN] = "nuslerp_flatten",
    [QN_P_NUSLERP_ROW_WISE] = "nuslerp_row_wise",
    [QN_P_MAX_ITER] = "max_iter",
    [QN_P_TOL] = "tol",
    [QN_P_FILTER_WISE] = "filter_wise",
    [QN_P_SELECT_TOPK] = "select_topk",
    [QN_P_NORMALIZE_WEIGHTS] = "normalize_weights",
    [QN_P_EPS] = "eps",
    [QN_P_R] = "r",
    [QN_P_ALPHA] = "alpha",
};

const char *qn_merge_param_name(qn_merge_param p)
{
    return param_names[p];
}

bool qn_merge_param_find(const char *name, qn_merge_param *out)
{
    for (int p = 0; p < QN_P_COUNT; p++) {
        if (strcmp(param_names[p], name) != 0) continue;
        *out = (qn_merge_param)p;
        return true;
    }
    return false;
}

#define WEIGHT                                                                                     \
    {                                                                                              \
        QN_P_WEIGHT, .of_model = true, .required = true                                            \
    }
#define DENSITY                                                                                    \
    {                                                                                              \
        QN_P_DENSITY, .of_model = true, .initial = 1, .max = 1e9                                   \
    }
#define FLAG(p, on)                                                                                \
    {                                                                                              \
        p, .initial = on, .flag = true                                                             \
    }
#define LAMBDA                                                                                     \
    {                                                                                              \
        QN_P_LAMBDA, .initial = 1                                                                  \
    }
#define PARAMS(...)                                                                                \
    .params = { __VA_ARGS__ },                                                                     \
    .param_count = sizeof((qn_method_param[]){ __VA_ARGS__ }) / sizeof(qn_method_param)
#define TASK(normalize, rescale)                                                                   \
    FLAG(QN_P_NORMALIZE, normalize), FLAG(QN_P_RESCALE, rescale), LAMBDA, FLAG(QN_P_INT8_MASK, 0)

#define TIES "TIES", "https://arxiv.org/abs/2306.01708"
#define DARE "https://arxiv.org/abs/2311.03099"
#define DELLA "https://arxiv.org/abs/2406.11617"
#define CRUMBS "https://arxiv.org/abs/2312.06795"

const qn_method qn_methods[] = {
    { "linear", "Linear", "https://arxiv.org/abs/2203.05482", QN_BASE_NONE, 1, 0,
      QN_UNEQUAL_CROPPED, false, PARAMS(WEIGHT, FLAG(QN_P_NORMALIZE, 1)), qn_method_linear,
      .elementwise = true },
    { "slerp", "SLERP", "https://en.wikipedia.org/wiki/Slerp", QN_BASE_REQUIRED, 0, 1,
      QN_UNEQUAL_CROPPED, true, PARAMS({ QN_P_T, .required = true }), qn_method_slerp },
    { "nuslerp", "NuSLERP", "https://en.wikipedia.org/wiki/Slerp", QN_BASE_OPTIONAL, 1, 2,
      QN_UNEQUAL_CROPPED, true,
      PARAMS(WEIGHT, FLAG(QN_P_NUSLERP_FLATTEN, 1), FLAG(QN_P_NUSLERP_ROW_WISE, 0)),
      qn_method_nuslerp },
    { "task_arithmetic", "Task Arithmetic", "https://arxiv.org/abs/2212.04089", QN_BASE_REQUIRED, 0,
      0, QN_UNEQUAL_LIKE_BASE, true, PARAMS(WEIGHT, DENSITY, TASK(0, 0)), qn_method_task,
      QN_THIN_NONE, false, true },
    { "ties", TIES, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, TASK(1, 0)), qn_method_task, QN_THIN_TOP, true },
    { "dare_linear", "Linear DARE", DARE, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, TASK(0, 1)), qn_method_task, QN_THIN_RANDOM, false },
    { "dare_ties", "DARE TIES", DARE, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, TASK(0, 1)), qn_method_task, QN_THIN_RANDOM, true },
    { "breadcrumbs", "Model Breadcrumbs", CRUMBS, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE,
      true,
      PARAMS(WEIGHT, DENSITY, { QN_P_GAMMA, .of_model = true, .initial = 0.01, .max = 1 },
             TASK(0, 0)),
      qn_method_task, QN_THIN_MIDDLE, false },
    { "breadcrumbs_ties", "Model Breadcrumbs with TIES", CRUMBS, QN_BASE_REQUIRED, 0, 0,
      QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, { QN_P_GAMMA, .of_model = true, .initial = 0.01, .max = 1 },
             TASK(0, 0)),
      qn_method_task, QN_THIN_MIDDLE, true },
    { "della", "DELLA", DELLA, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, { QN_P_EPSILON, .of_model = true, .initial = 0.15, .max = 1 },
             TASK(1, 1)),
      qn_method_task, QN_THIN_RANKED, true },
    { "della_linear", "Linear DELLA", DELLA, QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_LIKE_BASE, true,
      PARAMS(WEIGHT, DENSITY, { QN_P_EPSILON, .of_model = true, .initial = 0.15, .max = 1 },
             TASK(0, 1)),
      qn_method_task, QN_THIN_RANKED, false },
    { "model_stock", "Model Stock", "https://arxiv.org/abs/2403.19522", QN_BASE_REQUIRED, 2, 0,
      QN_UNEQUAL_CROPPED, true, PARAMS(FLAG(QN_P_FILTER_WISE, 0)), qn_method_model_stock },
    { "sce", "SCE", "https://arxiv.org/abs/2408.07990", QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_REFUSED,
      true, PARAMS({ QN_P_SELECT_TOPK, .initial = 1, .max = 1e9 }, FLAG(QN_P_INT8_MASK, 0)),
      qn_method_sce },
    { "karcher", "Karcher Mean", "https://en.wikipedia.org/wiki/Karcher_mean", QN_BASE_NONE, 1, 0,
      QN_UNEQUAL_CROPPED, false,
      PARAMS({ QN_P_MAX_ITER, .initial = 10, .max = 1e6 }, { QN_P_TOL, .initial = 1e-5, .max = 1 }),
      qn_method_karcher },
    { "multislerp", "Multi-SLERP", "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
      QN_BASE_OPTIONAL, 1, 0, QN_UNEQUAL_REFUSED, true,
      PARAMS(WEIGHT, FLAG(QN_P_NORMALIZE_WEIGHTS, 1), { QN_P_EPS, .initial = 1e-8, .max = 1 }),
      qn_method_multislerp },
    { "nearswap", "NearSwap", "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
      QN_BASE_REQUIRED, 0, 1, QN_UNEQUAL_REFUSED, true, PARAMS({ QN_P_T, .required = true }),
      qn_method_nearswap, .elementwise = true },
    { "arcee_fusion", "Arcee Fusion", "https://arcee.ai", QN_BASE_REQUIRED, 0, 1,
      QN_UNEQUAL_CROPPED, true, .run = qn_method_arcee },
    { "passthrough", "Passthrough", NULL, QN_BASE_NONE, 1, 1, QN_UNEQUAL_REFUSED, false,
      PARAMS({ QN_P_SCALE, .of_model = true, .initial = 1 }), qn_method_passthrough,
      .elementwise = true },
    { "ram", "RAM", "https://arxiv.org/abs/2601.13572", QN_BASE_REQUIRED, 0, 0, QN_UNEQUAL_REFUSED,
      true, PARAMS({ QN_P_EPSILON, .initial = 1e-5, .max = 1e9 }), qn_method_ram },
    { "ramplus_tl", "RAM+", "https://arxiv.org/abs/2601.13572", QN_BASE_REQUIRED, 0, 0,
      QN_UNEQUAL_REFUSED, true,
      PARAMS({ QN_P_EPSILON, .initial = 1e-5, .max = 1e9 }, { QN_P_R, .initial = 0.1 },
             { QN_P_ALPHA, .initial = 0.2, .max = 1e9 }),
      qn_method_ram },
};
const size_t qn_method_count = sizeof qn_methods / sizeof *qn_methods;

const qn_method *qn_method_find(const char *name)
{
    for (size_t i = 0; i < qn_method_count; i++)
        if (strcmp(qn_methods[i].name, name) == 0) return &qn_methods[i];
    return NULL;
}

const qn_method_param *qn_method_takes(const qn_method *m, qn_merge_param p)
{
    for (size_t i = 0; i < m->param_count; i++)
        if (m->params[i].param == p) return &m->params[i];
    return NULL;
}

double qn_merge_param_of(const qn_method *m, const qn_merge_params *given, qn_merge_param p)
{
    if (given->given >> p & 1) return given->value[p];
    const qn_method_param *row = qn_method_takes(m, p);
    return row ? row->initial : 0;
}

static qn_result check_param(const qn_method *m, const qn_method_param *p,
                             const qn_merge_params *given, const char *of)
{
    bool there = given->given >> p->param & 1;
    if (!there && p->required)
        return qn_fail(QN_ERR_INVALID, "%s needs the parameter %s%s%s", m->name,
                       qn_merge_param_name(p->param), *of ? " of model " : "", of);
    double v = there ? given->value[p->param] : p->initial;
    bool bounded = p->min < p->max;
    if (!isfinite(v) || (bounded && (v < p->min || v > p->max)))
        return qn_fail(QN_ERR_INVALID, "%s: %s%s%s is %g, expected a number of at least %g",
                       m->name, qn_merge_param_name(p->param), *of ? " of model " : "", of, v,
                       p->min);
    return QN_OK;
}

// What needs more than one parameter.
static qn_result check_ranked(const qn_method *m, const qn_merge_input *x)
{
    double p = qn_merge_param_of(m, &x->params, QN_P_DENSITY);
    double e = qn_merge_param_of(m, &x->params, QN_P_EPSILON);
    if (p >= 1 || p <= 0 || (p + e < 1 && p - e > 0)) return QN_OK;
    return qn_fail(QN_ERR_INVALID,
                   "%s: density %g of model %s, expected density - epsilon above 0 and density + "
                   "epsilon below 1, with epsilon %g",
                   m->name, p, x->model, e);
}

static qn_result check_sum(const qn_method *m, const qn_merge_input *models, size_t count, int base,
                           const qn_merge_params *params)
{
    double sum = 0;
    bool wanted = qn_merge_param_of(m, params, QN_P_NORMALIZE) != 0 ||
                  qn_merge_param_of(m, params, QN_P_NORMALIZE_WEIGHTS) != 0;
    if (m->run != qn_method_linear && m->run != qn_method_multislerp) return QN_OK;
    for (size_t i = 0; i < count; i++)
        if ((int)i != base || m->base == QN_BASE_NONE)
            sum += qn_merge_param_of(m, &models[i].params, QN_P_WEIGHT);
    if (!wanted || sum != 0) return QN_OK;
    if (m->run == qn_method_multislerp && count - (base >= 0) < 2) return QN_OK; // that model
    return qn_fail(QN_ERR_INVALID, "%s: the weights add up to 0 and cannot be normalized", m->name);
}

static qn_result check(const qn_method *m, const qn_merge_input *models, size_t count, int base,
                       const qn_merge_params *params)
{
    size_t others = count - (base >= 0 && m->base != QN_BASE_NONE);
    if (m->base == QN_BASE_REQUIRED && base < 0)
        return qn_fail(QN_ERR_INVALID, "%s needs a base model that has this tensor", m->name);
    if (m->models_max && others > m->models_max)
        return qn_fail(QN_ERR_INVALID, "%s takes %zu model%s%s, found %zu", m->name, m->models_max,
                       m->models_max > 1 ? "s" : "",
                       m->base == QN_BASE_NONE ? "" : " besides the base", others);
    if (others && others < m->models_min && m->models_min > 1)
        return qn_fail(QN_ERR_INVALID, "%s needs the base and at least %zu more models, found %zu",
                       m->name, m->models_min, others);
    for (size_t i = 0; i < m->param_count; i++) {
        const qn_method_param *p = &m->params[i];
        if (!p->of_model) QN_TRY(check_param(m, p, params, ""));
        for (size_t k = 0; p->of_model && k < count; k++)
            if ((int)k != base || m->base == QN_BASE_NONE)
                QN_TRY(check_param(m, p, &models[k].params, models[k].model));
    }
    for (size_t k = 0; m->thin == QN_THIN_RANKED && k < count; k++)
        if ((int)k != base) QN_TRY(check_ranked(m, &models[k]));
    return check_sum(m, models, count, base, params);
}

qn_result qn_method_check(const qn_method *m, const qn_merge_input *models, size_t count, int base,
                          const qn_merge_params *params, const char *tensor)
{
    return qn_context_add(check(m, models, count, base, params), "tensor %s", tensor);
}

qn_result qn_method_run(qn_blend *b, const qn_method *m, const qn_merge_job *job)
{
    qn_result r = check(m, job->models, job->model_count, job->base, &job->params);
    if (r == QN_OK) r = m->run(b, m, job);
    return qn_context_add(r, "tensor %s", job->tensor);
}

qn_result qn_method_copy(qn_blend *b, int input, double factor)
{
    float c = (float)factor;
    return qn_blend_mix(b, &(qn_blend_mix_opts){ .pivot = input, .coefs = &c });
}
