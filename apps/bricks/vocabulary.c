// Vocabularies: reading, uniting, and rows of embeddings in their order.
#include "vocabulary.h"

#include "io/map.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The tokens of one model.
typedef struct table {
    qn_json_doc *doc, *more; // what the texts belong to
    qn_vocab_token *tokens;  // by id
    size_t count, capacity;
    qn_strmap ids; // text -> index in tokens
} table;

// Rows of one tensor for one model.
typedef struct rows_of_model {
    struct rows_of_model *next;
    qn_vocabulary *v;
    size_t model;
    qn_tensor_source *tensors; // of all models; .tensor NULL: none
    float *mean;               // of all rows, made when padding asks for it
} rows_of_model;

struct qn_vocabulary {
    qn_merge_plan *plan;
    table *tables; // per model of the plan, then perhaps one for a tokenizer of another folder
    size_t table_count;
    size_t origin; // the table that the output starts from
    char *dir;
    qn_vocab_token *tokens;
    size_t count, old, capacity;
    qn_strmap ids;
    int64_t rows;
    rows_of_model *made;
};

// ---------------------------------------------------------------------------------- tokenizer files

static int by_id(const void *a, const void *b)
{
    const qn_vocab_token *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return (int)y->added - (int)x->added;
}

static qn_result add_token(table *t, const char *text, int64_t id, bool added, bool special)
{
    QN_TRY(qn_grow((void **)&t->tokens, &t->capacity, t->count + 1, sizeof *t->tokens));
    t->tokens[t->count++] = (qn_vocab_token){ text, id, added, special };
    return QN_OK;
}

static qn_result read_pairs(table *t, qn_json map, int64_t below, bool added)
{
    for (qn_json v = qn_json_first(map); v.node; v = qn_json_next(v)) {
        int64_t id;
        QN_TRY(qn_json_int(v, NULL, 0, INT32_MAX, &id));
        if (id < below) QN_TRY(add_token(t, qn_json_key(v), id, added, added));
    }
    return QN_OK;
}

// A Unigram model's list: [text, score], the position is the id.
static qn_result read_scored(table *t, qn_json list, int64_t below)
{
    int64_t id = 0;
    for (qn_json v = qn_json_first(list); v.node && id < below; v = qn_json_next(v), id++) {
        const char *text;
        qn_json pair;
        QN_TRY(qn_json_array(v, NULL, &pair));
        QN_TRY(qn_json_string(qn_json_first(pair), NULL, &text));
        QN_TRY(add_token(t, text, id, false, false));
    }
    return QN_OK;
}

static qn_result read_tokenizer_json(table *t, int64_t below)
{
    qn_json root = qn_json_root(t->doc), model, added;
    QN_TRY(qn_json_object(root, "model", &model));
    QN_TRY(qn_json_array_or(root, "added_tokens", &added));
    qn_json vocab = qn_json_find(model, "vocab");
    if (qn_json_kind_of(vocab) == QN_JSON_ARRAY)
        QN_TRY(read_scored(t, vocab, below));
    else
        QN_TRY(read_pairs(t, vocab, below, false));
    for (qn_json v = qn_json_first(added); v.node; v = qn_json_next(v)) {
        const char *text;
        int64_t id;
        bool special;
        QN_TRY(qn_json_string(v, "content", &text));
        QN_TRY(qn_json_int(v, "id", 0, INT32_MAX, &id));
        QN_TRY(qn_json_bool_or(v, "special", false, &special));
        if (id < below) QN_TRY(add_token(t, text, id, true, special));
    }
    return QN_OK;
}

static qn_result open_if_there(const char *dir, const char *name, qn_json_doc **out)
{
    const qn_json_limits limits = { .size = (uint64_t)256 << 20, .values = (uint64_t)32 << 20 };
    char *path = qn_path_join(dir, name);
    if (!path) return qn_no_memory(strlen(dir));
    qn_result r = qn_file_exists(path) ? qn_json_open(path, &limits, out) : QN_OK;
    qn_free(path);
    return r;
}

static qn_result index_table(table *t)
{
    size_t kept = 0;
    if (t->count) qsort(t->tokens, t->count, sizeof *t->tokens, by_id);
    for (size_t i = 0; i < t->count; i++) {
        uint32_t found;
        const char *text = t->tokens[i].text;
        t->tokens[kept] = t->tokens[i];
        QN_TRY(qn_strmap_add(&t->ids, text, strlen(text), (uint32_t)kept, &found));
        kept += found == kept; // a text twice: the first id, an added token before a plain one
    }
    t->count = kept;
    return QN_OK;
}

static qn_result read_table(table *t, const char *dir, int64_t below)
{
    QN_TRY(open_if_there(dir, "tokenizer.json", &t->doc));
    if (t->doc) {
        QN_TRY(read_tokenizer_json(t, below));
        return index_table(t);
    }
    QN_TRY(open_if_there(dir, "vocab.json", &t->doc));
    QN_TRY(open_if_there(dir, "added_tokens.json", &t->more));
    if (!t->doc)
        return qn_fail(QN_ERR_IO,
                       "%s: neither tokenizer.json nor vocab.json: its tokens are not "
                       "known",
                       dir);
    QN_TRY(read_pairs(t, qn_json_root(t->doc), below, false));
    if (t->more) QN_TRY(read_pairs(t, qn_json_root(t->more), below, true));
    return index_table(t);
}

// ---------------------------------------------------------------------------------- the output's

static qn_result put_token(qn_vocabulary *v, const char *text, int64_t id, bool added, bool special)
{
    uint32_t found;
    QN_TRY(qn_grow((void **)&v->tokens, &v->capacity, v->count + 1, sizeof *v->tokens));
    QN_TRY(qn_strmap_add(&v->ids, text, strlen(text), (uint32_t)v->count, &found));
    if (found != v->count) return QN_OK;
    v->tokens[v->count++] = (qn_vocab_token){ text, id, added, special };
    return QN_OK;
}

static int64_t next_id(const qn_vocabulary *v)
{
    int64_t id = 0;
    for (size_t i = 0; i < v->count; i++)
        if (v->tokens[i].id >= id) id = v->tokens[i].id + 1;
    return id;
}

// Plain tokens of all models first, then added ones; each in the models' order and by id.
static qn_result unite(qn_vocabulary *v)
{
    int64_t id = next_id(v);
    for (int added = 0; added < 2; added++)
        for (size_t m = 0; m < v->plan->model_count; m++)
            for (size_t i = 0; i < v->tables[m].count; i++) {
                const qn_vocab_token *t = &v->tables[m].tokens[i];
                size_t before = v->count;
                if (t->added != added) continue;
                QN_TRY(put_token(v, t->text, id, true, t->special));
                id += v->count > before;
            }
    return QN_OK;
}

static int model_by_text(const qn_vocabulary *v, const char *text)
{
    for (size_t i = 0; i < v->plan->model_count; i++)
        if (strcmp(v->plan->models[i].ref.text, text) == 0 ||
            strcmp(v->plan->models[i].ref.path, text) == 0)
            return (int)i;
    return -1;
}

static qn_result read_tables(qn_vocabulary *v, const char *source)
{
    const qn_merge_plan *p = v->plan;
    v->tables = qn_calloc(p->model_count + 1, sizeof *v->tables);
    if (!v->tables) return qn_no_memory((p->model_count + 1) * sizeof *v->tables);
    for (size_t i = 0; i < p->model_count; i++) {
        int64_t below;
        QN_TRY(qn_json_int_or(qn_json_root(p->models[i].config), "vocab_size", 1, INT32_MAX,
                              INT32_MAX, &below));
        v->table_count++;
        QN_TRY(qn_context_add(read_table(&v->tables[i], p->models[i].dir, below), "model %s",
                              p->models[i].ref.text));
    }
    v->origin = p->base >= 0 ? (size_t)p->base : 0;
    bool own = strcmp(source, "union") == 0 || strcmp(source, "base") == 0;
    if (strcmp(source, "base") == 0 && p->base < 0)
        return qn_fail(QN_ERR_INVALID, "tokenizer source `base`, but there is no base_model");
    if (!own) {
        int m = model_by_text(v, source);
        if (m >= 0) {
            v->origin = (size_t)m;
        } else {
            v->origin = v->table_count++;
            QN_TRY(qn_checkpoint_locate(source, NULL, &v->dir));
            QN_TRY(read_table(&v->tables[v->origin], v->dir, INT32_MAX));
        }
    }
    if (!v->dir) v->dir = qn_strdup(p->models[v->origin].dir);
    return v->dir ? QN_OK : qn_no_memory(1);
}

static qn_result check_tokens(const qn_vocabulary *v, const qn_yaml *tokens);

static qn_result make(qn_vocabulary *v)
{
    const qn_recipe *r = v->plan->recipe;
    QN_TRY(read_tables(v, r->tokenizer_source));
    const table *t = &v->tables[v->origin];
    for (size_t i = 0; i < t->count; i++)
        QN_TRY(put_token(v, t->tokens[i].text, t->tokens[i].id, t->tokens[i].added,
                         t->tokens[i].special));
    v->old = v->count;
    if (strcmp(r->tokenizer_source, "union") == 0) QN_TRY(unite(v));
    int64_t id = next_id(v);
    for (size_t i = 0; r->tokens && i < r->tokens->count; i++) {
        size_t before = v->count;
        QN_TRY(put_token(v, r->tokens->keys[i]->text, id, true, true));
        id += v->count > before;
    }
    QN_TRY(check_tokens(v, r->tokens));
    v->rows = next_id(v);
    int64_t pad = r->pad_to_multiple_of;
    if (pad > 0) v->rows = (v->rows + pad - 1) / pad * pad;
    return v->rows ? QN_OK : qn_fail(QN_ERR_FORMAT, "%s: a tokenizer without tokens", v->dir);
}

qn_result qn_vocabulary_make(qn_merge_plan *p, qn_vocabulary **out)
{
    qn_vocabulary *v = qn_calloc(1, sizeof *v);
    if (!v) return qn_no_memory(sizeof *v);
    v->plan = p;
    qn_result r = make(v);
    if (r == QN_OK)
        *out = v;
    else
        qn_vocabulary_free(&v);
    return r;
}

void qn_vocabulary_free(qn_vocabulary **vocabulary)
{
    qn_vocabulary *v = *vocabulary;
    if (!v) return;
    *vocabulary = NULL;
    for (size_t i = 0; i < v->table_count; i++) {
        qn_strmap_free(&v->tables[i].ids);
        qn_free(v->tables[i].tokens);
        qn_json_close(&v->tables[i].doc);
        qn_json_close(&v->tables[i].more);
    }
    for (rows_of_model *m = v->made, *next; m; m = next) {
        next = m->next;
        qn_free(m->tensors);
        qn_free(m->mean);
        qn_free(m);
    }
    qn_strmap_free(&v->ids);
    qn_free(v->tables);
    qn_free(v->tokens);
    qn_free(v->dir);
    qn_free(v);
}

int64_t qn_vocabulary_rows(const qn_vocabulary *v)
{
    return v->rows;
}

const qn_vocab_token *qn_vocabulary_tokens(const qn_vocabulary *v, size_t *count, size_t *old)
{
    *count = v->count;
    *old = v->old;
    return v->tokens;
}

const char *qn_vocabulary_dir(const qn_vocabulary *v)
{
    return v->dir;
}

// ---------------------------------------------------------------------------------- rows

// Where the row of a token comes from when it is not a model's own.
typedef struct replacement {
    enum { BY_RULE, ZERO, ROW } kind;
    size_t model;
    int64_t row;
} replacement;

static int64_t row_in(const qn_vocabulary *v, size_t model, const char *text)
{
    const table *t = &v->tables[model];
    uint32_t i = qn_strmap_find(&t->ids, text, strlen(text));
    return i == QN_MAP_NONE ? -1 : t->tokens[i].id;
}

static qn_result model_row(const qn_vocabulary *v, const qn_yaml *at, const char *model,
                           const char *token, replacement *out)
{
    int m = model ? model_by_text(v, model) : -1;
    if (m < 0)
        return qn_yaml_fail(at, "\"%.80s\" is none of the merged models", model ? model : "");
    out->kind = ROW;
    out->model = (size_t)m;
    if (token) out->row = row_in(v, (size_t)m, token);
    if (out->row < 0) return qn_yaml_fail(at, "%s has no token \"%.80s\"", model, token);
    return QN_OK;
}

// tokens.TEXT of the recipe: {source: MODEL | {kind: zero | model_token, ...}, force: true}.
static qn_result explicit_source(const qn_vocabulary *v, const qn_yaml *entry, const char *text,
                                 replacement *out, bool *force)
{
    *out = (replacement){ 0 };
    *force = false;
    if (qn_yaml_is_null(entry)) return QN_OK;
    if (entry->kind != QN_YAML_MAP)
        return qn_yaml_fail(entry, "expected {source: ..., force: ...}");
    QN_TRY(qn_yaml_flag(entry, "force", false, force));
    const qn_yaml *s = qn_yaml_find(entry, "source");
    if (qn_yaml_is_null(s)) return QN_OK;
    if (s->kind == QN_YAML_SCALAR) return model_row(v, s, s->text, text, out);
    const char *kind, *model, *token;
    double id;
    QN_TRY(qn_yaml_string(s, "kind", &kind));
    QN_TRY(qn_yaml_string(s, "model", &model));
    QN_TRY(qn_yaml_string(s, "token", &token));
    QN_TRY(qn_yaml_number(s, "token_id", -1, &id));
    if (kind && strcmp(kind, "zero") == 0) {
        out->kind = ZERO;
        return QN_OK;
    }
    if (kind && strcmp(kind, "model_token") != 0)
        return qn_yaml_fail(s, "kind \"%.40s\", expected zero or model_token", kind);
    if (!token && !(id >= 0 && id < 2147483647))
        return qn_yaml_fail(s, "a token or a token_id is missing");
    out->row = (int64_t)id;
    return model_row(v, s, model, token, out);
}

static qn_result check_tokens(const qn_vocabulary *v, const qn_yaml *tokens)
{
    for (size_t i = 0; tokens && i < tokens->count; i++) {
        replacement r;
        bool force;
        qn_yaml_warn_unknown(tokens->items[i], "source|force");
        QN_TRY(explicit_source(v, tokens->items[i], tokens->keys[i]->text, &r, &force));
    }
    return QN_OK;
}

static qn_result read_row(const qn_tensor_source *s, int64_t row, float *out)
{
    if (!s->tensor) return qn_fail(QN_ERR_INVALID, "a model that lacks the tensor gives no row");
    if (row >= s->tensor->dim[0])
        return qn_fail(QN_ERR_INVALID, "token %lld of a tensor with %lld rows", (long long)row,
                       (long long)s->tensor->dim[0]);
    if (s->rows) return s->rows(s->user, (uint64_t)row, 1, out);
    uint64_t width = (uint64_t)s->tensor->dim[1];
    return qn_safetensor_f32(s->tensor, (uint64_t)row * width, width, out);
}

static void add_row(const float *row, uint64_t width, double *sum)
{
    for (uint64_t k = 0; k < width; k++) sum[k] += (double)row[k];
}

// The only model that has the token, else the base, else the mean of those that have it.
static qn_result row_by_rule(const rows_of_model *m, const char *text, uint64_t width, float *out)
{
    const qn_vocabulary *v = m->v;
    size_t having = 0, last = 0;
    for (size_t i = 0; i < v->plan->model_count; i++)
        if (m->tensors[i].tensor && row_in(v, i, text) >= 0) {
            having++;
            last = i;
        }
    if (having > 1 && v->plan->base >= 0 && row_in(v, (size_t)v->plan->base, text) >= 0) {
        last = (size_t)v->plan->base;
        having = 1;
    }
    memset(out, 0, (size_t)width * sizeof *out);
    if (having == 0) return QN_OK;
    if (having == 1) return read_row(&m->tensors[last], row_in(v, last, text), out);
    double *sum = qn_calloc((size_t)width, sizeof *sum);
    qn_result r = sum ? QN_OK : qn_no_memory((size_t)width * sizeof *sum);
    for (size_t i = 0; r == QN_OK && i < v->plan->model_count; i++) {
        int64_t row = m->tensors[i].tensor ? row_in(v, i, text) : -1;
        if (row < 0) continue;
        r = read_row(&m->tensors[i], row, out);
        add_row(out, width, sum);
    }
    for (uint64_t k = 0; r == QN_OK && k < width; k++) out[k] = (float)(sum[k] / (double)having);
    qn_free(sum);
    return r;
}

static const qn_vocab_token *token_at(const qn_vocabulary *v, int64_t id)
{
    size_t low = 0, high = v->count; // tokens are in order of their ids
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (v->tokens[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < v->count && v->tokens[low].id == id ? &v->tokens[low] : NULL;
}

static qn_result one_row(rows_of_model *m, int64_t id, float *out)
{
    qn_vocabulary *v = m->v;
    uint64_t width = (uint64_t)m->tensors[m->model].tensor->dim[1];
    const qn_vocab_token *t = token_at(v, id);
    memset(out, 0, (size_t)width * sizeof *out);
    if (!t) return QN_OK; // an id that no token has
    replacement r;
    bool force;
    QN_TRY(explicit_source(v, qn_yaml_find(v->plan->recipe->tokens, t->text), t->text, &r, &force));
    int64_t own = row_in(v, m->model, t->text);
    if (own >= 0 && !force) return read_row(&m->tensors[m->model], own, out);
    if (r.kind == ZERO) return QN_OK;
    if (r.kind == ROW) return read_row(&m->tensors[r.model], r.row, out);
    return row_by_rule(m, t->text, width, out);
}

// Behind the last token: the mean of all rows before.
static qn_result padding_row(rows_of_model *m, int64_t tokens, uint64_t width, float *out)
{
    if (!m->mean) {
        double *sum = qn_calloc((size_t)width, sizeof *sum);
        m->mean = qn_malloc((size_t)width * sizeof *m->mean);
        qn_result r = sum && m->mean ? QN_OK : qn_no_memory((size_t)width * sizeof *sum);
        for (int64_t i = 0; r == QN_OK && i < tokens; i++) {
            r = one_row(m, i, m->mean);
            add_row(m->mean, width, sum);
        }
        for (uint64_t k = 0; r == QN_OK && k < width; k++)
            m->mean[k] = (float)(sum[k] / (double)tokens);
        qn_free(sum);
        QN_TRY(r);
    }
    memcpy(out, m->mean, (size_t)width * sizeof *out);
    return QN_OK;
}

static qn_result rows(void *user, uint64_t first, uint64_t count, float *out)
{
    rows_of_model *m = user;
    uint64_t width = (uint64_t)m->tensors[m->model].tensor->dim[1];
    int64_t tokens = m->v->tokens[m->v->count - 1].id + 1;
    for (uint64_t i = 0; i < count; i++) {
        int64_t id = (int64_t)(first + i);
        QN_TRY(id < tokens ? one_row(m, id, out + i * width)
                           : padding_row(m, tokens, width, out + i * width));
    }
    return QN_OK;
}

qn_result qn_vocabulary_source(qn_vocabulary *v, size_t model, const char *name,
                               qn_tensor_source *source)
{
    rows_of_model *m = qn_calloc(1, sizeof *m);
    if (!m) return qn_no_memory(sizeof *m);
    m->next = v->made;
    v->made = m;
    m->v = v;
    m->model = model;
    m->tensors = qn_calloc(v->plan->model_count, sizeof *m->tensors);
    if (!m->tensors) return qn_no_memory(v->plan->model_count * sizeof *m->tensors);
    for (size_t i = 0; i < v->plan->model_count; i++) {
        QN_TRY(qn_merge_plan_source(v->plan, i, name, &m->tensors[i]));
        const qn_safetensor *t = m->tensors[i].tensor;
        if (t && (t->rank != 2 || t->dim[1] != source->tensor->dim[1]))
            return qn_fail(QN_ERR_INVALID, "tensor %s: rows of another width in %s", name,
                           v->plan->models[i].ref.text);
    }
    source->rows = rows;
    source->user = m;
    source->row_count = v->rows;
    return QN_OK;
}
