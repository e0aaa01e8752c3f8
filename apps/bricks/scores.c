// Reading saved scores.
#include "scores.h"
#include "fail.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

qn_result qn_scores_function(const qn_safetensors *s, const char *path, const char *name, int *out)
{
    size_t count;
    const qn_st_meta *meta = qn_safetensors_meta(s, &count);
    const char *names = NULL;
    for (size_t i = 0; i < count; i++)
        if (!strcmp(meta[i].key, "functions")) names = meta[i].value;
    if (!names)
        return qn_fail(QN_ERR_FORMAT, "%s names no functions; `bricks analyse --save-scores` writes "
                                      "such a file", path);
    *out = 0;
    for (const char *at = names; *at; ++*out) {
        const size_t n = strcspn(at, ",");
        if (n == strlen(name) && !strncmp(at, name, n)) return QN_OK;
        at += n + (at[n] == ',');
    }
    return qn_fail(QN_ERR_INVALID, "%s has no function %.80s, only %.200s", path, name, names);
}

static qn_result find(const qn_safetensors *s, const char *path, int64_t layer, const char *what,
                      size_t neurons, const qn_safetensor **out)
{
    char name[64];
    snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, what);
    *out = qn_safetensors_find(s, name);
    if (!*out) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", path, name);
    if ((*out)->rank != 2 || (size_t)(*out)->dim[1] != neurons || (*out)->dtype != QN_ST_F32)
        return qn_fail(QN_ERR_INVALID, "%s: %s does not belong to a model with %zu neurons a layer",
                       path, name, neurons);
    return QN_OK;
}

qn_result qn_scores_layer(const qn_safetensors *s, const char *path, int64_t layer, int function,
                          size_t neurons, float **out)
{
    const qn_safetensor *t;
    *out = NULL;
    QN_TRY(find(s, path, layer, "score", neurons, &t));
    if (function >= t->dim[0])
        return qn_fail(QN_ERR_FORMAT, "%s: %s has %lld functions", path, t->name,
                       (long long)t->dim[0]);
    float *x = qn_malloc(neurons * sizeof *x);
    if (!x) return qn_no_memory(neurons * sizeof *x);
    *out = x;
    return qn_safetensor_f32(t, (uint64_t)function * neurons, neurons, x);
}

qn_result qn_scores_mean(const qn_safetensors *s, const char *path, int64_t layer, size_t neurons,
                         float **out)
{
    const qn_safetensor *t;
    *out = NULL;
    QN_TRY(find(s, path, layer, "mean", neurons, &t));
    float *x = qn_calloc(neurons, sizeof *x), *row = qn_malloc(neurons * sizeof *row);
    qn_result r = x && row ? QN_OK : qn_no_memory(neurons * sizeof *x);
    for (int64_t i = 0; r == QN_OK && i < t->dim[0]; i++) {
        r = qn_safetensor_f32(t, (uint64_t)i * neurons, neurons, row);
        for (size_t n = 0; n < neurons; n++) x[n] += row[n] / (float)t->dim[0];
    }
    qn_free(row);
    if (r == QN_OK)
        *out = x;
    else
        qn_free(x);
    return r;
}
