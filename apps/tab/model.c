// The model file.
#include "tab/model.h"
#include "fail.h"
#include "io/json.h"

#include <math.h>
#include <quoin/io.h>
#include <stdio.h>
#include <string.h>

enum { FORMAT = 1 };
static const char meta_key[] = "quoin.tab";

void qn_tab_model_free(qn_tab_model *m)
{
    for (size_t i = 0; i < m->net_count; i++) qn_tab_net_free(&m->nets[i]);
    qn_free(m->nets);
    qn_tab_prep_free(&m->prep);
    memset(m, 0, sizeof *m);
}

// ------------------------------------------------------------------------------ writing

static void put_column(qn_json_writer *w, const qn_tab_column *c)
{
    qn_json_put_object(w, NULL);
    qn_json_put_string(w, "name", c->name);
    if (c->categorical) {
        qn_json_put_array(w, "levels");
        for (size_t i = 0; i < c->level_count; i++) qn_json_put_string(w, NULL, c->levels[i]);
        qn_json_put_end(w, ']');
    } else {
        qn_json_put_number(w, "median", c->median);
    }
    qn_json_put_end(w, '}');
}

static void put_numbers(qn_json_writer *w, const char *key, const double *v, size_t count)
{
    qn_json_put_array(w, key);
    for (size_t i = 0; i < count; i++) qn_json_put_number(w, NULL, v[i]);
    qn_json_put_end(w, ']');
}

static void put_model(qn_json_writer *w, const qn_tab_model *m)
{
    const qn_tab_prep *p = m->prep;
    const qn_tab_settings *s = &m->settings;
    qn_json_put_object(w, NULL);
    qn_json_put_int(w, "format", FORMAT);
    qn_json_put_string(w, "made_by", qn_version());
    qn_json_put_string(w, "label", p->label);
    qn_json_put_bool(w, "regression", p->regression);
    if (p->regression) {
        qn_json_put_number(w, "target_mean", p->target_mean);
        qn_json_put_number(w, "target_deviation", p->target_deviation);
    } else {
        qn_json_put_array(w, "classes");
        for (int i = 0; i < p->class_count; i++) qn_json_put_string(w, NULL, p->classes[i]);
        qn_json_put_end(w, ']');
        qn_json_put_number(w, "temperature", m->temperature);
    }
    qn_json_put_array(w, "columns");
    for (size_t i = 0; i < p->column_count; i++) put_column(w, &p->columns[i]);
    qn_json_put_end(w, ']');
    put_numbers(w, "mean", p->mean, p->features);
    put_numbers(w, "deviation", p->deviation, p->features);
    qn_json_put_object(w, "settings");
    qn_json_put_number(w, "subsample", s->subsample);
    qn_json_put_int(w, "hidden", s->hidden);
    qn_json_put_int(w, "depth", s->depth);
    qn_json_put_int(w, "views", s->views);
    qn_json_put_int(w, "views_per_step", s->views_per_step);
    qn_json_put_int(w, "epochs", s->epochs);
    qn_json_put_int(w, "batch", s->batch);
    qn_json_put_number(w, "rate", s->rate);
    qn_json_put_bool(w, "even", s->even);
    qn_json_put_bool(w, "balance", s->balance);
    qn_json_put_bool(w, "anneal", s->anneal);
    qn_json_put_end(w, '}');
    qn_json_put_int(w, "seed", (int64_t)m->seed);
    if (isfinite(m->inner_score)) qn_json_put_number(w, "inner_score", m->inner_score);
    qn_json_put_bool(w, "stopped", m->stopped);
    qn_json_put_int(w, "networks", (int64_t)m->net_count);
    qn_json_put_int(w, "chosen", m->nets[0].chosen);
    qn_json_put_end(w, '}');
}

static qn_result send(qn_safetensors_writer *w, const qn_tab_model *m)
{
    const qn_safetensor *t;
    qn_result r;
    while ((r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        size_t i = 0;
        char what[32];
        if (sscanf(t->name, "network.%zu.%31s", &i, what) != 2) i = 0;
        const void *data = !strcmp(what, "views") ? (const void *)m->nets[i].view_columns
                                                  : (const void *)m->nets[i].theta;
        r = qn_safetensors_write(w, data, t->size);
        if (r != QN_OK) return r;
    }
    return r;
}

qn_result qn_tab_model_save(const qn_tab_model *m, const char *path)
{
    qn_json_writer json = { .compact = true };
    put_model(&json, m);
    qn_result r = json.status;
    char *text = r == QN_OK ? qn_strndup(json.text, json.size) : NULL;
    if (r == QN_OK && !text) r = qn_no_memory(json.size);
    qn_json_writer_free(&json);
    qn_st_meta meta = { meta_key, text };
    qn_safetensors_opts opts = { .meta = &meta, .meta_count = 1 };
    qn_safetensors_writer *w = NULL;
    if (r == QN_OK) r = qn_safetensors_create(path, &opts, &w);
    for (size_t i = 0; r == QN_OK && i < m->net_count; i++) {
        const qn_tab_net *n = &m->nets[i];
        char name[64];
        snprintf(name, sizeof name, "network.%zu.parameters", i);
        r = qn_safetensors_add(w, name, QN_ST_F32, 1, (int64_t[]){ n->parameters });
        snprintf(name, sizeof name, "network.%zu.views", i);
        if (r == QN_OK)
            r = qn_safetensors_add(w, name, QN_ST_I32, 2, (int64_t[]){ n->views, n->chosen });
    }
    if (r == QN_OK) r = send(w, m);
    if (r == QN_OK)
        r = qn_safetensors_commit(&w);
    else
        qn_safetensors_abandon(&w);
    qn_free(text);
    return r;
}

// ------------------------------------------------------------------------------ reading

static qn_result get_strings(qn_arena *arena, qn_json v, const char *key, const char ***out,
                             size_t *count)
{
    qn_json list;
    QN_TRY(qn_json_array(v, key, &list));
    *count = 0;
    *out = qn_arena_alloc(arena, (qn_json_count(list) + 1) * sizeof **out);
    if (!*out) return qn_no_memory(sizeof **out);
    for (qn_json i = qn_json_first(list); i.node; i = qn_json_next(i)) {
        const char *s;
        QN_TRY(qn_json_string(i, NULL, &s));
        (*out)[*count] = qn_arena_printf(arena, "%s", s);
        if (!(*out)[(*count)++]) return qn_no_memory(strlen(s));
    }
    return QN_OK;
}

static qn_result get_numbers(qn_arena *arena, qn_json v, const char *key, size_t expected,
                             bool positive, double **out)
{
    qn_json list;
    QN_TRY(qn_json_array(v, key, &list));
    if (qn_json_count(list) != expected)
        return qn_json_fail(list, "%zu numbers, expected %zu", qn_json_count(list), expected);
    *out = qn_arena_alloc(arena, (expected + 1) * sizeof **out);
    if (!*out) return qn_no_memory(expected * sizeof **out);
    double *to = *out;
    for (qn_json i = qn_json_first(list); i.node; i = qn_json_next(i))
        QN_TRY(qn_json_number(i, NULL, positive ? 1e-300 : -1e300, 1e300, to++));
    return QN_OK;
}

static qn_result get_columns(qn_tab_prep *p, qn_json root)
{
    qn_json list;
    QN_TRY(qn_json_array(root, "columns", &list));
    p->columns = qn_arena_alloc(&p->arena, (qn_json_count(list) + 1) * sizeof *p->columns);
    if (!p->columns) return qn_no_memory(sizeof *p->columns);
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) {
        qn_tab_column *c = &p->columns[p->column_count++];
        const char *name;
        QN_TRY(qn_json_string(v, "name", &name));
        c->name = qn_arena_printf(&p->arena, "%s", name);
        if (!c->name) return qn_no_memory(strlen(name));
        c->categorical = qn_json_find(v, "levels").node != NULL;
        if (c->categorical)
            QN_TRY(get_strings(&p->arena, v, "levels", &c->levels, &c->level_count));
        else
            QN_TRY(qn_json_number(v, "median", -1e300, 1e300, &c->median));
        c->first = p->features;
        c->count = c->categorical ? c->level_count : 1;
        p->features += c->count;
    }
    if (!p->features || p->features > QN_TAB_MOST_COLUMNS)
        return qn_json_fail(list, "%zu features, expected 1 to %d", p->features, QN_TAB_MOST_COLUMNS);
    return QN_OK;
}

static qn_result get_settings(qn_json root, qn_tab_settings *s)
{
    qn_json v;
    QN_TRY(qn_json_object(root, "settings", &v));
    const struct {
        const char *key;
        int *to;
        int64_t most;
    } ints[] = { { "hidden", &s->hidden, QN_TARGET_MAX_HIDDEN },
                 { "depth", &s->depth, QN_TARGET_MAX_DEPTH },
                 { "views", &s->views, 65535 },
                 { "views_per_step", &s->views_per_step, 65535 },
                 { "epochs", &s->epochs, 1000000 },
                 { "batch", &s->batch, 1000000 } };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t x;
        QN_TRY(qn_json_int(v, ints[i].key, 1, ints[i].most, &x));
        *ints[i].to = (int)x;
    }
    QN_TRY(qn_json_number(v, "subsample", 0, 1, &s->subsample));
    QN_TRY(qn_json_number(v, "rate", 0, 1e9, &s->rate));
    QN_TRY(qn_json_bool(v, "even", &s->even));
    QN_TRY(qn_json_bool(v, "balance", &s->balance));
    return qn_json_bool(v, "anneal", &s->anneal);
}

static qn_result get_model(qn_json root, qn_tab_model *m, int64_t *chosen)
{
    qn_tab_prep *p = m->prep;
    int64_t format, seed, networks;
    const char *label;
    QN_TRY(qn_json_int(root, "format", 1, 1 << 30, &format));
    if (format != FORMAT)
        return qn_json_fail(root, "format %lld of another version of quoin, expected %d",
                            (long long)format, FORMAT);
    QN_TRY(qn_json_string(root, "label", &label));
    p->label = qn_arena_printf(&p->arena, "%s", label);
    if (!p->label) return qn_no_memory(strlen(label));
    QN_TRY(qn_json_bool(root, "regression", &p->regression));
    m->temperature = 1;
    if (p->regression) {
        QN_TRY(qn_json_number(root, "target_mean", -1e300, 1e300, &p->target_mean));
        QN_TRY(qn_json_number(root, "target_deviation", 1e-300, 1e300, &p->target_deviation));
    } else {
        size_t classes;
        QN_TRY(get_strings(&p->arena, root, "classes", &p->classes, &classes));
        if (classes < 2 || classes > QN_TAB_MOST_CLASSES)
            return qn_json_fail(root, "%zu classes, expected 2 to %d", classes, QN_TAB_MOST_CLASSES);
        p->class_count = (int)classes;
        QN_TRY(qn_json_number(root, "temperature", 1e-3, 1e3, &m->temperature));
    }
    QN_TRY(get_columns(p, root));
    QN_TRY(get_numbers(&p->arena, root, "mean", p->features, false, &p->mean));
    QN_TRY(get_numbers(&p->arena, root, "deviation", p->features, true, &p->deviation));
    QN_TRY(get_settings(root, &m->settings));
    QN_TRY(qn_json_int(root, "seed", 0, QN_JSON_INT_MAX, &seed));
    QN_TRY(qn_json_number_or(root, "inner_score", -1e300, 1e300, NAN, &m->inner_score));
    QN_TRY(qn_json_bool(root, "stopped", &m->stopped));
    QN_TRY(qn_json_int(root, "networks", 1, 1000, &networks));
    QN_TRY(qn_json_int(root, "chosen", 1, (int64_t)p->features, chosen));
    m->seed = (uint64_t)seed;
    m->nets = qn_calloc((size_t)networks, sizeof *m->nets);
    if (!m->nets) return qn_no_memory((size_t)networks * sizeof *m->nets);
    m->net_count = (size_t)networks;
    return QN_OK;
}

static qn_result need(const qn_safetensors *s, const char *path, const char *name, uint64_t count,
                      const qn_safetensor **out)
{
    *out = qn_safetensors_find(s, name);
    if (!*out) return qn_fail(QN_ERR_FORMAT, "%s: tensor %s is missing", path, name);
    if ((*out)->count != count)
        return qn_fail(QN_ERR_FORMAT, "%s: tensor %s has %llu elements, expected %llu", path, name,
                       (unsigned long long)(*out)->count, (unsigned long long)count);
    return QN_OK;
}

static qn_result get_net(const qn_safetensors *s, const char *path, const qn_tab_model *m, size_t i,
                         int64_t chosen, qn_tab_net *n)
{
    const qn_safetensor *theta, *views;
    char name[64];
    n->net = (qn_target_net){ m->settings.hidden, m->settings.depth,
                              m->prep->regression ? 1 : m->prep->class_count };
    n->columns = (int64_t)m->prep->features;
    n->chosen = chosen;
    n->views = m->settings.views;
    n->parameters = qn_tab_parameters(n);
    uint64_t entries = (uint64_t)n->views * (uint64_t)chosen;
    snprintf(name, sizeof name, "network.%zu.parameters", i);
    QN_TRY(need(s, path, name, (uint64_t)n->parameters, &theta));
    snprintf(name, sizeof name, "network.%zu.views", i);
    QN_TRY(need(s, path, name, entries, &views));
    n->theta = qn_malloc((size_t)n->parameters * sizeof *n->theta);
    n->view_columns = qn_malloc((size_t)entries * sizeof *n->view_columns);
    int64_t *wide = qn_malloc((size_t)entries * sizeof *wide);
    qn_result r = n->theta && n->view_columns && wide ? QN_OK : qn_no_memory((size_t)entries * 8);
    if (r == QN_OK) r = qn_safetensor_f32(theta, 0, theta->count, n->theta);
    if (r == QN_OK) r = qn_safetensor_i64(views, 0, entries, wide);
    for (uint64_t k = 0; r == QN_OK && k < entries; k++) {
        bool ascends = k % (uint64_t)chosen == 0 || wide[k] > wide[k - 1];
        if (wide[k] < 0 || wide[k] >= n->columns || !ascends)
            r = qn_fail(QN_ERR_FORMAT, "%s: tensor %s holds column %lld, expected ascending ones "
                                       "below %lld",
                        path, name, (long long)wide[k], (long long)n->columns);
        n->view_columns[k] = (int32_t)wide[k];
    }
    for (int64_t k = 0; r == QN_OK && k < n->parameters; k++)
        if (!isfinite(n->theta[k]))
            r = qn_fail(QN_ERR_FORMAT, "%s: a parameter of network %zu is not finite", path, i);
    qn_free(wide);
    return r;
}

qn_result qn_tab_model_load(const char *path, qn_tab_model *m)
{
    qn_safetensors *s = NULL;
    qn_json_doc *doc = NULL;
    int64_t chosen = 0;
    memset(m, 0, sizeof *m);
    QN_TRY(qn_safetensors_open(path, &s));
    size_t count;
    const qn_st_meta *meta = qn_safetensors_meta(s, &count);
    const char *text = NULL;
    for (size_t i = 0; i < count; i++)
        if (!strcmp(meta[i].key, meta_key)) text = meta[i].value;
    qn_result r = text ? qn_json_parse(path, text, strlen(text), NULL, &doc)
                       : qn_fail(QN_ERR_FORMAT, "%s: no model for tables (its metadata lacks %s)",
                                 path, meta_key);
    if (r == QN_OK && !(m->prep = qn_calloc(1, sizeof *m->prep))) r = qn_no_memory(sizeof *m->prep);
    if (r == QN_OK) r = get_model(qn_json_root(doc), m, &chosen);
    for (size_t i = 0; r == QN_OK && i < m->net_count; i++)
        r = get_net(s, path, m, i, chosen, &m->nets[i]);
    qn_json_close(&doc);
    qn_safetensors_close(&s);
    if (r != QN_OK) qn_tab_model_free(m);
    return r;
}
