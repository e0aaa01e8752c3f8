// A string that grows, with escapes for XML. Once memory runs out it stays
// failed and further calls do nothing; the one check is at the end.
#ifndef QN_TEXTBUF_H
#define QN_TEXTBUF_H

#include "fail.h"

#include <stdio.h>

typedef struct qn_textbuf {
    char *data; // NUL-terminated once anything was added; NULL before
    size_t size, capacity;
    bool failed;
} qn_textbuf;

QN_API void qn_textbuf_add(qn_textbuf *t, const void *bytes, size_t size);
QN_API void qn_textbuf_puts(qn_textbuf *t, const char *s);
QN_API void qn_textbuf_printf(qn_textbuf *t, const char *fmt, ...) QN_PRINTF(2, 3);
// s with bytes that are not UTF-8 replaced by U+FFFD.
QN_API void qn_textbuf_clean(qn_textbuf *t, const char *s);
// s for XML text and attribute values; control characters and broken UTF-8 become U+FFFD.
QN_API void qn_textbuf_xml(qn_textbuf *t, const char *s);
// The content, "" when empty.
QN_API const char *qn_textbuf_get(const qn_textbuf *t);
// QN_OK, or QN_ERR_NO_MEMORY with its message.
QN_API qn_result qn_textbuf_status(const qn_textbuf *t);
// Writes the content to `path` atomically.
QN_API qn_result qn_textbuf_save(const qn_textbuf *t, const char *path);
QN_API void qn_textbuf_free(qn_textbuf *t);

// Characters of s; a byte that belongs to none counts as one.
QN_API size_t qn_textbuf_columns(const char *s);

#endif
