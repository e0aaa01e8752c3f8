// JSON with typed, checked access. The parser underneath is cJSON; this layer refuses what cJSON
// lets pass (invalid UTF-8, duplicate keys, sloppy numbers) and says where:
//   config.json: line 3, column 14: found '}', expected a value
//   config.json: n_layer: found "x", expected an integer of at least 1
#ifndef QN_JSON_H
#define QN_JSON_H

#include "fail.h"

typedef struct qn_json_doc qn_json_doc;

// A place in a document, passed by value; valid while the document is open. `node` is NULL for
// what is not there.
typedef struct qn_json {
    const qn_json_doc *doc;
    const struct cJSON *node;
} qn_json;

typedef enum qn_json_kind {
    QN_JSON_ABSENT = 0,
    QN_JSON_NULL,
    QN_JSON_BOOL,
    QN_JSON_NUMBER,
    QN_JSON_STRING,
    QN_JSON_ARRAY,
    QN_JSON_OBJECT,
} qn_json_kind;

// Bounds on what a document may cost. A value takes about 64 bytes beside its text.
typedef struct qn_json_limits {
    uint64_t size;   // bytes of text; 0: 64 MiB
    uint32_t depth;  // nested arrays and objects, at most 500; 0: 64
    uint64_t values; // 0: 4 million
} qn_json_limits;

// Integers are exact in this range, on both sides of zero.
#define QN_JSON_INT_MAX (((int64_t)1 << 53) - 1)

qn_result qn_json_open(const char *path, const qn_json_limits *limits, qn_json_doc **out);
// `name` stands for the file in messages. The text need not end with NUL and is copied.
qn_result qn_json_parse(const char *name, const char *text, size_t size,
                        const qn_json_limits *limits, qn_json_doc **out);
void qn_json_close(qn_json_doc **doc);

qn_json qn_json_root(const qn_json_doc *doc);
qn_json_kind qn_json_kind_of(qn_json v);

// Walks arrays and objects in the order of the file: for (v = first(list); v.node; v = next(v)).
qn_json qn_json_first(qn_json list);
qn_json qn_json_next(qn_json v);
const char *qn_json_key(qn_json v); // of a member of an object; else ""
size_t qn_json_count(qn_json list); // walks the list

// The member `key`, or absent. A walk: to use most of a large object, iterate instead.
qn_json qn_json_find(qn_json object, const char *key);

// Read the member `key` of an object, or the value itself when key is NULL. A value that is
// missing or of another kind is QN_ERR_FORMAT. Strings live as long as the document.
qn_result qn_json_int(qn_json v, const char *key, int64_t min, int64_t max, int64_t *out);
qn_result qn_json_number(qn_json v, const char *key, double min, double max, double *out);
qn_result qn_json_bool(qn_json v, const char *key, bool *out);
qn_result qn_json_string(qn_json v, const char *key, const char **out); // without NULs
qn_result qn_json_array(qn_json v, const char *key, qn_json *out);
qn_result qn_json_object(qn_json v, const char *key, qn_json *out);

// A string that may hold NULs: in *out, as long as the document, each is the two bytes C0 80, which
// occur in no other string since they are not UTF-8.
qn_result qn_json_nul_string(qn_json v, const char *key, const char **out);

// The same, with a value for members that are absent or null. Arrays and objects: *out is then
// absent, and walking it visits nothing.
qn_result qn_json_int_or(qn_json v, const char *key, int64_t min, int64_t max, int64_t missing,
                         int64_t *out);
qn_result qn_json_number_or(qn_json v, const char *key, double min, double max, double missing,
                            double *out);
qn_result qn_json_bool_or(qn_json v, const char *key, bool missing, bool *out);
qn_result qn_json_string_or(qn_json v, const char *key, const char *missing, const char **out);
qn_result qn_json_array_or(qn_json v, const char *key, qn_json *out);
qn_result qn_json_object_or(qn_json v, const char *key, qn_json *out);

// QN_ERR_FORMAT with "file: path of v: " before the sentence.
qn_result qn_json_fail(qn_json v, const char *fmt, ...) QN_PRINTF(2, 3);

// Replaces control characters in this thread's message, which quotes a file; returns r.
qn_result qn_fail_printable(qn_result r);

// Writing. Values are appended in order; inside objects each has a key, inside arrays key is NULL.
// The first failure sticks and is what the end reports. Zero-initialise; `compact` leaves out line
// breaks and indentation.
typedef struct qn_json_writer {
    bool compact;
    char *text;
    size_t size, capacity;
    uint32_t depth;
    bool filled; // the innermost list has a value already
    qn_result status;
} qn_json_writer;

void qn_json_put_object(qn_json_writer *w, const char *key);
void qn_json_put_array(qn_json_writer *w, const char *key);
void qn_json_put_end(qn_json_writer *w, char bracket); // '}' or ']'
void qn_json_put_int(qn_json_writer *w, const char *key, int64_t value);
void qn_json_put_number(qn_json_writer *w, const char *key, double value); // reads back equal
void qn_json_put_bool(qn_json_writer *w, const char *key, bool value);
void qn_json_put_null(qn_json_writer *w, const char *key);
void qn_json_put_string(qn_json_writer *w, const char *key, const char *value);
// The same for keys and values that hold NUL or do not end with it.
void qn_json_put_text(qn_json_writer *w, const char *key, size_t key_size, const char *value,
                      size_t size);
void qn_json_put_key_int(qn_json_writer *w, const char *key, size_t key_size, int64_t value);
// A copy of a value that was read.
void qn_json_put_value(qn_json_writer *w, const char *key, qn_json value);

// Writes the text and a newline atomically; frees the writer in every case.
qn_result qn_json_save(qn_json_writer *w, const char *path);
void qn_json_writer_free(qn_json_writer *w);

#endif
