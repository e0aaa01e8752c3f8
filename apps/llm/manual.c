// From roff to running text, roughly: good enough to learn words from.
#include "manual.h"
#include "fail.h"
#include "mem.h"

#include <string.h>

#ifdef QN_HAVE_ZLIB
#include <zlib.h>
#endif

enum { LIMIT = 4 << 20 }; // bytes of one page

// Macros whose arguments are text: fonts and headings.
static bool keeps_arguments(const char *line, size_t size)
{
    static const char *const macros[] = { ".B ", ".I ", ".BR ", ".IR ", ".RB ", ".RI ", ".SH ", ".SS " };
    for (size_t i = 0; i < sizeof macros / sizeof *macros; i++) {
        size_t n = strlen(macros[i]);
        if (size > n && memcmp(line, macros[i], n) == 0) return true;
    }
    return false;
}

// The bytes that the escape at s (a backslash) takes, and what it stands for, or 0.
static size_t escape(const char *s, size_t left, char *means)
{
    *means = 0;
    if (left < 2) return left;
    switch (s[1]) {
    case '-': *means = '-'; return 2;
    case 'e': *means = '\\'; return 2;
    case ' ': case '~': *means = ' '; return 2;
    case 'f': return left > 2 && s[2] == '(' ? 5 : left > 2 && s[2] == '[' ? 2 : 3;
    case '(': return 4;
    case '*': return left > 2 && s[2] == '(' ? 5 : 3;
    case '[': {
        const char *end = memchr(s, ']', left);
        return end ? (size_t)(end + 1 - s) : 2;
    }
    default: return 2;
    }
}

size_t qn_roff_strip(char *roff, size_t size)
{
    size_t out = 0;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(roff + at, '\n', size - at);
        size_t stop = end ? (size_t)(end - roff) : size, next = end ? stop + 1 : size;
        bool macro = roff[at] == '.' || roff[at] == '\'';
        if (macro && keeps_arguments(roff + at, stop - at)) {
            while (at < stop && roff[at] != ' ') at++;
            at++;
        } else if (macro) {
            at = next;
            continue;
        }
        while (at < stop) {
            char c = roff[at];
            size_t used = 1;
            if (c == '\\') used = escape(roff + at, stop - at, &c);
            if (c && !(macro && c == '"')) roff[out++] = c;
            at += used < stop - at ? used : stop - at;
        }
        if (end) roff[out++] = '\n';
        at = next;
    }
    return out;
}

#ifdef QN_HAVE_ZLIB

bool qn_manual_supported(void)
{
    return true;
}

qn_result qn_manual_read(const char *path, char **text, size_t *size)
{
    *text = NULL;
    *size = 0;
    char *buffer = qn_malloc(LIMIT);
    if (!buffer) return qn_no_memory(LIMIT);
    gzFile f = gzopen(path, "rb"); // reads plain files as they are
    int got = f ? gzread(f, buffer, LIMIT) : -1;
    if (f) gzclose(f);
    if (got < 0) {
        qn_free(buffer);
        return qn_fail(QN_ERR_IO, "%s: cannot be read as a manual page", path);
    }
    *text = buffer;
    *size = memchr(buffer, 0, (size_t)got) ? 0 : qn_roff_strip(buffer, (size_t)got);
    return QN_OK;
}

#else

bool qn_manual_supported(void)
{
    return false;
}

qn_result qn_manual_read(const char *path, char **text, size_t *size)
{
    *text = NULL;
    *size = 0;
    return qn_fail(QN_ERR_UNSUPPORTED, "%s: this build has no zlib to read it with", path);
}

#endif
