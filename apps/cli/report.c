// The three forms of a table.
#include "cli/report.h"
#include "cli/opts.h"
#include "io/json.h"
#include "io/textbuf.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

struct qn_report {
    FILE *out;
    qn_report_format format;
    const qn_column *columns;
    size_t count, rows;
    char **cells; // text: rows x count
    size_t cell_count, cell_capacity;
    qn_arena arena;
};

qn_result qn_report_open(FILE *out, qn_report_format format, const qn_column *columns, size_t count,
                         qn_report **report)
{
    qn_report *r = qn_calloc(1, sizeof *r);
    *report = r;
    if (!r) return qn_no_memory(sizeof *r);
    r->out = out;
    r->format = format;
    r->columns = columns;
    r->count = count;
    return QN_OK;
}

// ------------------------------------------------------------------------------------ values

static bool is_missing(const qn_value *v)
{
    return v->kind == QN_VALUE_NONE || (v->kind == QN_VALUE_TEXT && !v->text);
}

static void put_text(qn_textbuf *t, const qn_column *c, const qn_value *v)
{
    char size[24];
    if (is_missing(v))
        qn_textbuf_puts(t, "-");
    else if (v->kind == QN_VALUE_TEXT)
        qn_textbuf_puts(t, v->text);
    else if (v->kind == QN_VALUE_REAL)
        qn_textbuf_printf(t, "%.*g", c->digits ? c->digits : 4, v->real);
    else if (c->type == QN_COLUMN_BYTES)
        qn_textbuf_puts(t, qn_format_size((uint64_t)v->integer, size, sizeof size));
    else if (c->type == QN_COLUMN_BOOL)
        qn_textbuf_puts(t, v->integer ? "yes" : "no");
    else
        qn_textbuf_printf(t, "%" PRId64, v->integer);
}

static void put_csv(qn_textbuf *t, const qn_column *c, const qn_value *v)
{
    if (is_missing(v)) return;
    if (v->kind == QN_VALUE_REAL) {
        if (isfinite(v->real)) qn_textbuf_printf(t, "%.17g", v->real);
    } else if (v->kind == QN_VALUE_INT && c->type == QN_COLUMN_BOOL) {
        qn_textbuf_puts(t, v->integer ? "true" : "false");
    } else if (v->kind == QN_VALUE_INT) {
        qn_textbuf_printf(t, "%" PRId64, v->integer);
    } else if (!strpbrk(v->text, ",\"\r\n")) {
        qn_textbuf_puts(t, v->text);
    } else {
        qn_textbuf_puts(t, "\"");
        for (const char *s = v->text; *s; s++) {
            qn_textbuf_add(t, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
        }
        qn_textbuf_puts(t, "\"");
    }
}

static void put_json(qn_json_writer *w, const qn_column *c, const qn_value *v)
{
    if (is_missing(v)) {
        qn_json_put_null(w, c->key);
    } else if (v->kind == QN_VALUE_TEXT) {
        qn_textbuf clean = { 0 };
        qn_textbuf_clean(&clean, v->text);
        if (clean.failed && w->status == QN_OK) w->status = qn_textbuf_status(&clean);
        qn_json_put_string(w, c->key, qn_textbuf_get(&clean));
        qn_textbuf_free(&clean);
    } else if (v->kind == QN_VALUE_REAL && isfinite(v->real)) {
        qn_json_put_number(w, c->key, v->real);
    } else if (v->kind == QN_VALUE_REAL) {
        qn_json_put_null(w, c->key);
    } else if (c->type == QN_COLUMN_BOOL) {
        qn_json_put_bool(w, c->key, v->integer != 0);
    } else {
        qn_json_put_int(w, c->key, v->integer);
    }
}

// ------------------------------------------------------------------------------------ rows

static qn_result write_out(qn_report *r, qn_textbuf *t)
{
    qn_result status = qn_textbuf_status(t);
    if (status == QN_OK) fputs(qn_textbuf_get(t), r->out);
    qn_textbuf_free(t);
    return status;
}

static qn_result write_header(qn_report *r)
{
    qn_textbuf t = { 0 };
    for (size_t i = 0; i < r->count; i++) {
        qn_textbuf_printf(&t, "%s%s", i ? "," : "", r->columns[i].key);
    }
    qn_textbuf_puts(&t, "\n");
    return write_out(r, &t);
}

static qn_result keep_cell(qn_report *r, const char *text)
{
    QN_TRY(qn_grow((void **)&r->cells, &r->cell_capacity, r->cell_count + 1, sizeof *r->cells));
    char *copy = qn_arena_printf(&r->arena, "%s", text);
    if (!copy) return qn_no_memory(strlen(text));
    // A cell stays on its line and cannot steer the terminal.
    for (char *s = copy; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = ' ';
    }
    r->cells[r->cell_count++] = copy;
    return QN_OK;
}

static qn_result keep_row(qn_report *r, const qn_value *values)
{
    for (size_t i = 0; i < r->count; i++) {
        qn_textbuf t = { 0 };
        put_text(&t, &r->columns[i], &values[i]);
        qn_result status = qn_textbuf_status(&t);
        if (status == QN_OK) status = keep_cell(r, qn_textbuf_get(&t));
        qn_textbuf_free(&t);
        QN_TRY(status);
    }
    return QN_OK;
}

static qn_result write_csv(qn_report *r, const qn_value *values)
{
    qn_textbuf t = { 0 };
    for (size_t i = 0; i < r->count; i++) {
        if (i) qn_textbuf_puts(&t, ",");
        put_csv(&t, &r->columns[i], &values[i]);
    }
    qn_textbuf_puts(&t, "\n");
    return write_out(r, &t);
}

static qn_result write_json(qn_report *r, const qn_value *values)
{
    qn_json_writer w = { .compact = true };
    qn_json_put_object(&w, NULL);
    for (size_t i = 0; i < r->count; i++) put_json(&w, &r->columns[i], &values[i]);
    qn_json_put_end(&w, '}');
    qn_result status = w.status;
    if (status == QN_OK) fprintf(r->out, "%.*s\n", (int)w.size, w.text);
    qn_json_writer_free(&w);
    return status;
}

qn_result qn_report_row(qn_report *r, const qn_value *values)
{
    qn_result status = QN_OK;
    switch (r->format) {
    case QN_REPORT_TEXT:
        status = keep_row(r, values);
        break;
    case QN_REPORT_CSV:
        if (r->rows == 0) QN_TRY(write_header(r));
        status = write_csv(r, values);
        break;
    case QN_REPORT_JSON:
        status = write_json(r, values);
        break;
    }
    if (status == QN_OK) r->rows++;
    r->cell_count = r->format == QN_REPORT_TEXT ? r->rows * r->count : 0; // half a row is none
    return status;
}

// ------------------------------------------------------------------------------------ text

static void add_cell(qn_textbuf *t, const char *cell, size_t width, bool right, bool last)
{
    size_t pad = width - qn_textbuf_columns(cell);
    if (right) qn_textbuf_printf(t, "%*s", (int)pad, "");
    qn_textbuf_puts(t, cell);
    if (!last) qn_textbuf_printf(t, "%*s", (int)(right ? 2 : pad + 2), "");
}

static qn_result write_text(qn_report *r)
{
    if (!r->count) return QN_OK;
    size_t *widths = qn_arena_alloc(&r->arena, r->count * sizeof *widths);
    if (!widths) return qn_no_memory(r->count * sizeof *widths);
    for (size_t i = 0; i < r->count; i++) widths[i] = qn_textbuf_columns(r->columns[i].key);
    for (size_t i = 0; i < r->cell_count; i++) {
        size_t n = qn_textbuf_columns(r->cells[i]);
        if (n > widths[i % r->count]) widths[i % r->count] = n;
    }
    qn_textbuf t = { 0 };
    for (size_t i = 0; i < r->count; i++) {
        char *heading = qn_arena_printf(&r->arena, "%s", r->columns[i].key);
        if (!heading) t.failed = true;
        for (char *s = heading; s && *s; s++) *s = *s == '_' ? ' ' : *s;
        add_cell(&t, heading ? heading : "", widths[i], r->columns[i].type != QN_COLUMN_TEXT,
                 i + 1 == r->count);
    }
    qn_textbuf_puts(&t, "\n");
    for (size_t i = 0; i < r->cell_count; i++) {
        size_t column = i % r->count;
        bool right = r->columns[column].type != QN_COLUMN_TEXT, last = column + 1 == r->count;
        add_cell(&t, r->cells[i], widths[column], right, last);
        if (last) qn_textbuf_puts(&t, "\n");
    }
    return write_out(r, &t);
}

qn_result qn_report_close(qn_report **report)
{
    qn_report *r = *report;
    if (!r) return QN_OK;
    qn_result status = QN_OK;
    if (r->format == QN_REPORT_TEXT)
        status = write_text(r);
    else if (r->format == QN_REPORT_CSV && r->rows == 0)
        status = write_header(r);
    qn_arena_free(&r->arena);
    qn_free(r->cells);
    qn_free(r);
    *report = NULL;
    return status;
}
