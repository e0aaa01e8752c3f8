// A string that grows, with escapes for XML. Once memory runs out it stays
// failed and further calls do nothing; the one check is at the end.
#ifndef QN_TEXTBUF_H
#define QN_TEXTBUF_H

#include "fail.h"

#include <stdio.h>

typedef struct qn_text {
    char *data; // NUL-terminated once anything was added; NULL before
    size_t size, capacity;
    bool failed;
} qn_text;

QN_API void qn_text_add(qn_text *t, const void *bytes, size_t size);
QN_API void qn_text_puts(qn_text *t, const char *s);
QN_API void qn_text_printf(qn_text *t, const char *fmt, ...) QN_PRINTF(2, 3);
// s with bytes that are not UTF-8 replaced by U+FFFD.
QN_API void qn_text_clean(qn_text *t, const char *s);
// s for XML text and attribute values; control characters and broken UTF-8 become U+FFFD.
QN_API void qn_text_xml(qn_text *t, const char *s);
// The content, "" when empty.
QN_API const char *qn_text_get(const qn_text *t);
// QN_OK, or QN_ERR_NO_MEMORY with its message.
QN_API qn_result qn_text_status(const qn_text *t);
// Writes the content to `path` atomically.
QN_API qn_result qn_text_save(const qn_text *t, const char *path);
QN_API void qn_text_free(qn_text *t);

// Characters of s; a byte that belongs to none counts as one.
QN_API size_t qn_text_columns(const char *s);

#endif
