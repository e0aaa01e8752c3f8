// Writing JSON text: indented by one space a level, or compact.
#include "json.h"
#include "mem.h"
#include "platform.h"
#include "utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append(qn_json_writer *w, const char *text, size_t size)
{
    if (w->status != QN_OK) return;
    w->status = qn_grow((void **)&w->text, &w->capacity, w->size + size, 1);
    if (w->status != QN_OK) return;
    memcpy(w->text + w->size, text, size);
    w->size += size;
}

static void append_line(qn_json_writer *w)
{
    if (w->compact) return;
    append(w, "\n", 1);
    for (uint32_t i = 0; i < w->depth; i++) append(w, " ", 1);
}

static void append_quoted(qn_json_writer *w, const char *s, size_t size)
{
    if (w->status == QN_OK && qn_utf8_valid(s, size) != size)
        w->status = qn_fail(QN_ERR_INVALID, "a string that is not valid UTF-8 cannot be written");
    append(w, "\"", 1);
    size_t done = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)s[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7F) continue;
        append(w, s + done, i - done);
        done = i + 1;
        char text[8];
        const char *from = "\b\f\n\r\t\"\\", *to = "bfnrt\"\\";
        const char *known = c ? strchr(from, c) : NULL;
        if (known)
            snprintf(text, sizeof text, "\\%c", to[known - from]);
        else
            snprintf(text, sizeof text, "\\u%04x", c);
        append(w, text, strlen(text));
    }
    append(w, s + done, size - done);
    append(w, "\"", 1);
}

// Everything before a value: the comma after its predecessor, the line, the key.
static void begin(qn_json_writer *w, const char *key, size_t key_size)
{
    if (w->filled) append(w, ",", 1);
    if (w->depth) append_line(w);
    w->filled = true;
    if (!key) return;
    append_quoted(w, key, key_size);
    append(w, ": ", w->compact ? 1 : 2);
}

static void begin_key(qn_json_writer *w, const char *key)
{
    begin(w, key, key ? strlen(key) : 0);
}

static void open_list(qn_json_writer *w, const char *key, const char *bracket)
{
    begin_key(w, key);
    append(w, bracket, 1);
    w->depth++;
    w->filled = false;
}

void qn_json_put_object(qn_json_writer *w, const char *key)
{
    open_list(w, key, "{");
}

void qn_json_put_array(qn_json_writer *w, const char *key)
{
    open_list(w, key, "[");
}

void qn_json_put_end(qn_json_writer *w, char bracket)
{
    w->depth--;
    if (w->filled) append_line(w);
    append(w, &bracket, 1);
    w->filled = true;
}

void qn_json_put_key_int(qn_json_writer *w, const char *key, size_t key_size, int64_t value)
{
    char text[32];
    begin(w, key, key_size);
    int n = snprintf(text, sizeof text, "%" PRId64, value);
    append(w, text, (size_t)n);
}

void qn_json_put_int(qn_json_writer *w, const char *key, int64_t value)
{
    qn_json_put_key_int(w, key, key ? strlen(key) : 0, value);
}

void qn_json_put_number(qn_json_writer *w, const char *key, double value)
{
    char text[40] = "";
    begin_key(w, key);
    if (w->status == QN_OK && !isfinite(value))
        w->status =
            qn_fail(QN_ERR_INVALID, "%s: %g cannot be written as JSON", key ? key : "value", value);
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    for (char *p = text; *p; p++) // a locale may have its own decimal point
        if (!strchr("0123456789+-eE", *p)) *p = '.';
    append(w, text, strlen(text));
}

void qn_json_put_bool(qn_json_writer *w, const char *key, bool value)
{
    begin_key(w, key);
    append(w, value ? "true" : "false", value ? 4 : 5);
}

void qn_json_put_null(qn_json_writer *w, const char *key)
{
    begin_key(w, key);
    append(w, "null", 4);
}

void qn_json_put_text(qn_json_writer *w, const char *key, size_t key_size, const char *value,
                      size_t size)
{
    begin(w, key, key_size);
    append_quoted(w, value, size);
}

void qn_json_put_string(qn_json_writer *w, const char *key, const char *value)
{
    qn_json_put_text(w, key, key ? strlen(key) : 0, value, strlen(value));
}

void qn_json_put_value(qn_json_writer *w, const char *key, qn_json v)
{
    qn_json_kind kind = qn_json_kind_of(v);
    double number = 0;
    bool flag = false;
    const char *text = "";
    switch (kind) {
    case QN_JSON_ABSENT:
        return;
    case QN_JSON_NULL:
        qn_json_put_null(w, key);
        return;
    case QN_JSON_BOOL:
        qn_json_bool(v, NULL, &flag);
        qn_json_put_bool(w, key, flag);
        return;
    case QN_JSON_NUMBER:
        qn_json_number(v, NULL, -INFINITY, INFINITY, &number);
        qn_json_put_number(w, key, number);
        return;
    case QN_JSON_STRING:
        qn_json_nul_string(v, NULL, &text); // one with NULs is not UTF-8 and sticks as failure
        qn_json_put_string(w, key, text);
        return;
    case QN_JSON_ARRAY:
    case QN_JSON_OBJECT:
        break;
    }
    bool object = kind == QN_JSON_OBJECT;
    open_list(w, key, object ? "{" : "[");
    for (qn_json item = qn_json_first(v); item.node; item = qn_json_next(item))
        qn_json_put_value(w, object ? qn_json_key(item) : NULL, item);
    qn_json_put_end(w, object ? '}' : ']');
}

qn_result qn_json_save(qn_json_writer *w, const char *path)
{
    append(w, "\n", 1);
    qn_result r = w->status == QN_OK ? qn_write_file(path, w->text, w->size)
                                     : qn_context_add(w->status, "%s", path);
    qn_json_writer_free(w);
    return r;
}

void qn_json_writer_free(qn_json_writer *w)
{
    qn_free(w->text);
    *w = (qn_json_writer){ .compact = w->compact };
}
