// The training state: weights, moments and position in one file, so that it is whole or absent.
#include "train.h"
#include "fail.h"
#include "mem.h"
#include "parameters.h"
#include "platform.h"

#include <quoin/io.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STORES = 4 };
static const char *const prefixes[STORES] = { "weights.", "mean.", "square.", "memory." };

// How many there are; the last is missing where nothing is remembered from step to step.
static size_t stores_of(qn_trainer *t, qn_store *stores[STORES])
{
    stores[0] = qn_trainer_weights(t);
    stores[1] = qn_trainer_moments(t, 0);
    stores[2] = qn_trainer_moments(t, 1);
    stores[3] = qn_trainer_remembered(t);
    return stores[3] ? STORES : STORES - 1;
}

static char *state_path(const char *dir)
{
    return qn_path_join(dir, "training-state.safetensors");
}

bool qn_state_exists(const char *dir)
{
    char *path = state_path(dir);
    bool exists = path && qn_file_exists(path);
    qn_free(path);
    return exists;
}

qn_result qn_state_save(const char *dir, const qn_train_state *s, qn_trainer *t)
{
    char step[32], steps[32];
    snprintf(step, sizeof step, "%lld", (long long)s->step);
    snprintf(steps, sizeof steps, "%lld", (long long)s->steps);
    const qn_st_meta meta[] = {
        { "format", "quoin training state 1" },
        { "fingerprint", s->fingerprint },
        { "step", step },
        { "steps", steps },
    };
    qn_store *stores[STORES];
    const size_t count = stores_of(t, stores);
    char *path = state_path(dir);
    if (!path) return qn_no_memory(strlen(dir));
    qn_result r = qn_store_write_file((const qn_store *const *)stores, prefixes, count, path, meta,
                                      sizeof meta / sizeof *meta);
    qn_free(path);
    return r;
}

static const char *meta_value(const qn_safetensors *f, const char *key)
{
    size_t count;
    const qn_st_meta *meta = qn_safetensors_meta(f, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(meta[i].key, key) == 0) return meta[i].value;
    return NULL;
}

static qn_result read_number(const qn_safetensors *f, const char *key, int64_t *out)
{
    const char *text = meta_value(f, key);
    char *end = NULL;
    long long value = text ? strtoll(text, &end, 10) : -1;
    const long long most = 1000000000000000; // steps times windows stay far from overflow
    if (!text || end == text || *end || value < 0 || value > most)
        return qn_fail(QN_ERR_FORMAT, "metadata %s: found \"%s\", expected a count", key,
                       text ? text : "nothing");
    *out = value;
    return QN_OK;
}

// Fingerprints are lines "name = value"; names the first line that differs.
static qn_result compare_fingerprints(const char *found, const char *expected)
{
    while (*found && *expected) {
        size_t n = strcspn(found, "\n"), m = strcspn(expected, "\n");
        if (n != m || memcmp(found, expected, n) != 0)
            return qn_fail(QN_ERR_INVALID,
                           "it was made with %.*s, this run has %.*s; repeat the options of "
                           "before, or train anew with --fresh or another --out",
                           (int)n, found, (int)m, expected);
        found += n + (found[n] == '\n');
        expected += m + (expected[m] == '\n');
    }
    if (*found || *expected)
        return qn_fail(QN_ERR_INVALID, "it was made by another version; train anew with --fresh");
    return QN_OK;
}

static qn_result load_tensors(const qn_safetensors *f, qn_trainer *t)
{
    qn_store *stores[STORES];
    const size_t count = stores_of(t, stores);
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < qn_store_count(stores[s]); i++) {
            const qn_store_entry *e = qn_store_at(stores[s], i);
            char name[256];
            snprintf(name, sizeof name, "%s%s", prefixes[s], e->name);
            const qn_safetensor *x = qn_safetensors_find(f, name);
            if (!x || x->dtype != QN_ST_F32 || x->size != e->size)
                return qn_fail(QN_ERR_FORMAT, "tensor %s is missing or has another size", name);
            QN_TRY(qn_store_write(stores[s], e->name, x->data, e->size));
        }
    return QN_OK;
}

static qn_result load(const qn_safetensors *f, const char *expected, qn_train_state *s,
                      qn_trainer *t)
{
    const char *found = meta_value(f, "fingerprint");
    if (!found) return qn_fail(QN_ERR_FORMAT, "it is not a training state");
    QN_TRY(compare_fingerprints(found, expected));
    QN_TRY(read_number(f, "step", &s->step));
    QN_TRY(read_number(f, "steps", &s->steps));
    return load_tensors(f, t);
}

qn_result qn_state_load(const char *dir, const char *expected, qn_train_state *s, qn_trainer *t)
{
    char *path = state_path(dir);
    if (!path) return qn_no_memory(strlen(dir));
    qn_safetensors *f = NULL;
    qn_result r = qn_safetensors_open(path, &f);
    if (r == QN_OK) r = qn_context_add(load(f, expected, s, t), "%s", path);
    qn_safetensors_close(&f);
    qn_free(path);
    return r;
}
