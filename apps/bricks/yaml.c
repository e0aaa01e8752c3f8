// YAML through libyaml.
#include "yaml.h"

#include "nearest.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if QN_HAVE_YAML
#include <yaml.h>

#define DEEPEST 64
#define MOST_NODES 200000 // of all documents, aliases counted as often as they are used

typedef struct builder {
    qn_yaml_docs *out;
    yaml_document_t *doc;
    const char *file;
    size_t nodes;
} builder;

static qn_result build(builder *b, int index, int depth, qn_yaml **out);

// What "<<" brings into a map: the members of one map, or of several, that it has not itself.
static qn_result merge_map(builder *b, qn_yaml *map, size_t capacity, const qn_yaml *from)
{
    if (from->kind == QN_YAML_LIST) {
        for (size_t i = 0; i < from->count; i++)
            QN_TRY(merge_map(b, map, capacity, from->items[i]));
        return QN_OK;
    }
    if (from->kind != QN_YAML_MAP) return qn_yaml_fail(from, "<< needs a map, or a list of maps");
    for (size_t i = 0; i < from->count; i++) {
        if (qn_yaml_find(map, from->keys[i]->text) || map->count == capacity) continue;
        map->keys[map->count] = from->keys[i];
        map->items[map->count++] = from->items[i];
    }
    return QN_OK;
}

static size_t merged_size(const qn_yaml *from)
{
    size_t n = 0;
    if (from->kind == QN_YAML_MAP) return from->count;
    for (size_t i = 0; from->kind == QN_YAML_LIST && i < from->count; i++)
        n += merged_size(from->items[i]);
    return n;
}

static qn_result build_map(builder *b, const yaml_node_t *node, int depth, qn_yaml *v)
{
    size_t pairs = (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start);
    size_t capacity = pairs, merges = 0;
    qn_yaml **keys = qn_arena_alloc(&b->out->arena, (pairs + 1) * sizeof *keys);
    qn_yaml **items = qn_arena_alloc(&b->out->arena, (pairs + 1) * sizeof *items);
    if (!keys || !items) return qn_no_memory(pairs * sizeof *keys);
    for (size_t i = 0; i < pairs; i++) {
        const yaml_node_pair_t *p = &node->data.mapping.pairs.start[i];
        QN_TRY(build(b, p->key, depth + 1, &keys[i]));
        if (keys[i]->kind != QN_YAML_SCALAR) return qn_yaml_fail(keys[i], "a key that is no text");
        QN_TRY(build(b, p->value, depth + 1, &items[i]));
        if (strcmp(keys[i]->text, "<<") != 0) continue;
        capacity += merged_size(items[i]);
        merges++;
    }
    if (capacity > MOST_NODES) return qn_yaml_fail(v, "a map of more than %d keys", MOST_NODES);
    v->keys = qn_arena_alloc(&b->out->arena, (capacity + 1) * sizeof *v->keys);
    v->items = qn_arena_alloc(&b->out->arena, (capacity + 1) * sizeof *v->items);
    if (!v->keys || !v->items) return qn_no_memory(capacity * sizeof *keys);
    for (size_t i = 0; i < pairs; i++) {
        if (strcmp(keys[i]->text, "<<") == 0) continue;
        if (qn_yaml_find(v, keys[i]->text))
            return qn_yaml_fail(keys[i], "the key %.60s is there twice", keys[i]->text);
        v->keys[v->count] = keys[i];
        v->items[v->count++] = items[i];
    }
    for (size_t i = 0; merges && i < pairs; i++)
        if (strcmp(keys[i]->text, "<<") == 0) QN_TRY(merge_map(b, v, capacity, items[i]));
    return QN_OK;
}

static qn_result build_list(builder *b, const yaml_node_t *node, int depth, qn_yaml *v)
{
    v->count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    v->items = qn_arena_alloc(&b->out->arena, (v->count + 1) * sizeof *v->items);
    if (!v->items) return qn_no_memory(v->count * sizeof *v->items);
    for (size_t i = 0; i < v->count; i++)
        QN_TRY(build(b, node->data.sequence.items.start[i], depth + 1, &v->items[i]));
    return QN_OK;
}

static qn_result build_scalar(builder *b, const yaml_node_t *node, qn_yaml *v)
{
    size_t n = node->data.scalar.length;
    char *text = qn_arena_alloc(&b->out->arena, n + 1);
    if (!text) return qn_no_memory(n);
    memcpy(text, node->data.scalar.value, n);
    if (strlen(text) != n) return qn_yaml_fail(v, "a text with a NUL in it");
    v->text = text;
    v->quoted = node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return QN_OK;
}

static qn_result build(builder *b, int index, int depth, qn_yaml **out)
{
    yaml_node_t *node = yaml_document_get_node(b->doc, index);
    qn_yaml *v = qn_arena_alloc(&b->out->arena, sizeof *v);
    if (!v) return qn_no_memory(sizeof *v);
    *v = (qn_yaml){ .line = (int)node->start_mark.line + 1,
                    .column = (int)node->start_mark.column + 1,
                    .file = b->file };
    *out = v;
    if (depth > DEEPEST) return qn_yaml_fail(v, "nested deeper than %d levels", DEEPEST);
    if (++b->nodes > MOST_NODES) return qn_yaml_fail(v, "more than %d values", MOST_NODES);
    switch (node->type) {
    case YAML_MAPPING_NODE:
        v->kind = QN_YAML_MAP;
        return build_map(b, node, depth, v);
    case YAML_SEQUENCE_NODE:
        v->kind = QN_YAML_LIST;
        return build_list(b, node, depth, v);
    default:
        return build_scalar(b, node, v);
    }
}

static qn_result load_document(yaml_parser_t *parser, builder *b, bool *last)
{
    yaml_document_t doc;
    if (!yaml_parser_load(parser, &doc)) {
        if (parser->error == YAML_MEMORY_ERROR) return qn_no_memory(1);
        const yaml_mark_t *at = &parser->problem_mark;
        return qn_fail(QN_ERR_FORMAT, "%s: line %zu, column %zu: %s%s%s", b->file, at->line + 1,
                       at->column + 1, parser->problem ? parser->problem : "not YAML",
                       parser->context ? ", " : "", parser->context ? parser->context : "");
    }
    qn_result r = QN_OK;
    const yaml_node_t *root = yaml_document_get_root_node(&doc);
    *last = !root;
    if (root) {
        qn_yaml *tree;
        b->doc = &doc;
        r = build(b, 1, 0, &tree);
        if (r == QN_OK && !qn_yaml_is_null(tree)) b->out->roots[b->out->count++] = tree;
    }
    yaml_document_delete(&doc);
    return r;
}

qn_result qn_yaml_parse(const char *name, const char *text, size_t size, qn_yaml_docs *out)
{
    enum { MOST_DOCUMENTS = 1000 };
    yaml_parser_t parser;
    *out = (qn_yaml_docs){ 0 };
    builder b = { .out = out, .file = qn_arena_printf(&out->arena, "%s", name) };
    out->roots = qn_arena_alloc(&out->arena, MOST_DOCUMENTS * sizeof(qn_yaml *));
    if (!b.file || !out->roots || !yaml_parser_initialize(&parser)) {
        qn_yaml_free(out);
        return qn_no_memory(size);
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    qn_result r = QN_OK;
    for (bool last = false; r == QN_OK && !last;) {
        if (out->count == MOST_DOCUMENTS)
            r = qn_fail(QN_ERR_FORMAT, "%s: more than %d documents", name, MOST_DOCUMENTS);
        else
            r = load_document(&parser, &b, &last);
    }
    yaml_parser_delete(&parser);
    if (r != QN_OK) qn_yaml_free(out);
    return r;
}
#else
qn_result qn_yaml_parse(const char *name, const char *text, size_t size, qn_yaml_docs *out)
{
    (void)text;
    (void)size;
    *out = (qn_yaml_docs){ 0 };
    return qn_fail(QN_ERR_UNSUPPORTED, "%s: this build reads no YAML, as libyaml was missing",
                   name);
}
#endif

void qn_yaml_free(qn_yaml_docs *d)
{
    qn_arena_free(&d->arena);
    *d = (qn_yaml_docs){ 0 };
}

const qn_yaml *qn_yaml_find(const qn_yaml *map, const char *key)
{
    if (!map || map->kind != QN_YAML_MAP) return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->keys[i]->text, key) == 0) return map->items[i];
    return NULL;
}

static bool is_word(const qn_yaml *v, const char *words)
{
    size_t n = strlen(v->text);
    if (v->kind != QN_YAML_SCALAR || v->quoted || !n) return false;
    for (const char *p = words; *p; p += strcspn(p, "|"), p += *p == '|')
        if (strcspn(p, "|") == n && strncmp(p, v->text, n) == 0) return true;
    return false;
}

bool qn_yaml_is_null(const qn_yaml *v)
{
    if (!v) return true;
    if (v->kind != QN_YAML_SCALAR || v->quoted) return false;
    return !*v->text || is_word(v, "~|null|Null|NULL");
}

bool qn_yaml_as_number(const qn_yaml *v, double *out)
{
    if (!v || v->kind != QN_YAML_SCALAR || v->quoted) return false;
    char plain[64];
    size_t n = 0;
    for (const char *p = v->text; *p; p++) {
        if (*p == '_') continue;
        if (n + 1 == sizeof plain || !(isalnum((unsigned char)*p) || strchr("+-.", *p)))
            return false;
        plain[n++] = *p;
    }
    plain[n] = 0;
    const char *digits = plain + (*plain == '-' || *plain == '+');
    if (strcmp(digits, ".inf") == 0 || strcmp(digits, ".Inf") == 0) {
        *out = *plain == '-' ? -INFINITY : INFINITY;
        return true;
    }
    if (!isdigit((unsigned char)*digits) && *digits != '.') return false;
    char *end;
    *out = strtod(plain, &end);
    return end != plain && !*end;
}

bool qn_yaml_as_bool(const qn_yaml *v, bool *out)
{
    if (!v || v->kind != QN_YAML_SCALAR) return false;
    bool yes = is_word(v, "true|True|TRUE|yes|Yes|YES|on|On|ON");
    *out = yes;
    return yes || is_word(v, "false|False|FALSE|no|No|NO|off|Off|OFF");
}

qn_result qn_yaml_fail(const qn_yaml *v, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return qn_fail(QN_ERR_FORMAT, "%s: line %d, column %d: %s", v->file, v->line, v->column, text);
}

qn_result qn_yaml_string(const qn_yaml *map, const char *key, const char **out)
{
    const qn_yaml *v = qn_yaml_find(map, key);
    *out = NULL;
    if (qn_yaml_is_null(v)) return QN_OK;
    if (v->kind != QN_YAML_SCALAR) return qn_yaml_fail(v, "%s: expected a text", key);
    *out = v->text;
    return QN_OK;
}

qn_result qn_yaml_number(const qn_yaml *map, const char *key, double missing, double *out)
{
    const qn_yaml *v = qn_yaml_find(map, key);
    *out = missing;
    if (qn_yaml_is_null(v) || qn_yaml_as_number(v, out)) return QN_OK;
    return qn_yaml_fail(v, "%s: expected a number", key);
}

qn_result qn_yaml_flag(const qn_yaml *map, const char *key, bool missing, bool *out)
{
    const qn_yaml *v = qn_yaml_find(map, key);
    *out = missing;
    if (qn_yaml_is_null(v) || qn_yaml_as_bool(v, out)) return QN_OK;
    return qn_yaml_fail(v, "%s: expected true or false", key);
}

static qn_result member(const qn_yaml *map, const char *key, qn_yaml_kind kind, const qn_yaml **out)
{
    const qn_yaml *v = qn_yaml_find(map, key);
    *out = NULL;
    if (qn_yaml_is_null(v)) return QN_OK;
    if (v->kind != kind)
        return qn_yaml_fail(v, "%s: expected a %s", key, kind == QN_YAML_MAP ? "map" : "list");
    *out = v;
    return QN_OK;
}

qn_result qn_yaml_list(const qn_yaml *map, const char *key, const qn_yaml **out)
{
    return member(map, key, QN_YAML_LIST, out);
}

qn_result qn_yaml_map(const qn_yaml *map, const char *key, const qn_yaml **out)
{
    return member(map, key, QN_YAML_MAP, out);
}

static bool word_near(const char *words, const char *key, char near[64], bool *exact)
{
    qn_nearest n = { .word = key };
    char list[1024];
    snprintf(list, sizeof list, "%s", words);
    *exact = false;
    for (char *save, *w = strtok_r(list, "|", &save); w; w = strtok_r(NULL, "|", &save)) {
        *exact = *exact || strcmp(w, key) == 0;
        qn_nearest_offer(&n, w);
    }
    if (n.best) snprintf(near, 64, "%s", n.best);
    return n.best != NULL;
}

void qn_yaml_warn_unknown(const qn_yaml *map, const char *words)
{
    for (size_t i = 0; map && map->kind == QN_YAML_MAP && i < map->count; i++) {
        char near[64];
        bool exact, meant = word_near(words, map->keys[i]->text, near, &exact);
        if (exact) continue;
        const qn_yaml *k = map->keys[i];
        qn_log(QN_LOG_WARN, "%s: line %d, column %d: the key %.60s means nothing here%s%s%s",
               k->file, k->line, k->column, k->text, meant ? "; did you mean '" : "",
               meant ? near : "", meant ? "'?" : "");
    }
}

qn_result qn_yaml_missing(const qn_yaml *map, const char *key)
{
    for (size_t i = 0; map->kind == QN_YAML_MAP && i < map->count; i++) {
        char near[64];
        bool exact;
        if (word_near(key, map->keys[i]->text, near, &exact))
            return qn_yaml_fail(map->keys[i], "the key %s is missing; was %.60s meant to be it?",
                                key, map->keys[i]->text);
    }
    return qn_yaml_fail(map, "the key %s is missing", key);
}
