// A JSON text checked by recursive descent; nothing is built, the depth is bounded.
#include "json_scan.h"
#include "utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_CHARS 60 // what the parser behind takes without cutting

typedef struct scan {
    const char *name;
    const uint8_t *text, *at, *end;
    uint32_t depth;
    uint64_t values, value_limit;
    size_t nuls;
} scan;

static const char *found(const scan *s, char out[24])
{
    if (s->at == s->end) return "the end";
    uint8_t c = *s->at;
    snprintf(out, 24, c > 0x20 && c < 0x7F ? "'%c'" : "byte 0x%02x", c);
    return out;
}

static qn_result fail_at(const scan *s, const char *what)
{
    size_t line = 1, column = 1;
    for (const uint8_t *p = s->text; p < s->at; p++) {
        if (*p == '\n') {
            line++;
            column = 1;
        } else if ((*p & 0xC0) != 0x80) {
            column++;
        }
    }
    return qn_fail(QN_ERR_FORMAT, "%s: line %zu, column %zu: %s", s->name, line, column, what);
}

static qn_result expected(const scan *s, const char *what)
{
    char byte[24], text[128];
    snprintf(text, sizeof text, "found %s, expected %s", found(s, byte), what);
    return fail_at(s, text);
}

static void skip_space(scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool take(scan *s, char c)
{
    if (s->at == s->end || *s->at != (uint8_t)c) return false;
    s->at++;
    return true;
}

static qn_result scan_hex4(scan *s, uint32_t *out)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        uint8_t c = s->at < s->end ? *s->at : 0;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            return expected(s, "a hexadecimal digit");
    }
    *out = value;
    return QN_OK;
}

static qn_result scan_escape(scan *s, bool key)
{
    const uint8_t *start = s->at - 1;
    if (s->at == s->end || !strchr("\"\\/bfnrtu", *s->at) || !*s->at)
        return expected(s, "an escape: one of \"\\/bfnrtu");
    if (*s->at++ != 'u') return QN_OK;
    uint32_t unit = 0, low = 0;
    QN_TRY(scan_hex4(s, &unit));
    if (unit >= 0xD800 && unit < 0xDC00) {
        if (!take(s, '\\') || !take(s, 'u')) return expected(s, "the second half of a surrogate");
        QN_TRY(scan_hex4(s, &low));
        if (low >= 0xDC00 && low < 0xE000) return QN_OK;
        s->at = start;
        return fail_at(s, "half a surrogate pair");
    }
    if (!unit) s->nuls++;
    if (unit ? unit < 0xDC00 || unit >= 0xE000 : !key) return QN_OK;
    s->at = start;
    return fail_at(s, unit ? "half a surrogate pair" : "a NUL character in a key");
}

static qn_result scan_string(scan *s, bool key)
{
    if (!take(s, '"')) return expected(s, "a string");
    while (s->at < s->end) {
        uint8_t c = *s->at;
        if (c == '"') {
            s->at++;
            return QN_OK;
        }
        if (c < 0x20) return expected(s, "no control character in a string");
        if (c == '\\') {
            s->at++;
            QN_TRY(scan_escape(s, key));
            continue;
        }
        size_t length = qn_utf8_char(s->at, (size_t)(s->end - s->at), NULL);
        if (!length) return fail_at(s, "invalid UTF-8");
        s->at += length;
    }
    return expected(s, "'\"' at the end of a string");
}

static bool skip_digits(scan *s)
{
    const uint8_t *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
    return s->at > start;
}

static qn_result scan_number(scan *s)
{
    const uint8_t *start = s->at;
    take(s, '-');
    if (take(s, '0')) {
        if (s->at < s->end && *s->at >= '0' && *s->at <= '9')
            return expected(s, "no digit after a leading 0");
    } else if (!skip_digits(s)) {
        return expected(s, s->at > start ? "a digit" : "a value");
    }
    if (take(s, '.') && !skip_digits(s)) return expected(s, "a digit");
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+')) take(s, '-');
        if (!skip_digits(s)) return expected(s, "a digit");
    }
    if (s->at - start <= NUMBER_CHARS) return QN_OK;
    s->at = start;
    return fail_at(s, "a number of more than 60 characters");
}

static qn_result scan_word(scan *s, const char *word)
{
    for (const char *p = word; *p; p++)
        if (!take(s, *p)) return expected(s, word);
    return QN_OK;
}

static qn_result scan_value(scan *s, uint32_t depth);

static qn_result scan_list(scan *s, char close, uint32_t depth)
{
    if (!depth) return fail_at(s, "arrays and objects nested too deeply");
    s->at++;
    skip_space(s);
    if (take(s, close)) return QN_OK;
    for (;;) {
        skip_space(s);
        if (close == '}') {
            QN_TRY(scan_string(s, true));
            skip_space(s);
            if (!take(s, ':')) return expected(s, "':'");
        }
        QN_TRY(scan_value(s, depth - 1));
        skip_space(s);
        if (take(s, close)) return QN_OK;
        if (!take(s, ',')) return expected(s, close == '}' ? "',' or '}'" : "',' or ']'");
    }
}

static qn_result scan_value(scan *s, uint32_t depth)
{
    skip_space(s);
    if (++s->values > s->value_limit) return fail_at(s, "more values than the limit");
    switch (s->at < s->end ? *s->at : 0) {
    case '{':
        return scan_list(s, '}', depth);
    case '[':
        return scan_list(s, ']', depth);
    case '"':
        return scan_string(s, false);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

qn_result qn_json_scan(const char *name, const char *text, size_t size, uint32_t depth,
                       uint64_t values, size_t *nuls)
{
    scan s = { .name = name, .depth = depth, .value_limit = values };
    s.text = s.at = (const uint8_t *)text;
    s.end = s.text + size;
    if (size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) s.at += 3; // a byte order mark
    QN_TRY(scan_value(&s, depth));
    skip_space(&s);
    *nuls = s.nuls;
    return s.at == s.end ? QN_OK : expected(&s, "nothing more");
}
