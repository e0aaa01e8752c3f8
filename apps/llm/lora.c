// Adapters in training stores and in files.
#include "lora.h"
#include "fail.h"
#include "io/json.h"
#include "mem.h"
#include "parameters.h"
#include "platform.h"
#include "random.h"

#include <quoin/io.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char a_end[] = ".lora_A", b_end[] = ".lora_B", weight_end[] = ".weight";

double qn_lora_scale(const qn_lora *l)
{
    return l->alpha / (l->stabilised ? sqrt((double)l->rank) : (double)l->rank);
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n > k && !strcmp(s + n - k, end);
}

typedef struct declaring {
    const qn_lora *l;
    qn_store *store;
    size_t count;
} declaring;

static bool is_target(const qn_lora *l, const qn_param_info *p)
{
    if (!ends_with(p->name, weight_end)) return false;
    if (p->kind != QN_PARAM_EXPERT && (p->kind != QN_PARAM_NORMAL || p->shape.rank != 2)) return false;
    for (size_t i = 0; i < l->targets.count; i++)
        if (qn_glob_match(l->targets.patterns[i].glob, p->name)) return true;
    return false;
}

static qn_result declare_one(void *user, const qn_param_info *p)
{
    declaring *d = user;
    const int64_t r = d->l->rank;
    if (!is_target(d->l, p)) return QN_OK;
    const bool stack = p->shape.rank == 3;
    const int64_t *dim = p->shape.dim;
    if (r >= dim[stack] || r >= dim[stack + 1])
        return qn_fail(QN_ERR_INVALID, "rank %lld is no less than a side of %s (%lld x %lld)",
                       (long long)r, p->name, (long long)dim[stack], (long long)dim[stack + 1]);
    char name[192];
    const int n = (int)(strlen(p->name) - strlen(weight_end));
    snprintf(name, sizeof name, "%.*s%s", n, p->name, a_end);
    QN_TRY(qn_store_add(d->store, name, QN_F32,
                        stack ? QN_SHAPE(dim[0], dim[1], r) : QN_SHAPE(r, dim[1])));
    snprintf(name, sizeof name, "%.*s%s", n, p->name, b_end);
    d->count++;
    return qn_store_add(d->store, name, QN_F32,
                        stack ? QN_SHAPE(dim[0], r, dim[2]) : QN_SHAPE(dim[0], r));
}

qn_result qn_lora_declare(const qn_lora *l, const qn_model_config *c, qn_store *store)
{
    declaring d = { .l = l, .store = store };
    for (size_t i = 0; i < l->targets.count; i++)
        if (l->targets.patterns[i].count)
            return qn_fail(QN_ERR_INVALID, "%s#: an adapter belongs to a whole weight",
                           l->targets.patterns[i].glob);
    QN_TRY(qn_parameters(c, declare_one, &d));
    if (d.count) return QN_OK;
    return qn_fail(QN_ERR_INVALID, "no linear weight and no stack of experts matches the adapter's "
                                   "targets");
}

qn_result qn_lora_initialise(qn_store *store, uint64_t seed)
{
    for (size_t i = 0; i < qn_store_count(store); i++) {
        const qn_store_entry *e = qn_store_at(store, i);
        if (!ends_with(e->name, a_end)) continue;
        const size_t n = (size_t)qn_shape_count(e->shape);
        float *x = qn_malloc(n * sizeof *x);
        if (!x) return qn_no_memory(n * sizeof *x);
        const double bound = 1 / sqrt((double)e->shape.dim[1]); // in, for either form
        qn_random rng = qn_random_start(seed, 1u << 20 | i);
        for (size_t k = 0; k < n; k++) x[k] = (float)((2 * qn_random_unit(&rng) - 1) * bound);
        qn_result r = qn_store_write(store, e->name, x, n * sizeof *x);
        qn_free(x);
        QN_TRY(r);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------ files

static const char prefix[] = "base_model.model.";

static bool is_factor(const char *name)
{
    return ends_with(name, a_end) || ends_with(name, b_end);
}

static qn_result save_weights(const qn_store *store, const char *path)
{
    static const qn_st_meta meta[] = { { "format", "pt" } };
    const qn_safetensors_opts opts = { .meta = meta, .meta_count = 1 };
    qn_safetensors_writer *w;
    char name[256];
    QN_TRY(qn_safetensors_create(path, &opts, &w));
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < qn_store_count(store); i++) {
        const qn_store_entry *e = qn_store_at(store, i);
        if (!is_factor(e->name)) continue;
        snprintf(name, sizeof name, "%s%s%s", prefix, e->name, weight_end);
        r = qn_safetensors_add(w, name, QN_ST_F32, e->shape.rank, e->shape.dim);
    }
    const qn_safetensor *t;
    while (r == QN_OK && (r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        snprintf(name, sizeof name, "%.*s",
                 (int)(strlen(t->name) - strlen(prefix) - strlen(weight_end)),
                 t->name + strlen(prefix));
        void *data = qn_malloc((size_t)t->size);
        r = data ? qn_store_read(store, name, data, t->size) : qn_no_memory((size_t)t->size);
        if (r == QN_OK) r = qn_safetensors_write(w, data, t->size);
        qn_free(data);
    }
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

static qn_result save_config(const qn_lora *l, const qn_store *store, const char *path,
                             const char *base)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "peft_type", "LORA");
    qn_json_put_string(&w, "task_type", "CAUSAL_LM");
    qn_json_put_string(&w, "base_model_name_or_path", base);
    qn_json_put_int(&w, "r", l->rank);
    qn_json_put_number(&w, "lora_alpha", l->alpha);
    qn_json_put_number(&w, "lora_dropout", l->dropout);
    qn_json_put_bool(&w, "use_rslora", l->stabilised);
    qn_json_put_bool(&w, "use_dora", false);
    qn_json_put_bool(&w, "fan_in_fan_out", false);
    qn_json_put_string(&w, "bias", "none");
    qn_json_put_array(&w, "target_modules");
    for (size_t i = 0; i < qn_store_count(store); i++) {
        const char *name = qn_store_at(store, i)->name;
        if (!ends_with(name, a_end)) continue;
        char path_of[192];
        snprintf(path_of, sizeof path_of, "%.*s", (int)(strlen(name) - strlen(a_end)), name);
        qn_json_put_string(&w, NULL, path_of);
    }
    qn_json_put_end(&w, ']');
    qn_json_put_bool(&w, "inference_mode", true);
    qn_json_put_end(&w, '}');
    return qn_json_save(&w, path);
}

qn_result qn_lora_save(const qn_lora *l, const qn_store *store, const char *dir, const char *base)
{
    char *config = qn_path_join(dir, "adapter_config.json");
    char *weights = qn_path_join(dir, "adapter_model.safetensors");
    qn_result r = config && weights ? save_config(l, store, config, base) : qn_no_memory(strlen(dir));
    if (r == QN_OK) r = save_weights(store, weights);
    qn_free(config);
    qn_free(weights);
    return r;
}
