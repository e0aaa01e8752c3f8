// Documents over cJSON and the typed look-ups. See json.h.
#include "json.h"
#include "json_scan.h"
#include "mem.h"
#include "platform.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SIZE ((uint64_t)64 << 20)
#define DEFAULT_DEPTH 64
#define DEFAULT_VALUES ((uint64_t)4 << 20)
#define DEPTH_LIMIT 500 // below cJSON's own 1000

#define SPELLED_NUL "\xC0\x80"

struct qn_json_doc {
    char *name;
    cJSON *root;
    bool nuls; // some string holds SPELLED_NUL
};

static pthread_once_t hooked = PTHREAD_ONCE_INIT;

static void hook(void)
{
    cJSON_InitHooks(&(cJSON_Hooks){ .malloc_fn = qn_malloc, .free_fn = qn_free });
}

static void describe(const cJSON *v, char *out, size_t size)
{
    if (!v)
        snprintf(out, size, "nothing");
    else if (cJSON_IsString(v))
        snprintf(out, size, "\"%.40s%s\"", v->valuestring,
                 strlen(v->valuestring) > 40 ? "..." : "");
    else if (cJSON_IsNumber(v))
        snprintf(out, size, "%.15g", v->valuedouble);
    else if (cJSON_IsBool(v))
        snprintf(out, size, "%s", cJSON_IsTrue(v) ? "true" : "false");
    else if (cJSON_IsNull(v))
        snprintf(out, size, "null");
    else
        snprintf(out, size, "%s", cJSON_IsArray(v) ? "an array" : "an object");
}

// Appends the path from `at` down to `wanted`; false, and `out` as it was, when it is not below.
static bool find_path(const cJSON *at, const cJSON *wanted, char *out, size_t size, size_t used)
{
    if (at == wanted) return true;
    size_t index = 0;
    for (const cJSON *v = at->child; v; v = v->next, index++) {
        int n = cJSON_IsArray(at)
                    ? snprintf(out + used, size - used, "[%zu]", index)
                    : snprintf(out + used, size - used, "%s%s", used ? "." : "", v->string);
        size_t next = n < 0 || used + (size_t)n >= size ? size - 1 : used + (size_t)n;
        if (find_path(v, wanted, out, size, next)) return true;
    }
    out[used] = 0;
    return false;
}

static void path_of(qn_json v, const char *key, char *out, size_t size)
{
    out[0] = 0;
    if (v.doc && v.doc->root && v.node) find_path(v.doc->root, v.node, out, size, 0);
    if (!key) return;
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%s", used ? "." : "", key);
}

// Text of the file reaches terminals through messages: nothing in it may steer them.
static void make_printable(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F) *s = '?';
}

qn_result qn_fail_printable(qn_result r)
{
    if (r == QN_OK) return r;
    char text[2048];
    snprintf(text, sizeof text, "%s", qn_error_message());
    make_printable(text);
    return qn_fail(r, "%s", text);
}

static qn_result fail_place(qn_json v, const char *key, char *text)
{
    char path[256];
    path_of(v, key, path, sizeof path);
    make_printable(path);
    make_printable(text);
    const char *name = v.doc ? v.doc->name : "JSON";
    return qn_fail(QN_ERR_FORMAT, "%s: %s%s%s", name, path, path[0] ? ": " : "", text);
}

qn_result qn_json_fail(qn_json v, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return fail_place(v, NULL, text);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

// Refuses duplicate keys and numbers beyond double.
static qn_result check_tree(const qn_json_doc *doc, cJSON *list)
{
    size_t count = 0;
    for (cJSON *v = list->child; v; v = v->next, count++) {
        qn_json place = { doc, v };
        if (cJSON_IsNumber(v) && !isfinite(v->valuedouble))
            return qn_json_fail(place, "a number beyond the range of double precision");
        if (v->child) QN_TRY(check_tree(doc, v));
    }
    if (!cJSON_IsObject(list) || count < 2) return QN_OK;
    cJSON **sorted = qn_malloc(count * sizeof *sorted);
    if (!sorted) return qn_no_memory(count * sizeof *sorted);
    size_t n = 0;
    for (cJSON *v = list->child; v; v = v->next) sorted[n++] = v;
    qsort(sorted, count, sizeof *sorted, compare_keys);
    qn_result r = QN_OK;
    for (size_t i = 1; i < count && r == QN_OK; i++)
        if (!strcmp(sorted[i - 1]->string, sorted[i]->string))
            r = qn_json_fail((qn_json){ doc, list }, "key \"%.80s\" is there twice",
                             sorted[i]->string);
    qn_free(sorted);
    return r;
}

// Text behind the check, ready for the parser, which knows no NUL in strings.
static char *spell_nuls(const char *text, size_t *size)
{
    char *out = qn_malloc(*size), *to = out;
    if (!out) return NULL;
    for (const char *p = text, *end = text + *size; p < end;) {
        if (*p != '\\') {
            *to++ = *p++;
        } else if (!strncmp(p, "\\u0000", 6)) {
            memcpy(to, SPELLED_NUL, 2);
            to += 2;
            p += 6;
        } else {
            *to++ = *p++;
            *to++ = *p++;
        }
    }
    *size = (size_t)(to - out);
    return out;
}

static qn_result parse(qn_json_doc *doc, const char *text, size_t size)
{
    pthread_once(&hooked, hook);
    char *spelled = doc->nuls ? spell_nuls(text, &size) : NULL;
    if (doc->nuls && !spelled) return qn_no_memory(size);
    doc->root = cJSON_ParseWithLength(spelled ? spelled : text, size);
    qn_free(spelled);
    return doc->root ? QN_OK : qn_no_memory(size); // the text itself is sound
}

static qn_result build(qn_json_doc *doc, const char *text, size_t size,
                       const qn_json_limits *limits)
{
    uint64_t size_limit = limits && limits->size ? limits->size : DEFAULT_SIZE;
    uint32_t depth = limits && limits->depth ? limits->depth : DEFAULT_DEPTH;
    uint64_t values = limits && limits->values ? limits->values : DEFAULT_VALUES;
    if (size > size_limit)
        return qn_fail(QN_ERR_FORMAT, "%s: %zu bytes, expected at most %" PRIu64, doc->name, size,
                       size_limit);
    if (depth > DEPTH_LIMIT) depth = DEPTH_LIMIT;
    size_t nuls = 0, mark = size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    QN_TRY(qn_json_scan(doc->name, text, size, depth, values, &nuls));
    doc->nuls = nuls;
    QN_TRY(parse(doc, text + mark, size - mark));
    return check_tree(doc, doc->root);
}

qn_result qn_json_parse(const char *name, const char *text, size_t size,
                        const qn_json_limits *limits, qn_json_doc **out)
{
    qn_json_doc *doc = qn_calloc(1, sizeof *doc);
    if (!doc) return qn_no_memory(sizeof *doc);
    doc->name = qn_strdup(name);
    qn_result r = doc->name ? build(doc, text, size, limits) : qn_no_memory(strlen(name));
    if (r == QN_OK)
        *out = doc;
    else
        qn_json_close(&doc);
    return r;
}

qn_result qn_json_open(const char *path, const qn_json_limits *limits, qn_json_doc **out)
{
    char *text;
    size_t size;
    QN_TRY(qn_read_file(path, limits && limits->size ? limits->size : DEFAULT_SIZE, &text, &size));
    qn_result r = qn_json_parse(path, text, size, limits, out);
    qn_free(text);
    return r;
}

void qn_json_close(qn_json_doc **doc)
{
    if (!*doc) return;
    cJSON_Delete((*doc)->root);
    qn_free((*doc)->name);
    qn_free(*doc);
    *doc = NULL;
}

qn_json qn_json_root(const qn_json_doc *doc)
{
    return (qn_json){ doc, doc->root };
}

qn_json_kind qn_json_kind_of(qn_json v)
{
    if (!v.node) return QN_JSON_ABSENT;
    switch (v.node->type & 0xFF) {
    case cJSON_False:
    case cJSON_True:
        return QN_JSON_BOOL;
    case cJSON_Number:
        return QN_JSON_NUMBER;
    case cJSON_String:
        return QN_JSON_STRING;
    case cJSON_Array:
        return QN_JSON_ARRAY;
    case cJSON_Object:
        return QN_JSON_OBJECT;
    default:
        return QN_JSON_NULL;
    }
}

qn_json qn_json_first(qn_json list)
{
    return (qn_json){ list.doc, list.node ? list.node->child : NULL };
}

qn_json qn_json_next(qn_json v)
{
    return (qn_json){ v.doc, v.node ? v.node->next : NULL };
}

const char *qn_json_key(qn_json v)
{
    return v.node && v.node->string ? v.node->string : "";
}

size_t qn_json_count(qn_json list)
{
    size_t n = 0;
    for (qn_json v = qn_json_first(list); v.node; v = qn_json_next(v)) n++;
    return n;
}

qn_json qn_json_find(qn_json object, const char *key)
{
    qn_json v = { object.doc, NULL };
    if (qn_json_kind_of(object) == QN_JSON_OBJECT)
        v.node = cJSON_GetObjectItemCaseSensitive(object.node, key);
    return v;
}

// The value that a look-up means.
static qn_json pick(qn_json v, const char *key)
{
    return key ? qn_json_find(v, key) : v;
}

static bool missing(qn_json v)
{
    return qn_json_kind_of(v) <= QN_JSON_NULL;
}

static qn_result mismatch(qn_json v, const char *key, const char *expected)
{
    qn_json value = pick(v, key);
    char found[128], text[384];
    describe(value.node, found, sizeof found);
    if (value.node)
        snprintf(text, sizeof text, "found %s, expected %s", found, expected);
    else
        snprintf(text, sizeof text, "missing, expected %s", expected);
    return fail_place(v, key, text);
}

qn_result qn_json_int(qn_json v, const char *key, int64_t min, int64_t max, int64_t *out)
{
    if (min < -QN_JSON_INT_MAX) min = -QN_JSON_INT_MAX;
    if (max > QN_JSON_INT_MAX) max = QN_JSON_INT_MAX;
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) == QN_JSON_NUMBER) {
        double d = value.node->valuedouble;
        if (d == floor(d) && d >= (double)min && d <= (double)max) {
            *out = (int64_t)d;
            return QN_OK;
        }
    }
    char expected[96] = "an integer";
    if (min > -QN_JSON_INT_MAX && max < QN_JSON_INT_MAX)
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
    else if (min > -QN_JSON_INT_MAX)
        snprintf(expected, sizeof expected, "an integer of at least %" PRId64, min);
    else if (max < QN_JSON_INT_MAX)
        snprintf(expected, sizeof expected, "an integer of at most %" PRId64, max);
    return mismatch(v, key, expected);
}

qn_result qn_json_number(qn_json v, const char *key, double min, double max, double *out)
{
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) == QN_JSON_NUMBER) {
        double d = value.node->valuedouble;
        if (d >= min && d <= max) {
            *out = d;
            return QN_OK;
        }
    }
    char expected[96] = "a number";
    if (isfinite(min) && isfinite(max))
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    else if (isfinite(min))
        snprintf(expected, sizeof expected, "a number of at least %g", min);
    else if (isfinite(max))
        snprintf(expected, sizeof expected, "a number of at most %g", max);
    return mismatch(v, key, expected);
}

qn_result qn_json_bool(qn_json v, const char *key, bool *out)
{
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) != QN_JSON_BOOL) return mismatch(v, key, "true or false");
    *out = cJSON_IsTrue(value.node);
    return QN_OK;
}

qn_result qn_json_nul_string(qn_json v, const char *key, const char **out)
{
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) != QN_JSON_STRING) return mismatch(v, key, "a string");
    *out = value.node->valuestring;
    return QN_OK;
}

qn_result qn_json_string(qn_json v, const char *key, const char **out)
{
    QN_TRY(qn_json_nul_string(v, key, out));
    if (!v.doc->nuls || !strstr(*out, SPELLED_NUL)) return QN_OK;
    return qn_json_fail(pick(v, key), "a NUL character, which is not supported here");
}

qn_result qn_json_array(qn_json v, const char *key, qn_json *out)
{
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) != QN_JSON_ARRAY) return mismatch(v, key, "an array");
    *out = value;
    return QN_OK;
}

qn_result qn_json_object(qn_json v, const char *key, qn_json *out)
{
    qn_json value = pick(v, key);
    if (qn_json_kind_of(value) != QN_JSON_OBJECT) return mismatch(v, key, "an object");
    *out = value;
    return QN_OK;
}

qn_result qn_json_int_or(qn_json v, const char *key, int64_t min, int64_t max, int64_t otherwise,
                         int64_t *out)
{
    if (!missing(pick(v, key))) return qn_json_int(v, key, min, max, out);
    *out = otherwise;
    return QN_OK;
}

qn_result qn_json_number_or(qn_json v, const char *key, double min, double max, double otherwise,
                            double *out)
{
    if (!missing(pick(v, key))) return qn_json_number(v, key, min, max, out);
    *out = otherwise;
    return QN_OK;
}

qn_result qn_json_bool_or(qn_json v, const char *key, bool otherwise, bool *out)
{
    if (!missing(pick(v, key))) return qn_json_bool(v, key, out);
    *out = otherwise;
    return QN_OK;
}

qn_result qn_json_string_or(qn_json v, const char *key, const char *otherwise, const char **out)
{
    if (!missing(pick(v, key))) return qn_json_string(v, key, out);
    *out = otherwise;
    return QN_OK;
}

qn_result qn_json_array_or(qn_json v, const char *key, qn_json *out)
{
    if (!missing(pick(v, key))) return qn_json_array(v, key, out);
    *out = (qn_json){ v.doc, NULL };
    return QN_OK;
}

qn_result qn_json_object_or(qn_json v, const char *key, qn_json *out)
{
    if (!missing(pick(v, key))) return qn_json_object(v, key, out);
    *out = (qn_json){ v.doc, NULL };
    return QN_OK;
}
