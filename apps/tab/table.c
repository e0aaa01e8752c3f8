// Reading CSV. libcsv finds the cells; it is fed line by line, so that lines can be named.
#include "tab/table.h"
#include "fail.h"
#include "io/json.h"
#include "nearest.h"
#include "platform.h"

#include <csv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    qn_tab_table *t;
    int64_t line, begun; // the line at hand; that on which the row began
    size_t field;        // cells of the row so far
    bool header;
    qn_result result;
} reader;

bool qn_tab_number(const char *cell, double *out)
{
    char *end;
    if (!*cell || strpbrk(cell, "xXpP")) return false; // no hexadecimal
    *out = strtod(cell, &end);
    while (*end == ' ') end++;
    return !*end && isfinite(*out);
}

static qn_result take_cell(reader *r, const void *bytes, size_t size)
{
    qn_tab_table *t = r->t;
    if (memchr(bytes ? bytes : "", 0, size))
        return qn_fail(QN_ERR_FORMAT, "%s: line %lld, column %zu: a NUL byte", t->name,
                       (long long)r->line, r->field + 1);
    char *text = qn_arena_alloc(&t->arena, size + 1);
    if (!text) return qn_no_memory(size + 1);
    if (size) memcpy(text, bytes, size);
    if (r->header) {
        if (r->field >= QN_TAB_MOST_COLUMNS)
            return qn_fail(QN_ERR_FORMAT, "%s: the header has more than %d columns", t->name,
                           QN_TAB_MOST_COLUMNS);
        QN_TRY(qn_grow((void **)&t->header, &t->header_capacity, r->field + 1, sizeof *t->header));
        t->header[r->field++] = text;
        return QN_OK;
    }
    if (r->field >= t->columns)
        return qn_fail(QN_ERR_FORMAT, "%s: line %lld has more than the header's %zu columns", t->name,
                       (long long)r->begun, t->columns);
    size_t at = t->rows * t->columns + r->field++;
    QN_TRY(qn_grow((void **)&t->cells, &t->cell_capacity, at + 1, sizeof *t->cells));
    t->cells[at] = text;
    return QN_OK;
}

static void on_cell(void *bytes, size_t size, void *user)
{
    reader *r = user;
    if (r->result == QN_OK) r->result = take_cell(r, bytes, size);
}

static qn_result take_row(reader *r)
{
    qn_tab_table *t = r->t;
    if (r->header) {
        t->columns = r->field;
        r->header = false;
        return QN_OK;
    }
    if (r->field != t->columns)
        return qn_fail(QN_ERR_FORMAT, "%s: line %lld has %zu columns, expected the header's %zu",
                       t->name, (long long)r->begun, r->field, t->columns);
    QN_TRY(qn_grow((void **)&t->lines, &t->line_capacity, t->rows + 1, sizeof *t->lines));
    t->lines[t->rows++] = r->begun;
    return QN_OK;
}

static void on_row(int last, void *user)
{
    (void)last;
    reader *r = user;
    if (r->result == QN_OK) r->result = take_row(r);
    r->field = 0;
    r->begun = r->line + 1;
}

// The separator that the first line holds most of, quoted text left out.
static char delimiter_of(const char *text, size_t size)
{
    static const char candidates[] = { ',', ';', '\t' };
    size_t counts[3] = { 0 };
    bool quoted = false;
    for (size_t i = 0; i < size && (quoted || text[i] != '\n'); i++) {
        quoted ^= text[i] == '"';
        for (int c = 0; c < 3 && !quoted; c++) counts[c] += text[i] == candidates[c];
    }
    int best = 0;
    for (int c = 1; c < 3; c++)
        if (counts[c] > counts[best]) best = c;
    return candidates[best];
}

static qn_result read_all(reader *r, const char *text, size_t size)
{
    struct csv_parser p;
    // Strict: a quote inside an unquoted cell is an error; so is the end inside quotes.
    if (csv_init(&p, CSV_STRICT | CSV_STRICT_FINI)) return qn_no_memory(sizeof p);
    csv_set_delim(&p, (unsigned char)r->t->delimiter);
    for (size_t at = 0; at < size && r->result == QN_OK;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - (text + at)) + 1 : size - at;
        if (csv_parse(&p, text + at, n, on_cell, on_row, r) != n && r->result == QN_OK)
            r->result = qn_fail(QN_ERR_FORMAT, "%s: line %lld, column %zu: %s", r->t->name,
                                (long long)r->line, r->field + 1,
                                csv_error(&p) == CSV_EPARSE ? "a quote where none may stand"
                                                            : csv_strerror(csv_error(&p)));
        at += n;
        if (end) {
            r->line++;
            if (r->field == 0) r->begun = r->line;
        }
    }
    if (r->result == QN_OK && csv_fini(&p, on_cell, on_row, r) && r->result == QN_OK)
        r->result = qn_fail(QN_ERR_FORMAT, "%s: the quote that opens on line %lld is never closed",
                            r->t->name, (long long)r->begun);
    csv_free(&p);
    return r->result;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static qn_result check_header(const qn_tab_table *t)
{
    size_t numbers = 0;
    double x;
    for (size_t c = 0; c < t->columns; c++) {
        numbers += qn_tab_number(t->header[c], &x);
        if (!t->header[c][0])
            return qn_fail(QN_ERR_FORMAT, "%s: line 1, column %zu: the name is empty", t->name, c + 1);
    }
    if (numbers == t->columns)
        return qn_fail(QN_ERR_FORMAT, "%s: line 1 holds only numbers, expected the columns' names",
                       t->name);
    const char **sorted = qn_malloc(t->columns * sizeof *sorted);
    if (!sorted) return qn_no_memory(t->columns * sizeof *sorted);
    memcpy(sorted, t->header, t->columns * sizeof *sorted);
    qsort(sorted, t->columns, sizeof *sorted, by_text);
    qn_result r = QN_OK;
    for (size_t c = 1; c < t->columns && r == QN_OK; c++)
        if (!strcmp(sorted[c - 1], sorted[c]))
            r = qn_fail(QN_ERR_FORMAT, "%s: line 1: two columns are called '%.60s'", t->name,
                        sorted[c]);
    qn_free(sorted);
    return r;
}

qn_result qn_tab_table_parse(const char *name, const char *text, size_t size, qn_tab_table **out)
{
    *out = NULL;
    if (size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) { // a byte order mark
        text += 3;
        size -= 3;
    }
    qn_tab_table *t = qn_calloc(1, sizeof *t);
    if (!t) return qn_no_memory(sizeof *t);
    t->name = qn_strdup(name);
    t->delimiter = delimiter_of(text, size);
    reader r = { .t = t, .line = 1, .begun = 1, .header = true };
    qn_result result = t->name ? read_all(&r, text, size) : qn_no_memory(strlen(name));
    if (result == QN_OK && !t->columns) result = qn_fail(QN_ERR_FORMAT, "%s: the file is empty", name);
    if (result == QN_OK) result = check_header(t);
    if (result != QN_OK) {
        qn_tab_table_close(&t);
        return qn_fail_printable(result);
    }
    *out = t;
    return QN_OK;
}

qn_result qn_tab_table_open(const char *path, qn_tab_table **out)
{
    char *text;
    size_t size;
    *out = NULL;
    QN_TRY(qn_read_file(path, QN_TAB_MOST_BYTES, &text, &size));
    qn_result r = qn_tab_table_parse(path, text, size, out);
    qn_free(text);
    return r;
}

void qn_tab_table_close(qn_tab_table **table)
{
    qn_tab_table *t = *table;
    *table = NULL;
    if (!t) return;
    qn_free(t->name);
    qn_free(t->header);
    qn_free(t->cells);
    qn_free(t->lines);
    qn_arena_free(&t->arena);
    qn_free(t);
}

int64_t qn_tab_column_find(const qn_tab_table *t, const char *name)
{
    for (size_t c = 0; c < t->columns; c++)
        if (!strcmp(t->header[c], name)) return (int64_t)c;
    return -1;
}

qn_result qn_tab_column_need(const qn_tab_table *t, const char *name, size_t *out)
{
    int64_t found = qn_tab_column_find(t, name);
    if (found >= 0) {
        *out = (size_t)found;
        return QN_OK;
    }
    qn_nearest n = { .word = name };
    for (size_t c = 0; c < t->columns; c++) qn_nearest_offer(&n, t->header[c]);
    if (n.best)
        return qn_fail(QN_ERR_INVALID, "%s: there is no column '%.60s'; the nearest is '%.60s'", t->name,
                       name, n.best);
    return qn_fail(QN_ERR_INVALID, "%s: there is no column '%.60s' among its %zu", t->name,
                   name, t->columns);
}
