// Parsing by option tables.
#include "cli/opts.h"
#include "nearest.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD 64 // longest word of a choice

char *qn_quote(const char *s, char text[QN_QUOTED])
{
    size_t n = 0;
    text[n++] = '\'';
    for (; *s && n < QN_QUOTED - 8; s++) {
        text[n++] = (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s;
    }
    if (*s) {
        while (n > 1 && ((unsigned char)text[n - 1] & 0xc0) == 0x80) n--; // no half characters
        if (n > 1 && ((unsigned char)text[n - 1] & 0xc0) == 0xc0) n--;
        memcpy(text + n, "...", 3);
        n += 3;
    }
    text[n++] = '\'';
    text[n] = 0;
    return text;
}

// ------------------------------------------------------------------------------------ words

bool qn_words_at(const char *words, int index, char *text, size_t size)
{
    for (; words && *words; index--) {
        size_t n = strcspn(words, "|");
        if (index == 0) {
            snprintf(text, size, "%.*s", (int)n, words);
            return true;
        }
        words += n + (words[n] == '|');
    }
    return false;
}

int qn_words_find(const char *words, const char *word)
{
    char w[WORD];
    for (int i = 0; qn_words_at(words, i, w, sizeof w); i++) {
        if (!strcmp(w, word)) return i;
    }
    return -1;
}

bool qn_words_nearest(const char *words, const char *word, char *text, size_t size)
{
    char w[WORD];
    qn_nearest near = { .word = word };
    bool found = false;
    for (int i = 0; qn_words_at(words, i, w, sizeof w); i++) {
        const char *before = near.best;
        size_t distance = near.distance;
        qn_nearest_offer(&near, w);
        if (near.best == before && near.distance == distance) continue;
        snprintf(text, size, "%s", w);
        found = true;
    }
    return found;
}

void qn_words_join(const char *words, char *text, size_t size)
{
    char w[WORD];
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; qn_words_at(words, i, w, sizeof w) && used < size; i++) {
        char next[WORD];
        const char *join = i == 0                                         ? ""
                           : qn_words_at(words, i + 1, next, sizeof next) ? ", "
                                                                          : " or ";
        int n = snprintf(text + used, size - used, "%s%s", join, w);
        used += n > 0 ? (size_t)n : 0;
    }
}

// ------------------------------------------------------------------------------------ sizes

static const char units[] = "KMGTPE";

bool qn_parse_size(const char *s, uint64_t *out)
{
    if (!isdigit((unsigned char)*s)) return false;
    char *end;
    errno = 0;
    uint64_t whole = strtoull(s, &end, 10);
    if (errno) return false;
    double fraction = 0;
    if (*end == '.') {
        double place = 0.1;
        for (end++; isdigit((unsigned char)*end); end++, place /= 10)
            fraction += (*end - '0') * place;
    }
    uint64_t unit = 1;
    const char *u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (u) {
        unit = UINT64_C(1) << (10 * (u - units + 1));
        end++;
        if (*end == 'i' && (end[1] == 'B' || end[1] == 'b')) end++;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end || (fraction > 0 && unit == 1)) return false;
    uint64_t bytes;
    return qn_mul_u64(whole, unit, &bytes) &&
           qn_add_u64(bytes, (uint64_t)(fraction * (double)unit), out);
}

char *qn_format_size(uint64_t bytes, char *text, size_t size)
{
    if (bytes < 1024) {
        snprintf(text, size, "%u B", (unsigned)bytes);
        return text;
    }
    double v = (double)bytes / 1024;
    int u = 0;
    for (; v >= 1023.95 && units[u + 1]; u++) v /= 1024;
    snprintf(text, size,
             v < 9.995   ? "%.2f %ciB"
             : v < 99.95 ? "%.1f %ciB"
                         : "%.0f %ciB",
             v, units[u]);
    return text;
}

// ------------------------------------------------------------------------------------ rows

bool qn_opt_has_value(const qn_opt *opt)
{
    return opt->type != QN_OPT_FLAG && opt->type != QN_OPT_COUNT;
}

void qn_opt_format(const qn_opt *opt, char *text, size_t size)
{
    static const char *const names[] = {
        [QN_OPT_INT] = "N",     [QN_OPT_FLOAT] = "X",     [QN_OPT_STRING] = "TEXT",
        [QN_OPT_PATH] = "PATH", [QN_OPT_CHOICE] = "WORD", [QN_OPT_SIZE] = "SIZE",
        [QN_OPT_LIST] = "LIST",
    };
    char letter[8] = "    ";
    if (opt->letter) snprintf(letter, sizeof letter, "-%c, ", opt->letter);
    const char *value = qn_opt_has_value(opt) ? (opt->value ? opt->value : names[opt->type]) : "";
    snprintf(text, size, "%s--%s%s%s", letter, opt->name, *value ? " " : "", value);
}

static bool has_range(const qn_opt *opt)
{
    return opt->min != 0 || opt->max != 0;
}

static void format_limit(const qn_opt *opt, double v, char *text, size_t size)
{
    if (opt->type == QN_OPT_SIZE)
        qn_format_size((uint64_t)v, text, size);
    else
        snprintf(text, size, opt->type == QN_OPT_INT ? "%.0f" : "%g", v);
}

// "from 1 to 100", "at least 1"; "" without limits
static void format_range(const qn_opt *opt, char *text, size_t size)
{
    char lo[32], hi[32];
    text[0] = 0;
    if (!has_range(opt)) return;
    format_limit(opt, opt->min, lo, sizeof lo);
    if (isfinite(opt->max)) format_limit(opt, opt->max, hi, sizeof hi);
    const char *to = opt->open ? "below" : "to";
    if (isfinite(opt->min) && isfinite(opt->max))
        snprintf(text, size, "from %s %s %s", lo, to, hi);
    else if (isfinite(opt->min))
        snprintf(text, size, "at least %s", lo);
    else if (isfinite(opt->max))
        snprintf(text, size, "%s %s", opt->open ? "below" : "at most", hi);
}

void qn_opt_describe(const qn_opt *opt, char *text, size_t size)
{
    char what[256] = "";
    if (opt->words) {
        qn_words_join(opt->words, what, sizeof what);
    } else {
        format_range(opt, what, sizeof what);
        if (!strncmp(what, "from ", 5)) memmove(what, what + 5, strlen(what + 5) + 1);
    }
    bool shown = opt->initial && *opt->initial;
    snprintf(text, size, "%s%s%s%s", what, *what && shown ? "; " : "", shown ? "default " : "",
             shown ? opt->initial : "");
}

// ------------------------------------------------------------------------------------ values

static qn_result expected(const qn_opt *opt, const char *value, const char *what)
{
    char range[96], quoted[QN_QUOTED];
    format_range(opt, range, sizeof range);
    return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected %s%s%s", opt->name,
                   qn_quote(value, quoted), what, *range ? " " : "", range);
}

static bool in_range(const qn_opt *opt, double v)
{
    if (!has_range(opt)) return true;
    return v >= opt->min && (opt->open ? v < opt->max : v <= opt->max);
}

static qn_result parse_int(const qn_opt *opt, const char *s, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    bool blank = isspace((unsigned char)*s);
    if (end == s || *end || blank || errno || !in_range(opt, (double)v)) {
        return expected(opt, s, "a whole number");
    }
    *out = v;
    return QN_OK;
}

static qn_result parse_float(const qn_opt *opt, const char *s, double *out)
{
    char *end;
    double v = strtod(s, &end); // overflow becomes an infinity, which only an open range admits
    bool blank = isspace((unsigned char)*s);
    bool admits = isfinite(v) || (has_range(opt) && v == opt->max);
    if (end == s || *end || blank || isnan(v) || !admits || !in_range(opt, v)) {
        return expected(opt, s, "a number");
    }
    *out = v;
    return QN_OK;
}

static qn_result parse_size(const qn_opt *opt, const char *s, uint64_t *out)
{
    uint64_t v;
    if (!qn_parse_size(s, &v) || !in_range(opt, (double)v)) {
        return expected(opt, s, "a size such as 512M or 1.5G");
    }
    *out = v;
    return QN_OK;
}

static qn_result check_word(const qn_opt *opt, const char *s, int *out)
{
    int i = qn_words_find(opt->words, s);
    if (i >= 0) {
        *out = i;
        return QN_OK;
    }
    char all[256], near[WORD], quoted[QN_QUOTED];
    qn_words_join(opt->words, all, sizeof all);
    if (qn_words_nearest(opt->words, s, near, sizeof near)) {
        return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected %s; did you mean '%s'?", opt->name,
                       qn_quote(s, quoted), all, near);
    }
    return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected %s", opt->name, qn_quote(s, quoted),
                   all);
}

static qn_result add_items(qn_opts *o, const qn_opt *opt, const char *s, qn_opt_list *list)
{
    size_t more = 1;
    for (const char *p = s; *p; p++) more += *p == ',';
    const char **items = qn_arena_alloc(&o->arena, (list->count + more) * sizeof *items);
    char *copy = qn_arena_printf(&o->arena, "%s", s);
    if (!items || !copy) return qn_no_memory(strlen(s));
    if (list->count) memcpy(items, list->items, list->count * sizeof *items);
    size_t n = list->count;
    for (char *comma; copy; copy = comma) {
        comma = strchr(copy, ',');
        if (comma) *comma++ = 0;
        int index;
        if (!*copy) return expected(opt, s, "names separated by commas, none of them empty");
        if (opt->words) QN_TRY(check_word(opt, copy, &index));
        items[n++] = copy;
    }
    *list = (qn_opt_list){ .items = items, .count = n };
    return QN_OK;
}

static qn_result set_value(qn_opts *o, const qn_opt *opt, void *values, const char *s)
{
    void *at = (char *)values + opt->at;
    switch (opt->type) {
    case QN_OPT_FLAG:
        *(bool *)at = true;
        return QN_OK;
    case QN_OPT_COUNT:
        ++*(int *)at;
        return QN_OK;
    case QN_OPT_INT:
        return parse_int(opt, s, at);
    case QN_OPT_FLOAT:
        return parse_float(opt, s, at);
    case QN_OPT_PATH:
        if (!*s) return expected(opt, s, "a path");
        *(const char **)at = s;
        return QN_OK;
    case QN_OPT_STRING:
        *(const char **)at = s;
        return QN_OK;
    case QN_OPT_CHOICE:
        return check_word(opt, s, at);
    case QN_OPT_SIZE:
        return parse_size(opt, s, at);
    case QN_OPT_LIST:
        return add_items(o, opt, s, at);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ tables

qn_result qn_opts_add(qn_opts *o, const qn_opt *table, void *values)
{
    size_t rows = 0;
    while (table[rows].name) rows++;
    bool *given = qn_arena_alloc(&o->arena, rows ? rows : 1);
    if (!given || o->table_count == QN_OPT_TABLES) return qn_no_memory(rows);
    o->tables[o->table_count].table = table;
    o->tables[o->table_count].values = values;
    o->tables[o->table_count].given = given;
    o->table_count++;
    for (const qn_opt *opt = table; opt->name; opt++) {
        if (!opt->initial || !*opt->initial) continue;
        QN_TRY(qn_context_add(set_value(o, opt, values, opt->initial), "default"));
    }
    return QN_OK;
}

// The row of a long name (of `size` bytes) or of a letter, and its place in the tables.
static const qn_opt *find(const qn_opts *o, const char *name, size_t size, char letter,
                          size_t *table)
{
    for (size_t t = 0; t < o->table_count; t++) {
        for (const qn_opt *opt = o->tables[t].table; opt->name; opt++) {
            bool same = name ? strlen(opt->name) == size && !memcmp(opt->name, name, size)
                             : opt->letter == letter;
            if (!same) continue;
            *table = t;
            return opt;
        }
    }
    return NULL;
}

static qn_result unknown(const qn_opts *o, const char *arg, size_t size)
{
    char word[64], quoted[QN_QUOTED];
    snprintf(word, sizeof word, "%.*s", (int)(size < 63 ? size : 63), arg);
    qn_nearest near = { .word = word + 2 };
    for (size_t t = 0; t < o->table_count; t++) {
        for (const qn_opt *opt = o->tables[t].table; opt->name; opt++)
            qn_nearest_offer(&near, opt->name);
    }
    qn_quote(word, quoted);
    if (near.best) {
        return qn_fail(QN_ERR_INVALID, "unknown option %s; did you mean '--%s'?", quoted,
                       near.best);
    }
    return qn_fail(QN_ERR_INVALID, "unknown option %s", quoted);
}

// A following argument that is itself an option is not taken for a value: "--out --steps 5".
static bool is_option(const qn_opts *o, const char *arg)
{
    size_t table;
    return !strncmp(arg, "--", 2) && find(o, arg + 2, strcspn(arg + 2, "="), 0, &table);
}

static qn_result apply(qn_opts *o, const qn_opt *opt, size_t table, const char *value, int argc,
                       char **argv, int *at)
{
    if (!qn_opt_has_value(opt)) {
        if (value) {
            char quoted[QN_QUOTED];
            return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected no value", opt->name,
                           qn_quote(value, quoted));
        }
    } else if (!value) {
        if (*at == argc || is_option(o, argv[*at])) {
            char text[96];
            qn_opt_format(opt, text, sizeof text);
            return qn_fail(QN_ERR_INVALID, "--%s: found nothing, expected a value: %s", opt->name,
                           strstr(text, "--"));
        }
        value = argv[(*at)++];
    }
    void *values = o->tables[table].values;
    bool *given = &o->tables[table].given[opt - o->tables[table].table];
    if (!*given && opt->type == QN_OPT_LIST) { // what is given replaces the default
        *(qn_opt_list *)((char *)values + opt->at) = (qn_opt_list){ 0 };
    }
    *given = true;
    return set_value(o, opt, values, value);
}

static qn_result parse_long(qn_opts *o, const char *arg, int argc, char **argv, int *at)
{
    size_t size = strcspn(arg + 2, "="), table;
    const qn_opt *opt = find(o, arg + 2, size, 0, &table);
    if (!opt) return unknown(o, arg, size + 2);
    return apply(o, opt, table, arg[2 + size] ? arg + 3 + size : NULL, argc, argv, at);
}

// "-v", "-vq", "-o FILE", "-oFILE", "-o=FILE"
static qn_result parse_letters(qn_opts *o, const char *arg, int argc, char **argv, int *at)
{
    for (const char *p = arg + 1; *p; p++) {
        size_t table;
        const qn_opt *opt = find(o, NULL, 0, *p, &table);
        if (!opt) {
            char quoted[QN_QUOTED];
            return qn_fail(QN_ERR_INVALID, "unknown option '-%c' in %s",
                           *p > 0x20 && *p < 0x7f ? *p : '?', qn_quote(arg, quoted));
        }
        if (!qn_opt_has_value(opt)) {
            QN_TRY(apply(o, opt, table, NULL, argc, argv, at));
            continue;
        }
        const char *value = p[1] ? p + 1 + (p[1] == '=') : NULL;
        return apply(o, opt, table, value, argc, argv, at);
    }
    return QN_OK;
}

qn_result qn_opts_parse(qn_opts *o, int argc, char **argv, int *at, bool stop_at_first)
{
    if (!o->args) {
        o->args = qn_arena_alloc(&o->arena, ((size_t)argc + 1) * sizeof *o->args);
        if (!o->args) return qn_no_memory((size_t)argc * sizeof *o->args);
    }
    while (*at < argc) {
        const char *arg = argv[(*at)++];
        if (o->ended || arg[0] != '-' || !arg[1]) {
            o->args[o->arg_count++] = arg;
            if (stop_at_first) return QN_OK;
        } else if (!strcmp(arg, "--")) {
            o->ended = true;
        } else if (arg[1] == '-') {
            QN_TRY(parse_long(o, arg, argc, argv, at));
        } else {
            QN_TRY(parse_letters(o, arg, argc, argv, at));
        }
    }
    return QN_OK;
}

bool qn_opts_given(const qn_opts *o, const char *name)
{
    size_t table;
    const qn_opt *opt = find(o, name, strlen(name), 0, &table);
    return opt && o->tables[table].given[opt - o->tables[table].table];
}

void qn_opts_free(qn_opts *o)
{
    qn_arena_free(&o->arena);
    *o = (qn_opts){ 0 };
}
