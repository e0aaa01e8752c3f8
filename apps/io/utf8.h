// UTF-8, one character at a time. Valid means RFC 3629: shortest forms, no surrogates, at most
// U+10FFFF.
#ifndef QN_UTF8_H
#define QN_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Looks at the n > 0 bytes at s. Positive: a character of that many bytes, in *cp (may be NULL).
// Zero: the beginning of a character whose rest is missing. Negative: that many bytes, the longest
// beginning of any character or else a single byte, do not belong to a valid one.
int qn_utf8_step(const void *s, size_t n, uint32_t *cp);

// Length of the valid character at s, 0 when there is none.
static inline size_t qn_utf8_char(const void *s, size_t n, uint32_t *cp)
{
    int step = qn_utf8_step(s, n, cp);
    return step > 0 ? (size_t)step : 0;
}

// Bytes from s on that are valid; n when all are.
size_t qn_utf8_valid(const void *s, size_t n);

// Encodes cp, a scalar value, and returns the number of bytes written.
size_t qn_utf8_put(uint32_t cp, char out[4]);

#endif
