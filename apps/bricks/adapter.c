// Reading LoRA adapters and applying them row by row.
#include "adapter.h"

#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "base_model.model."

// How the names of an adapter's tensors end, and what each is.
typedef enum part {
    PART_A,
    PART_B,
    PART_EMBEDDING_A,
    PART_EMBEDDING_B,
    PART_BIAS,
    PART_WHOLE
} part;
static const struct {
    const char *end;
    part is;
} parts[] = {
    { ".lora_A.weight", PART_A },
    { ".lora_B.weight", PART_B },
    { ".lora_embedding_A", PART_EMBEDDING_A },
    { ".lora_embedding_B", PART_EMBEDDING_B },
    { ".lora_B.bias", PART_BIAS },
    { ".weight", PART_WHOLE },
    { ".bias", PART_WHOLE },
};

static qn_adapter_module *module_of(qn_adapter *a, const char *name)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->modules[i].name, name) == 0) return &a->modules[i];
    qn_adapter_module *m = &a->modules[a->count];
    *m = (qn_adapter_module){ .name = qn_strdup(name), .scale = 1 };
    if (!m->name) return NULL;
    a->count++;
    return m;
}

static qn_result read_tensor(qn_adapter *a, const qn_safetensor *t)
{
    const char *name = t->name;
    if (strncmp(name, PREFIX, strlen(PREFIX)) == 0) name += strlen(PREFIX);
    if (strstr(name, "lora_magnitude_vector"))
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: %s: DoRA adapters are not supported", a->dir, name);
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t k = strlen(parts[i].end);
        if (n <= k || strcmp(name + n - k, parts[i].end) != 0) continue;
        char target[512];
        const char *kind = parts[i].is == PART_WHOLE  ? parts[i].end
                           : parts[i].is == PART_BIAS ? ".bias"
                                                      : ".weight";
        snprintf(target, sizeof target, "%.*s%s", (int)(n - k), name, kind);
        qn_adapter_module *m = module_of(a, target);
        if (!m) return qn_no_memory(n);
        m->embedding |= parts[i].is == PART_EMBEDDING_A || parts[i].is == PART_EMBEDDING_B;
        *(parts[i].is == PART_A || parts[i].is == PART_EMBEDDING_A   ? &m->a
          : parts[i].is == PART_B || parts[i].is == PART_EMBEDDING_B ? &m->b
          : parts[i].is == PART_BIAS                                 ? &m->bias
                                                                     : &m->whole) = t;
        return QN_OK;
    }
    return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is no part of a LoRA adapter", a->dir, t->name);
}

// A rank or alpha of its own: the entry whose key is the end of the module's path.
static qn_result own_number(qn_json patterns, const char *path, double *out)
{
    size_t n = strlen(path);
    for (qn_json v = qn_json_first(patterns); v.node; v = qn_json_next(v)) {
        const char *key = qn_json_key(v);
        while (*key == '^') key++;
        size_t k = strlen(key);
        if (k > n || strcmp(path + n - k, key) != 0 || (k < n && path[n - k - 1] != '.')) continue;
        return qn_json_number(v, NULL, 0, 1e9, out);
    }
    return QN_OK;
}

static qn_result settle_module(qn_adapter *a, qn_json config, qn_adapter_module *m)
{
    double alpha, rank;
    bool rslora, transposed;
    qn_json ranks, alphas;
    if (!m->a && !m->b) return QN_OK;
    if (!m->a || !m->b)
        return qn_fail(QN_ERR_FORMAT, "%s: %s has one of lora_A and lora_B only", a->dir, m->name);
    m->stack = m->a->rank == 3 && m->b->rank == 3 && m->a->dim[0] == m->b->dim[0];
    const int64_t inner = m->a->dim[m->stack ? 2 : 0];
    if (!m->stack && (m->a->rank != 2 || m->b->rank != 2)) m->rank = -1;
    if (m->rank < 0 || inner != m->b->dim[1] || inner < 1)
        return qn_fail(QN_ERR_FORMAT, "%s: %s: shapes of lora_A and lora_B do not fit each other",
                       a->dir, m->name);
    char path[512];
    snprintf(path, sizeof path, "%.*s", (int)(strlen(m->name) - strlen(".weight")), m->name);
    m->rank = inner;
    QN_TRY(qn_json_number_or(config, "r", 0, 1e9, (double)m->rank, &rank));
    QN_TRY(qn_json_number_or(config, "lora_alpha", 0, 1e9, rank, &alpha));
    QN_TRY(qn_json_object_or(config, "rank_pattern", &ranks));
    QN_TRY(qn_json_object_or(config, "alpha_pattern", &alphas));
    QN_TRY(qn_json_bool_or(config, "use_rslora", false, &rslora));
    QN_TRY(qn_json_bool_or(config, "fan_in_fan_out", false, &transposed));
    QN_TRY(own_number(ranks, path, &rank));
    QN_TRY(own_number(alphas, path, &alpha));
    if ((int64_t)rank != m->rank)
        return qn_fail(QN_ERR_FORMAT, "%s: %s has rank %lld, but adapter_config.json says %g",
                       a->dir, m->name, (long long)m->rank, rank);
    m->scale = alpha / (rslora ? sqrt(rank) : rank);
    m->transposed = transposed && !m->embedding;
    return QN_OK;
}

static qn_result read_config(qn_adapter *a)
{
    char *path = qn_path_join(a->dir, "adapter_config.json");
    qn_result r = path ? qn_json_open(path, NULL, &a->config) : qn_no_memory(strlen(a->dir));
    qn_free(path);
    QN_TRY(r);
    const char *type;
    bool dora;
    QN_TRY(qn_json_string_or(qn_json_root(a->config), "peft_type", "LORA", &type));
    if (strcmp(type, "LORA") != 0)
        return qn_fail(QN_ERR_UNSUPPORTED,
                       "%s: adapters of type %.40s are not supported, only LORA", a->dir, type);
    QN_TRY(qn_json_bool_or(qn_json_root(a->config), "use_dora", false, &dora));
    if (dora) return qn_fail(QN_ERR_UNSUPPORTED, "%s: DoRA adapters are not supported", a->dir);
    return QN_OK;
}

static qn_result open_weights(qn_adapter *a)
{
    static const char pickle[] = "adapter_model.bin";
    char *path = qn_path_join(a->dir, "adapter_model.safetensors");
    char *old = qn_path_join(a->dir, pickle);
    qn_result r = path && old ? QN_OK : qn_no_memory(strlen(a->dir));
    if (r == QN_OK && !qn_file_exists(path) && qn_file_exists(old))
        r = qn_fail(QN_ERR_UNSUPPORTED,
                    "%s: pickled weights can run code and are not read; convert them to "
                    "safetensors first",
                    old);
    if (r == QN_OK) r = qn_safetensors_open(path, &a->weights);
    qn_free(path);
    qn_free(old);
    return r;
}

static qn_result open_all(qn_adapter *a, const char *dir)
{
    a->dir = qn_strdup(dir);
    if (!a->dir) return qn_no_memory(strlen(dir));
    QN_TRY(read_config(a));
    QN_TRY(open_weights(a));
    size_t count = qn_safetensors_count(a->weights);
    a->modules = qn_calloc(count + 1, sizeof *a->modules);
    if (!a->modules) return qn_no_memory(count * sizeof *a->modules);
    for (size_t i = 0; i < count; i++) QN_TRY(read_tensor(a, qn_safetensors_at(a->weights, i)));
    for (size_t i = 0; i < a->count; i++)
        QN_TRY(settle_module(a, qn_json_root(a->config), &a->modules[i]));
    return QN_OK;
}

qn_result qn_adapter_open(const char *dir, qn_adapter **out)
{
    qn_adapter *a = qn_calloc(1, sizeof *a);
    if (!a) return qn_no_memory(sizeof *a);
    qn_result r = open_all(a, dir);
    if (r == QN_OK)
        *out = a;
    else
        qn_adapter_close(&a);
    return r;
}

void qn_adapter_close(qn_adapter **adapter)
{
    qn_adapter *a = *adapter;
    if (!a) return;
    *adapter = NULL;
    for (size_t i = 0; i < a->count; i++) qn_free(a->modules[i].name);
    qn_free(a->modules);
    qn_safetensors_close(&a->weights);
    qn_json_close(&a->config);
    qn_free(a->dir);
    qn_free(a);
}

const qn_adapter_module *qn_adapter_of(const qn_adapter *a, const char *tensor)
{
    for (size_t i = 0; a && i < a->count; i++)
        if (strcmp(a->modules[i].name, tensor) == 0) return &a->modules[i];
    return NULL;
}

static qn_result check_fit(const qn_adapter *a, const qn_adapter_module *m, const qn_safetensor *w)
{
    bool fits = true;
    if (m->a && m->stack) {
        fits = w->rank == 3 && w->dim[0] == m->a->dim[0] && w->dim[1] == m->a->dim[1] &&
               w->dim[2] == m->b->dim[2];
    } else if (m->a) {
        int64_t in = m->a->dim[1], out = m->b->dim[0];
        bool flip = m->transposed || m->embedding; // rows of W are inputs
        fits = w->rank == 2 && w->dim[0] == (flip ? in : out) && w->dim[1] == (flip ? out : in);
    }
    if (m->whole) fits = fits && m->whole->rank == w->rank && m->whole->count == w->count;
    if (m->bias) fits = fits && m->bias->count == w->count;
    if (fits) return QN_OK;
    return qn_fail(QN_ERR_FORMAT, "%s: %s does not have the shape of the model's tensor", a->dir,
                   m->name);
}

qn_result qn_adapter_bind(const qn_adapter *a, const qn_safetensors *model)
{
    for (size_t i = 0; i < a->count; i++) {
        const qn_safetensor *w = qn_safetensors_find(model, a->modules[i].name);
        if (!w)
            return qn_fail(QN_ERR_FORMAT, "%s: the model has no tensor %s", a->dir,
                           a->modules[i].name);
        QN_TRY(check_fit(a, &a->modules[i], w));
    }
    return QN_OK;
}

// sum[j] += f * row[j] of an f32 row that is read in place.
static qn_result add_row(const qn_safetensor *t, uint64_t first, uint64_t count, double f,
                         float *scratch, double *sum)
{
    QN_TRY(qn_safetensor_f32(t, first, count, scratch));
    for (uint64_t j = 0; j < count; j++) sum[j] += f * (double)scratch[j];
    return QN_OK;
}

// Columns of a factor that a row of W needs: [rank] numbers.
static qn_result column_of(const qn_safetensor *t, uint64_t column, uint64_t rank, float *out)
{
    for (uint64_t k = 0; k < rank; k++)
        QN_TRY(qn_safetensor_f32(t, k * (uint64_t)t->dim[1] + column, 1, &out[k]));
    return QN_OK;
}

// One row of s B A (or of its transpose): the factor whose rows are as long as W's is walked along.
static qn_result add_product(const qn_adapter_module *m, uint64_t row, uint64_t width,
                             float *scratch, double *sum)
{
    uint64_t rank = (uint64_t)m->rank;
    float left[1024], b;
    if (rank > 1024)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: rank %llu, expected at most 1024", m->name,
                       (unsigned long long)rank);
    if (m->stack) {
        const uint64_t first = row / (uint64_t)m->a->dim[1] * rank * width;
        QN_TRY(qn_safetensor_f32(m->a, row * rank, rank, left));
        for (uint64_t k = 0; k < rank; k++)
            QN_TRY(add_row(m->b, first + k * width, width, m->scale * (double)left[k], scratch, sum));
        return QN_OK;
    }
    if (!m->transposed && !m->embedding) {
        QN_TRY(qn_safetensor_f32(m->b, row * rank, rank, left));
        for (uint64_t k = 0; k < rank; k++)
            QN_TRY(add_row(m->a, k * width, width, m->scale * (double)left[k], scratch, sum));
        return QN_OK;
    }
    QN_TRY(column_of(m->a, row, rank, left));
    for (uint64_t j = 0; j < width; j++)
        for (uint64_t k = 0; k < rank; k++) {
            QN_TRY(qn_safetensor_f32(m->b, j * rank + k, 1, &b));
            sum[j] += m->scale * (double)left[k] * (double)b;
        }
    return QN_OK;
}

qn_result qn_adapter_rows(const qn_adapter_module *m, const qn_safetensor *w, uint64_t first,
                          uint64_t count, float *out)
{
    uint64_t width = w->rank > 1 ? (uint64_t)w->dim[w->rank - 1] : w->count;
    double *sum = qn_malloc((size_t)width * (sizeof *sum + sizeof(float)));
    if (!sum) return qn_no_memory((size_t)width * sizeof *sum);
    float *scratch = (float *)(void *)(sum + width);
    qn_result r = QN_OK;
    for (uint64_t i = 0; r == QN_OK && i < count; i++) {
        memset(sum, 0, (size_t)width * sizeof *sum);
        uint64_t at = (first + i) * width;
        r = add_row(m->whole ? m->whole : w, at, width, 1, scratch, sum);
        if (r == QN_OK && m->a) r = add_product(m, first + i, width, scratch, sum);
        if (r == QN_OK && m->bias) r = add_row(m->bias, at, width, 1, scratch, sum);
        for (uint64_t j = 0; r == QN_OK && j < width; j++) out[i * width + j] = (float)sum[j];
    }
    qn_free(sum);
    return r;
}
