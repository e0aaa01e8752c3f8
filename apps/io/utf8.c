// UTF-8 decoding by the table of well-formed sequences (Unicode standard, table 3-7).
#include "utf8.h"

int qn_utf8_step(const void *s, size_t n, uint32_t *cp)
{
    const uint8_t *b = s;
    uint8_t first = b[0];
    if (first < 0x80) {
        if (cp) *cp = first;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4) return -1;
    int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    // Only the second byte is restricted further: overlong forms, surrogates, above U+10FFFF.
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = first & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i == n) return 0;
        if (b[i] < low || b[i] > high) return -i;
        value = value << 6 | (b[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
    }
    if (cp) *cp = value;
    return length;
}

size_t qn_utf8_valid(const void *s, size_t n)
{
    const uint8_t *b = s;
    size_t i = 0;
    while (i < n) {
        if (b[i] < 0x80) {
            i++;
            continue;
        }
        size_t length = qn_utf8_char(b + i, n - i, NULL);
        if (!length) return i;
        i += length;
    }
    return n;
}

size_t qn_utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t length = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = length; --i > 0; cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3F));
    out[0] = (char)((0xF0u << (4 - length) & 0xF0) | cp);
    return length;
}
