// THE merge-method table: every method is a row of qn_methods, which says what it takes and what it
// does with one tensor.
#ifndef QN_METHOD_H
#define QN_METHOD_H

#include "blend.h"

// Parameters that recipes may give to methods.
typedef enum qn_merge_param {
    QN_P_WEIGHT = 0,
    QN_P_DENSITY,
    QN_P_GAMMA,
    QN_P_EPSILON,
    QN_P_SCALE,
    QN_P_T,
    QN_P_NORMALIZE,
    QN_P_RESCALE,
    QN_P_LAMBDA,
    QN_P_INT8_MASK,
    QN_P_NUSLERP_FLATTEN,
    QN_P_NUSLERP_ROW_WISE,
    QN_P_MAX_ITER,
    QN_P_TOL,
    QN_P_FILTER_WISE,
    QN_P_SELECT_TOPK,
    QN_P_NORMALIZE_WEIGHTS,
    QN_P_EPS,
    QN_P_R,
    QN_P_ALPHA,
    QN_P_COUNT
} qn_merge_param;

const char *qn_merge_param_name(qn_merge_param p);
bool qn_merge_param_find(const char *name, qn_merge_param *out);

// Values of parameters after evaluation for one tensor; flags are 0 and 1.
typedef struct qn_merge_params {
    double value[QN_P_COUNT];
    uint32_t given; // bit p: value[p] was in the recipe
} qn_merge_params;
static inline void qn_merge_params_set(qn_merge_params *p, qn_merge_param which, double value)
{
    p->value[which] = value;
    p->given |= (uint32_t)1 << which;
}

// A parameter that a method takes.
typedef struct qn_method_param {
    qn_merge_param param;
    bool of_model; // each model has its own
    bool required;
    double initial;
    bool flag;       // true or false
    double min, max; // both 0: any finite number
} qn_method_param;
#define QN_METHOD_PARAMS 8

// One tensor to be merged.
typedef struct qn_merge_input {
    const char *model; // for messages
    int input;         // slot of the blend
    qn_merge_params params;
} qn_merge_input;

typedef struct qn_merge_job {
    const char *tensor;
    int rank;
    const int64_t *dim;
    uint64_t count;
    const qn_merge_input *models; // in the order of the recipe, the base among them
    size_t model_count;
    int base;               // index in models, -1: none
    qn_merge_params params; // those not of a model
    uint64_t seed;
    const uint8_t *const *masks; // tests: a byte per element instead of random draws, per model
} qn_merge_job;

typedef struct qn_method qn_method;
struct qn_method {
    const char *name;
    const char *title, *link; // for the model card: the paper, its address
    enum { QN_BASE_NONE = 0, QN_BASE_OPTIONAL, QN_BASE_REQUIRED } base;
    size_t models_min, models_max; // beside the base; max 0: any number
    // Tensors of unequal shape: 2-D ones of embedding and head, and all others.
    enum { QN_UNEQUAL_REFUSED = 0, QN_UNEQUAL_CROPPED, QN_UNEQUAL_LIKE_BASE } unequal;
    bool base_counts; // a base that is not listed takes part as a model
    qn_method_param params[QN_METHOD_PARAMS];
    size_t param_count;
    qn_result (*run)(qn_blend *b, const qn_method *method, const qn_merge_job *job);
    // Task-vector methods: how differences are thinned out, and the defaults.
    enum { QN_THIN_NONE = 0, QN_THIN_TOP, QN_THIN_MIDDLE, QN_THIN_RANDOM, QN_THIN_RANKED } thin;
    bool signs;
    bool elementwise; // each element of the result depends on those at its place alone
};

extern const qn_method qn_methods[];
extern const size_t qn_method_count;
const qn_method *qn_method_find(const char *name); // NULL: none
// The method's parameter, NULL: it takes no such one.
const qn_method_param *qn_method_takes(const qn_method *m, qn_merge_param p);

// Whether models and parameters are what the method needs; a sentence with the tensor's name.
qn_result qn_method_check(const qn_method *m, const qn_merge_input *models, size_t count, int base,
                          const qn_merge_params *params, const char *tensor);
// Merges the tensor that lies in the blend: checks models and parameters, fills in defaults, runs.
qn_result qn_method_run(qn_blend *b, const qn_method *m, const qn_merge_job *job);

// For the files that define methods.
double qn_merge_param_of(const qn_method *m, const qn_merge_params *given,
                         qn_merge_param p); // given, or the default
qn_result qn_method_linear(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_passthrough(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_slerp(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_nuslerp(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_multislerp(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_karcher(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_model_stock(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_nearswap(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_task(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_sce(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_arcee(qn_blend *b, const qn_method *m, const qn_merge_job *job);
qn_result qn_method_ram(qn_blend *b, const qn_method *m, const qn_merge_job *job);
// One input unchanged but for the storage, times a factor.
qn_result qn_method_copy(qn_blend *b, int input, double factor);

#endif
