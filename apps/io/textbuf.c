// The growing string and its escapes.
#include "io/textbuf.h"
#include "mem.h"
#include "platform.h"
#include "io/utf8.h"

#include <stdarg.h>
#include <string.h>

static bool make_room(qn_textbuf *t, size_t more)
{
    if (t->failed) return false;
    if (more > SIZE_MAX - t->size - 1 ||
        qn_grow((void **)&t->data, &t->capacity, t->size + more + 1, 1) != QN_OK) {
        t->failed = true;
        return false;
    }
    return true;
}

void qn_textbuf_add(qn_textbuf *t, const void *bytes, size_t size)
{
    if (!make_room(t, size)) return;
    if (size) memcpy(t->data + t->size, bytes, size); // of nothing, bytes may be NULL
    t->size += size;
    t->data[t->size] = 0;
}

void qn_textbuf_puts(qn_textbuf *t, const char *s)
{
    qn_textbuf_add(t, s, strlen(s));
}

void qn_textbuf_printf(qn_textbuf *t, const char *fmt, ...)
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

size_t qn_textbuf_columns(const char *s)
{
    size_t columns = 0;
    for (size_t n = strlen(s); n; columns++) {
        size_t length = qn_utf8_char(s, n, NULL);
        if (!length) length = 1;
        s += length;
        n -= length;
    }
    return columns;
}

#define REPLACEMENT "\xef\xbf\xbd" // U+FFFD

void qn_textbuf_clean(qn_textbuf *t, const char *s)
{
    for (size_t n = strlen(s); n;) {
        size_t length = qn_utf8_char(s, n, NULL);
        qn_textbuf_add(t, length ? s : REPLACEMENT, length ? length : strlen(REPLACEMENT));
        if (!length) length = 1;
        s += length;
        n -= length;
    }
}

// XML 1.0 has no place for most control characters, nor for U+FFFE and U+FFFF.
static bool is_xml(uint32_t c)
{
    return (c >= 0x20 && c != 0x7f && c != 0xfffe && c != 0xffff) || c == '\t' || c == '\n';
}

void qn_textbuf_xml(qn_textbuf *t, const char *s)
{
    for (size_t n = strlen(s); n;) {
        uint32_t c = 0;
        size_t length = qn_utf8_char(s, n, &c);
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&quot;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        if (entity)
            qn_textbuf_puts(t, entity);
        else if (!length || !is_xml(c))
            qn_textbuf_puts(t, REPLACEMENT);
        else
            qn_textbuf_add(t, s, length);
        if (!length) length = 1;
        s += length;
        n -= length;
    }
}

const char *qn_textbuf_get(const qn_textbuf *t)
{
    return t->data ? t->data : "";
}

qn_result qn_textbuf_status(const qn_textbuf *t)
{
    return t->failed ? qn_no_memory(t->size) : QN_OK;
}

qn_result qn_textbuf_save(const qn_textbuf *t, const char *path)
{
    QN_TRY(qn_textbuf_status(t));
    return qn_write_file(path, qn_textbuf_get(t), t->size);
}

void qn_textbuf_free(qn_textbuf *t)
{
    qn_free(t->data);
    *t = (qn_textbuf){ 0 };
}
