// Splitting patterns, matched by PCRE2. [gpt2] section 2.2.
#include "pretokenize.h"
#include "fail.h"
#include "io/utf8.h"
#include "mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define PATTERN_LIMIT 65536    // bytes
#define MATCH_LIMIT 10000000   // backtracking steps of one match, PCRE2's own default
#define HEAP_LIMIT (64 * 1024) // KiB that a match without machine code may need

static const struct {
    const char *name, *pattern;
} patterns[] = {
    { "gpt2",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
    { "llama3", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
                " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
};

// Unicode's White_Space. PCRE2's own \s has U+180E besides, which the makers of vocabularies do
// not count.
#define SPACE                                                                                      \
    "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"  \
    "\\x{205f}\\x{3000}"

struct qn_splitter {
    pcre2_code *code;
    pcre2_general_context *memory;
    bool is_default;
    char pattern[];
};

static void *allocate(size_t size, void *user)
{
    (void)user;
    return qn_malloc(size);
}

static void release(void *p, void *user)
{
    (void)user;
    qn_free(p);
}

// Copies one escape from *p on, spelling out \s and \S. In a class, where \S cannot be spelled
// out, U+180E is added to it. False: an escape that engines understand differently.
static bool spell_escape(const char **p, char **to, bool in_class)
{
    char c = *++*p;
    const char *text = NULL;
    if (c == 's') text = in_class ? SPACE : "[" SPACE "]";
    if (c == 'S') text = in_class ? "\\S\\x{180e}" : "[^" SPACE "]";
    bool letter = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
    if (!c || (letter && !strchr("sSpPdDrntfx", c))) return false;
    if (text)
        *to += sprintf(*to, "%s", text);
    else
        *to += sprintf(*to, "\\%c", c);
    ++*p;
    return true;
}

// The pattern for PCRE2, or NULL and *r. Vocabularies come with patterns for another engine;
// what the two understand differently is refused rather than guessed.
static char *spell_out(const char *pattern, qn_result *r)
{
    size_t room = 1;
    for (const char *p = pattern; *p; p++) room += *p == '\\' ? sizeof SPACE + 4 : 1;
    char *out = qn_malloc(room), *to = out;
    *r = out ? QN_OK : qn_no_memory(room);
    bool in_class = false;
    for (const char *p = pattern; out && *p;) {
        bool good = true;
        if (*p == '\\') {
            good = spell_escape(&p, &to, in_class);
        } else if (*p == '[' && !in_class) {
            in_class = true;
            *to++ = *p++;
            if (*p == '^') *to++ = *p++;
            good = *p != ']'; // first in a class: an ordinary character or an empty class
        } else {
            good = !in_class || (*p != '[' && strncmp(p, "&&", 2)); // classes in classes
            if (*p == ']') in_class = false;
            *to++ = *p++;
        }
        if (good) continue;
        *r = qn_fail(QN_ERR_UNSUPPORTED, "splitting pattern \"%.200s\": \"%.10s\" is not supported",
                     pattern, p);
        qn_free(out);
        return NULL;
    }
    if (out) *to = 0;
    return out;
}

static qn_result compile_spelled(qn_splitter *s, const char *spelled)
{
    pcre2_compile_context *context = pcre2_compile_context_create(s->memory);
    if (!context) return qn_no_memory(strlen(spelled));
    pcre2_set_max_pattern_length(context, PATTERN_LIMIT * 8);
    int code;
    PCRE2_SIZE at;
    s->code = pcre2_compile((PCRE2_SPTR)spelled, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!s->code && code == PCRE2_ERROR_HEAP_FAILED) return qn_no_memory(strlen(spelled));
    if (!s->code) {
        PCRE2_UCHAR text[256] = "";
        pcre2_get_error_message(code, text, sizeof text);
        return qn_fail(QN_ERR_FORMAT, "splitting pattern \"%.200s\": %s", s->pattern,
                       (const char *)text);
    }
    // Without machine code, or the memory for it, matching is slower and otherwise the same.
    pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE);
    return QN_OK;
}

static qn_result compile(qn_splitter *s)
{
    qn_result r;
    s->memory = pcre2_general_context_create(allocate, release, NULL);
    if (!s->memory) return qn_no_memory(sizeof *s);
    char *spelled = spell_out(s->pattern, &r);
    if (spelled) r = compile_spelled(s, spelled);
    qn_free(spelled);
    return r;
}

qn_result qn_splitter_create(const char *pattern, qn_splitter **out)
{
    const char *text = pattern ? pattern : patterns[0].pattern;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if (!strcmp(text, patterns[i].name)) text = patterns[i].pattern;
    size_t size = strlen(text);
    if (size > PATTERN_LIMIT)
        return qn_fail(QN_ERR_FORMAT, "a splitting pattern of %zu bytes, expected at most %d", size,
                       PATTERN_LIMIT);
    qn_splitter *s = qn_calloc(1, sizeof *s + size + 1);
    if (!s) return qn_no_memory(sizeof *s + size + 1);
    memcpy(s->pattern, text, size + 1);
    s->is_default = !strcmp(text, patterns[0].pattern);
    qn_result r = compile(s);
    if (r == QN_OK)
        *out = s;
    else
        qn_splitter_destroy(&s);
    return r;
}

void qn_splitter_destroy(qn_splitter **s)
{
    if (!*s) return;
    pcre2_code_free((*s)->code);
    pcre2_general_context_free((*s)->memory);
    qn_free(*s);
    *s = NULL;
}

const char *qn_splitter_pattern(const qn_splitter *s)
{
    return s->pattern;
}

bool qn_splitter_is_default(const qn_splitter *s)
{
    return s->is_default;
}

qn_result qn_clean_utf8(const uint8_t *text, size_t size, uint8_t **copy)
{
    *copy = NULL;
    size_t at = qn_utf8_valid(text, size);
    if (at == size) return QN_OK;
    uint8_t *clean = qn_malloc(size);
    if (!clean) return qn_no_memory(size);
    memcpy(clean, text, size);
    while (at < size) {
        clean[at++] = 0x7F;
        at += qn_utf8_valid(text + at, size - at);
    }
    *copy = clean;
    return QN_OK;
}

qn_result qn_pieces_create(const qn_splitter *s, qn_pieces *out)
{
    *out = (qn_pieces){ .splitter = s };
    out->match = pcre2_match_data_create(1, s->memory);
    out->context = pcre2_match_context_create(s->memory);
    if (!out->match || !out->context) {
        qn_pieces_destroy(out);
        return qn_no_memory(256);
    }
    pcre2_set_match_limit(out->context, MATCH_LIMIT);
    pcre2_set_heap_limit(out->context, HEAP_LIMIT);
    return QN_OK;
}

void qn_pieces_destroy(qn_pieces *p)
{
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    *p = (qn_pieces){ 0 };
}

void qn_pieces_start(qn_pieces *p, const uint8_t *clean, size_t size)
{
    p->text = clean;
    p->size = size;
    p->at = p->match_at = p->match_end = 0;
}

// Looks for the next match that is not empty; without one, everything left is a single piece.
static qn_result find_match(qn_pieces *p)
{
    const pcre2_code *code = p->splitter->code;
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int n = pcre2_match(code, p->text, p->size, p->at, options, p->match, p->context);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter's stack is on the heap
        n = pcre2_match(code, p->text, p->size, p->at, options | PCRE2_NO_JIT, p->match,
                        p->context);
    p->match_at = p->match_end = p->size;
    if (n == PCRE2_ERROR_NOMATCH) return QN_OK;
    if (n == PCRE2_ERROR_NOMEMORY) return qn_no_memory(p->size);
    if (n < 0) {
        PCRE2_UCHAR text[256] = "";
        pcre2_get_error_message(n, text, sizeof text);
        return qn_fail(QN_ERR_UNSUPPORTED, "splitting pattern \"%.200s\": %s", p->splitter->pattern,
                       (const char *)text);
    }
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(p->match);
    if (found[0] < p->at || found[1] <= found[0]) return QN_OK; // \K can move the beginning
    p->match_at = found[0];
    p->match_end = found[1];
    return QN_OK;
}

qn_result qn_pieces_next(qn_pieces *p, size_t *begin, size_t *end)
{
    *begin = *end = p->at;
    if (p->at == p->size) return QN_OK;
    if (p->match_end <= p->at) QN_TRY(find_match(p));
    // What lies between two matches is a piece as well.
    *end = p->at = p->at < p->match_at ? p->match_at : p->match_end;
    return QN_OK;
}
