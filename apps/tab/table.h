// Tables from CSV: a header, then rows of text cells.
#ifndef QN_TAB_TABLE_H
#define QN_TAB_TABLE_H

#include "mem.h"

typedef struct qn_tab_table {
    char *name; // of the file, for messages
    size_t columns, rows;
    const char **header; // [columns]
    const char **cells;  // [rows, columns]; "" is a missing value
    int64_t *lines;      // [rows] the line of the file on which a row begins
    char delimiter;
    qn_arena arena;
    size_t header_capacity, cell_capacity, line_capacity;
} qn_tab_table;

#define QN_TAB_MOST_COLUMNS 100000
#define QN_TAB_MOST_BYTES ((uint64_t)1 << 30)

// Comma, semicolon or tab, whichever of them the header holds most of; quotes as in RFC 4180. The
// first row must be a header: not all numbers, no name empty or twice. QN_ERR_FORMAT with file, line
// and column.
qn_result qn_tab_table_open(const char *path, qn_tab_table **out);
qn_result qn_tab_table_parse(const char *name, const char *text, size_t size, qn_tab_table **out);
void qn_tab_table_close(qn_tab_table **t);

static inline const char *qn_tab_cell(const qn_tab_table *t, size_t row, size_t column)
{
    return t->cells[row * t->columns + column];
}
// -1: no such column.
int64_t qn_tab_column_find(const qn_tab_table *t, const char *name);
// The column, or a message that names the nearest one.
qn_result qn_tab_column_need(const qn_tab_table *t, const char *name, size_t *out);
// A finite decimal number and nothing else.
bool qn_tab_number(const char *cell, double *out);

#endif
