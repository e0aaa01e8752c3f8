// YAML documents as trees that know their lines. Aliases and merge keys (<<) are resolved; a tree
// is bounded in size and depth whatever the text says.
#ifndef QN_YAML_H
#define QN_YAML_H

#include "fail.h"
#include "mem.h"

typedef enum qn_yaml_kind { QN_YAML_SCALAR = 0, QN_YAML_LIST, QN_YAML_MAP } qn_yaml_kind;

typedef struct qn_yaml {
    qn_yaml_kind kind;
    const char *text; // SCALAR
    bool quoted;      // a string whatever it looks like
    int line, column; // from 1
    const char *file;
    struct qn_yaml **items; // LIST; MAP: the values
    struct qn_yaml **keys;  // MAP; scalars
    size_t count;
} qn_yaml;

typedef struct qn_yaml_docs {
    qn_arena arena;
    qn_yaml **roots;
    size_t count;
} qn_yaml_docs;

// `name` stands for the file in messages. Empty documents are left out.
qn_result qn_yaml_parse(const char *name, const char *text, size_t size, qn_yaml_docs *out);
void qn_yaml_free(qn_yaml_docs *d);

const qn_yaml *qn_yaml_find(const qn_yaml *map, const char *key); // NULL: none, or no map
bool qn_yaml_is_null(const qn_yaml *v);                           // absent, ~, null, empty
bool qn_yaml_as_number(const qn_yaml *v, double *out);
bool qn_yaml_as_bool(const qn_yaml *v, bool *out);

// QN_ERR_FORMAT: "file: line 3, column 7: ...".
qn_result qn_yaml_fail(const qn_yaml *v, const char *fmt, ...) QN_PRINTF(2, 3);
// Reads members; a missing one is *out = NULL, one of another kind a failure.
qn_result qn_yaml_string(const qn_yaml *map, const char *key, const char **out);
qn_result qn_yaml_number(const qn_yaml *map, const char *key, double missing, double *out);
qn_result qn_yaml_flag(const qn_yaml *map, const char *key, bool missing, bool *out);
qn_result qn_yaml_list(const qn_yaml *map, const char *key, const qn_yaml **out);
qn_result qn_yaml_map(const qn_yaml *map, const char *key, const qn_yaml **out);
// A warning for every key that is not among "a|b|c", with the nearest of them.
void qn_yaml_warn_unknown(const qn_yaml *map, const char *words);
// The same as a failure: what is missing, and the key that was probably meant.
qn_result qn_yaml_missing(const qn_yaml *map, const char *key);

#endif
