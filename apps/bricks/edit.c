// Writing changed copies of model folders.
#include "edit.h"
#include "fail.h"
#include "io/json.h"
#include "half.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct setting {
    const char *key;
    int64_t value;
    bool is_bool, is_text, done;
    const char *text;
    const char *const *words; // a list of `value` of them
} setting;

enum { SETTINGS = 16 };

struct qn_edit {
    const qn_brick_model *m;
    char *out, *partial;
    qn_arena mem;
    qn_edit_tensor *tensors;
    size_t count, capacity;
    setting settings[SETTINGS];
    size_t setting_count;
};

static bool holds_something(const char *dir)
{
    char **names;
    size_t count;
    if (!qn_file_exists(dir)) return false;
    if (qn_list_dir(dir, &names, &count) != QN_OK) return true; // a file
    qn_free_names(names, count);
    return count > 0;
}

static qn_result start(qn_edit *e)
{
    if (qn_same_file(e->m->dir, e->out))
        return qn_fail(QN_ERR_INVALID, "%s is the input; the result needs a folder of its own",
                       e->out);
    if (holds_something(e->out))
        return qn_fail(QN_ERR_INVALID, "%s exists already and is not empty", e->out);
    for (size_t i = 0; i < qn_safetensors_count(e->m->weights); i++) {
        const qn_safetensor *s = qn_safetensors_at(e->m->weights, i);
        qn_edit_tensor *t;
        QN_TRY(qn_edit_add(e, s->name, s->dtype, s->rank, s->dim, &t));
        t->source = s;
    }
    return QN_OK;
}

qn_result qn_edit_start(const qn_brick_model *m, const char *out, qn_edit **edit)
{
    qn_edit *e = qn_calloc(1, sizeof *e);
    *edit = NULL;
    if (!e) return qn_no_memory(sizeof *e);
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    e->m = m;
    e->out = qn_strndup(out, n);
    e->partial = e->out ? qn_arena_printf(&e->mem, "%s.partial", e->out) : NULL;
    qn_result r = e->out && e->partial ? start(e) : qn_no_memory(n);
    if (r == QN_OK)
        *edit = e;
    else
        qn_edit_free(&e);
    return r;
}

void qn_edit_free(qn_edit **edit)
{
    qn_edit *e = *edit;
    *edit = NULL;
    if (!e) return;
    qn_free(e->tensors);
    qn_free(e->out);
    qn_arena_free(&e->mem);
    qn_free(e);
}

qn_edit_tensor *qn_edit_find(qn_edit *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++)
        if (!strcmp(e->tensors[i].name, name)) return &e->tensors[i];
    return NULL;
}

qn_edit_tensor *qn_edit_at(qn_edit *e, size_t i)
{
    return i < e->count ? &e->tensors[i] : NULL;
}

qn_result qn_edit_add(qn_edit *e, const char *name, qn_st_dtype dtype, int rank, const int64_t *dim,
                      qn_edit_tensor **out)
{
    QN_TRY(qn_grow((void **)&e->tensors, &e->capacity, e->count + 1, sizeof *e->tensors));
    char *copy = qn_arena_printf(&e->mem, "%s", name);
    if (!copy) return qn_no_memory(strlen(name));
    qn_edit_tensor *t = &e->tensors[e->count++];
    *t = (qn_edit_tensor){ .name = copy, .dtype = dtype, .rank = rank,
                           .layer = qn_brick_layer_of(name) };
    memcpy(t->dim, dim, (size_t)rank * sizeof *dim);
    if (out) *out = t;
    return QN_OK;
}

void qn_edit_remove(qn_edit *e, const char *name)
{
    qn_edit_tensor *t = qn_edit_find(e, name);
    if (!t) return;
    const size_t behind = e->count - (size_t)(t - e->tensors) - 1;
    memmove(t, t + 1, behind * sizeof *t);
    e->count--;
}

void *qn_edit_keep(qn_edit *e, size_t size)
{
    return qn_arena_alloc(&e->mem, size);
}

static qn_result add_setting(qn_edit *e, setting s)
{
    if (e->setting_count == SETTINGS)
        return qn_fail(QN_ERR_INVALID, "more than %d changes of config.json", SETTINGS);
    e->settings[e->setting_count++] = s;
    return QN_OK;
}

qn_result qn_edit_set(qn_edit *e, const char *key, int64_t value)
{
    return add_setting(e, (setting){ .key = key, .value = value });
}

qn_result qn_edit_set_bool(qn_edit *e, const char *key, bool value)
{
    return add_setting(e, (setting){ .key = key, .value = value, .is_bool = true });
}

qn_result qn_edit_set_text(qn_edit *e, const char *key, const char *text)
{
    return add_setting(e, (setting){ .key = key, .text = text, .is_text = true });
}

qn_result qn_edit_set_words(qn_edit *e, const char *key, const char *const *words, int64_t count)
{
    return add_setting(e, (setting){ .key = key, .value = count, .words = words });
}

const char *qn_edit_shape(const qn_edit_tensor *t, char *text, size_t size)
{
    size_t at = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < t->rank && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, i ? ",%lld" : "%lld", (long long)t->dim[i]);
    if (at < size) snprintf(text + at, size - at, "]");
    return text;
}

// ------------------------------------------------------------------------------ writing

static void put_setting(qn_json_writer *w, setting *s)
{
    if (s->words) {
        qn_json_put_array(w, s->key);
        for (int64_t i = 0; i < s->value; i++) qn_json_put_string(w, NULL, s->words[i]);
        qn_json_put_end(w, ']');
    } else if (s->is_text && s->text)
        qn_json_put_string(w, s->key, s->text);
    else if (s->is_text)
        qn_json_put_null(w, s->key);
    else if (s->is_bool)
        qn_json_put_bool(w, s->key, s->value != 0);
    else
        qn_json_put_int(w, s->key, s->value);
    s->done = true;
}

static qn_result write_config(qn_edit *e)
{
    char *from = qn_path_join(e->m->dir, "config.json");
    char *to = qn_path_join(e->partial, "config.json");
    qn_json_doc *doc = NULL;
    qn_result r = from && to ? qn_json_open(from, NULL, &doc) : qn_no_memory(64);
    qn_json_writer w = { 0 };
    if (r == QN_OK) {
        qn_json_put_object(&w, NULL);
        for (qn_json v = qn_json_first(qn_json_root(doc)); v.node; v = qn_json_next(v)) {
            setting *own = NULL;
            for (size_t i = 0; i < e->setting_count; i++)
                if (!strcmp(e->settings[i].key, qn_json_key(v))) own = &e->settings[i];
            if (own)
                put_setting(&w, own);
            else
                qn_json_put_value(&w, qn_json_key(v), v);
        }
        for (size_t i = 0; i < e->setting_count; i++)
            if (!e->settings[i].done) put_setting(&w, &e->settings[i]);
        qn_json_put_end(&w, '}');
        r = qn_json_save(&w, to);
    }
    qn_json_close(&doc);
    qn_free(from);
    qn_free(to);
    return r;
}

static qn_result copy_file(const qn_edit *e, const char *name)
{
    char *from = qn_path_join(e->m->dir, name), *to = qn_path_join(e->partial, name);
    qn_result r = from && to ? QN_OK : qn_no_memory(strlen(name));
    if (r == QN_OK && qn_file_exists(from)) {
        qn_mapping map;
        r = qn_map_file(from, &map);
        if (r == QN_OK) {
            r = qn_write_file(to, map.data, (size_t)map.size);
            qn_unmap_file(&map);
        }
    }
    qn_free(from);
    qn_free(to);
    return r;
}

static qn_result write_values(qn_safetensors_writer *w, const qn_edit_tensor *t, uint64_t count,
                              uint64_t size)
{
    float *x = qn_malloc((size_t)count * sizeof *x + 1);
    if (!x) return qn_no_memory((size_t)count * sizeof *x);
    qn_result r = qn_context_add(t->make(t->user, t, x), "%s", t->name);
    char *bytes = (char *)x; // 16-bit values overwrite what was read already
    for (uint64_t i = 0; r == QN_OK && t->dtype != QN_ST_F32 && i < count; i++) {
        float value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        const uint16_t h = t->dtype == QN_ST_F16 ? qn_f16_from_f32(value) : qn_bf16_from_f32(value);
        memcpy(bytes + i * sizeof h, &h, sizeof h);
    }
    if (r == QN_OK) r = qn_safetensors_write(w, bytes, size);
    qn_free(x);
    return r;
}

static qn_result write_one(const qn_edit *e, qn_safetensors_writer *w, const qn_safetensor *due)
{
    const qn_edit_tensor *t = qn_edit_find((qn_edit *)e, due->name);
    if (t->make) return write_values(w, t, due->count, due->size);
    if (!t->source || t->source->size != due->size)
        return qn_fail(QN_ERR_INVALID, "%s: there is nothing to fill it with", t->name);
    return qn_safetensors_write(w, t->source->data, due->size);
}

static qn_result write_tensors(qn_edit *e, uint64_t shard_limit)
{
    static const qn_st_meta meta[] = { { "format", "pt" } };
    char *path = qn_path_join(e->partial, "model.safetensors");
    qn_safetensors_opts opts = { .meta = meta, .meta_count = 1, .shard_limit = shard_limit };
    qn_safetensors_writer *w = NULL;
    qn_result r = path ? qn_safetensors_create(path, &opts, &w) : qn_no_memory(64);
    qn_free(path);
    for (size_t i = 0; r == QN_OK && i < e->count; i++) {
        const qn_edit_tensor *t = &e->tensors[i];
        if (t->make && t->dtype != QN_ST_F32 && t->dtype != QN_ST_F16 && t->dtype != QN_ST_BF16)
            r = qn_fail(QN_ERR_UNSUPPORTED, "%s: type %s, expected F32, F16 or BF16", t->name,
                        qn_st_dtype_name(t->dtype));
        if (r == QN_OK) r = qn_safetensors_add(w, t->name, t->dtype, t->rank, t->dim);
    }
    const qn_safetensor *due = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(w, &due)) == QN_OK && due)
        r = write_one(e, w, due);
    if (!w) return r;
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

qn_result qn_edit_write(qn_edit *e, uint64_t shard_limit)
{
    static const char *const files[] = { "tokenizer.json", "tokenizer_config.json", "vocab.json",
                                         "merges.txt", "added_tokens.json", "tokenizer.model",
                                         "special_tokens_map.json", "chat_template.jinja",
                                         "generation_config.json" };
    qn_result r = qn_remove_tree(e->partial); // what an interrupted run left
    if (r == QN_OK) r = qn_make_dirs(e->partial);
    if (r == QN_OK) r = write_config(e);
    for (size_t i = 0; r == QN_OK && i < sizeof files / sizeof *files; i++)
        r = copy_file(e, files[i]);
    if (r == QN_OK) r = write_tensors(e, shard_limit);
    if (r == QN_OK && holds_something(e->out))
        r = qn_fail(QN_ERR_INVALID, "%s exists already and is not empty", e->out);
    if (r == QN_OK) r = qn_rename(e->partial, e->out);
    if (r == QN_OK) return r;
    char why[1024];
    snprintf(why, sizeof why, "%s", qn_error_message());
    qn_remove_tree(e->partial);
    return qn_fail(r, "%s", why);
}
