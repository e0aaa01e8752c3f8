// Patterns of parameter names and rows.
#include "pattern.h"
#include "fail.h"
#include "mem.h"
#include "nearest.h"

#include <stdlib.h>
#include <string.h>

bool qn_glob_match(const char *glob, const char *name)
{
    const char *star = NULL, *from = NULL; // where to go on when the rest does not fit
    while (*name) {
        if (*glob == '*') {
            star = ++glob;
            from = name;
        } else if (*glob == '?' || *glob == *name) {
            glob++;
            name++;
        } else if (star) {
            glob = star;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*glob == '*') glob++;
    return !*glob;
}

// "3" or "2-5".
static qn_result add_range(qn_pattern *p, const char *text)
{
    char *end;
    const int64_t most = INT32_MAX;
    qn_pattern_range r = { .first = strtoll(text, &end, 10) };
    bool good = end != text && *text >= '0' && *text <= '9' && r.first <= most;
    r.last = r.first;
    if (good && *end == '-') {
        const char *second = end + 1;
        r.last = strtoll(second, &end, 10);
        good = end != second && *second >= '0' && *second <= '9' && r.last <= most;
    }
    if (!good || *end || r.last < r.first)
        return qn_fail(QN_ERR_INVALID, "%s#: found '%.40s', expected a row like 3 or rows like 2-5",
                       p->glob, text);
    QN_TRY(qn_grow((void **)&p->ranges, &p->capacity, p->count + 1, sizeof *p->ranges));
    p->ranges[p->count++] = r;
    return QN_OK;
}

static qn_result parse_one(qn_selection *s, const char *item)
{
    qn_pattern *last = s->count ? &s->patterns[s->count - 1] : NULL;
    if (last && last->count && *item >= '0' && *item <= '9') return add_range(last, item);
    const char *hash = strchr(item, '#');
    const size_t size = hash ? (size_t)(hash - item) : strlen(item);
    if (!size) return qn_fail(QN_ERR_INVALID, "found '%.40s', expected the name of a tensor", item);
    QN_TRY(qn_grow((void **)&s->patterns, &s->capacity, s->count + 1, sizeof *s->patterns));
    qn_pattern *p = &s->patterns[s->count];
    *p = (qn_pattern){ .glob = qn_strndup(item, size) };
    if (!p->glob) return qn_no_memory(size);
    s->count++;
    return hash ? add_range(p, hash + 1) : QN_OK;
}

qn_result qn_selection_parse(const char *const *items, size_t count, qn_selection *out)
{
    qn_selection s = { 0 };
    qn_result r = QN_OK;
    for (size_t i = 0; r == QN_OK && i < count; i++) r = parse_one(&s, items[i]);
    if (r == QN_OK)
        *out = s;
    else
        qn_selection_free(&s);
    return r;
}

void qn_selection_free(qn_selection *s)
{
    for (size_t i = 0; i < s->count; i++) {
        qn_free(s->patterns[i].glob);
        qn_free(s->patterns[i].ranges);
    }
    qn_free(s->patterns);
    *s = (qn_selection){ 0 };
}

qn_result qn_selection_rows(const qn_selection *s, const char *name, int64_t rows, uint8_t *keep,
                            int64_t *selected)
{
    memset(keep, 0, (size_t)rows);
    for (size_t i = 0; i < s->count; i++) {
        const qn_pattern *p = &s->patterns[i];
        if (!qn_glob_match(p->glob, name)) continue;
        if (!p->count) memset(keep, 1, (size_t)rows);
        for (size_t k = 0; k < p->count; k++) {
            if (p->ranges[k].last >= rows)
                return qn_fail(QN_ERR_INVALID, "%s#%lld: %s has rows 0 to %lld", p->glob,
                               (long long)p->ranges[k].last, name, (long long)rows - 1);
            memset(keep + p->ranges[k].first, 1,
                   (size_t)(p->ranges[k].last - p->ranges[k].first + 1));
        }
    }
    *selected = 0;
    for (int64_t i = 0; i < rows; i++) *selected += keep[i];
    return QN_OK;
}

qn_result qn_selection_check(const qn_selection *s, const char *const *names, size_t count)
{
    for (size_t i = 0; i < s->count; i++) {
        qn_nearest near = { .word = s->patterns[i].glob };
        bool found = false;
        for (size_t k = 0; k < count && !found; k++) {
            found = qn_glob_match(s->patterns[i].glob, names[k]);
            qn_nearest_offer(&near, names[k]);
        }
        if (!found)
            return qn_fail(QN_ERR_INVALID, "%s matches no tensor of the model%s%s%s",
                           s->patterns[i].glob, near.best ? "; did you mean '" : "",
                           near.best ? near.best : "", near.best ? "'?" : "");
    }
    return QN_OK;
}
