// The growing string and its escapes.
#include "io/textbuf.h"
#include "mem.h"
#include "platform.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool make_room(qn_text *t, size_t more)
{
    if (t->failed) return false;
    if (more > SIZE_MAX - t->size - 1 ||
        qn_grow((void **)&t->data, &t->capacity, t->size + more + 1, 1) != QN_OK) {
        t->failed = true;
        return false;
    }
    return true;
}

void qn_text_add(qn_text *t, const void *bytes, size_t size)
{
    if (!make_room(t, size)) return;
    memcpy(t->data + t->size, bytes, size);
    t->size += size;
    t->data[t->size] = 0;
}

void qn_text_puts(qn_text *t, const char *s)
{
    qn_text_add(t, s, strlen(s));
}

void qn_text_printf(qn_text *t, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n >= 0 && make_room(t, (size_t)n)) {
        vsnprintf(t->data + t->size, (size_t)n + 1, fmt, again);
        t->size += (size_t)n;
    }
    va_end(again);
}

size_t qn_utf8_length(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (!s[0]) return 0;
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool beyond = (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90);
    return overlong || beyond ? 0 : n;
}

size_t qn_utf8_count(const char *s)
{
    size_t n = 0;
    for (; *s; n++) {
        size_t length = qn_utf8_length(s);
        s += length ? length : 1;
    }
    return n;
}

#define REPLACEMENT "\xef\xbf\xbd" // U+FFFD

void qn_text_json(qn_text *t, const char *s)
{
    qn_text_puts(t, "\"");
    while (*s) {
        size_t n = qn_utf8_length(s);
        unsigned char c = (unsigned char)*s;
        if (n == 0) {
            qn_text_puts(t, REPLACEMENT);
            n = 1;
        } else if (c == '"' || c == '\\') {
            qn_text_printf(t, "\\%c", c);
        } else if (c == '\n') {
            qn_text_puts(t, "\\n");
        } else if (c == '\t') {
            qn_text_puts(t, "\\t");
        } else if (c < 0x20 || c == 0x7f) {
            qn_text_printf(t, "\\u%04x", c);
        } else {
            qn_text_add(t, s, n);
        }
        s += n;
    }
    qn_text_puts(t, "\"");
}

void qn_text_json_number(qn_text *t, double v)
{
    if (!isfinite(v)) {
        qn_text_puts(t, "null");
        return;
    }
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    qn_text_puts(t, text);
}

void qn_text_xml(qn_text *t, const char *s)
{
    while (*s) {
        size_t n = qn_utf8_length(s);
        unsigned char c = (unsigned char)*s;
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&quot;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        bool forbidden = n == 0 || (c < 0x20 && c != '\t' && c != '\n') || c == 0x7f ||
                         !strncmp(s, "\xef\xbf\xbe", 3) || !strncmp(s, "\xef\xbf\xbf", 3);
        if (entity) {
            qn_text_puts(t, entity);
        } else if (forbidden) {
            qn_text_puts(t, REPLACEMENT);
        } else {
            qn_text_add(t, s, n);
        }
        s += n ? n : 1;
    }
}

const char *qn_text_get(const qn_text *t)
{
    return t->data ? t->data : "";
}

qn_result qn_text_status(const qn_text *t)
{
    return t->failed ? qn_no_memory(t->size) : QN_OK;
}

qn_result qn_text_save(const qn_text *t, const char *path)
{
    QN_TRY(qn_text_status(t));
    return qn_write_file(path, qn_text_get(t), t->size);
}

void qn_text_free(qn_text *t)
{
    qn_free(t->data);
    *t = (qn_text){ 0 };
}
