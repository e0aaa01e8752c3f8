// A table of results: aligned text for people, CSV or JSON lines for programs. Columns have one
// key in every form, so a script can move between them.
#ifndef QN_REPORT_H
#define QN_REPORT_H

#include "fail.h"

#include <stdio.h>

typedef enum qn_report_format {
    QN_REPORT_TEXT = 0,
    QN_REPORT_CSV,
    QN_REPORT_JSON
} qn_report_format;
#define QN_REPORT_WORDS "text|csv|json" // an option's .words in this order

typedef enum qn_column_type {
    QN_COLUMN_TEXT = 0,
    QN_COLUMN_INT,
    QN_COLUMN_REAL,  // .digits significant ones in text; all of them in CSV and JSON
    QN_COLUMN_BYTES, // "1.50 GiB" in text, a plain number elsewhere
    QN_COLUMN_BOOL,  // "yes" and "no" in text, true and false elsewhere
} qn_column_type;

typedef struct qn_column {
    const char *key; // "step_time": of the CSV header and of JSON; the text's heading is the
                     // same with spaces
    qn_column_type type;
    int digits; // REAL; 0: 4
} qn_column;

typedef struct qn_value {
    enum { QN_VALUE_NONE = 0, QN_VALUE_TEXT, QN_VALUE_INT, QN_VALUE_REAL } kind;
    const char *text; // copied
    int64_t integer;  // also BYTES and BOOL
    double real;
} qn_value;
#define QN_NONE ((qn_value){ 0 })
#define QN_TEXT(s) ((qn_value){ .kind = QN_VALUE_TEXT, .text = (s) })
#define QN_INT(i) ((qn_value){ .kind = QN_VALUE_INT, .integer = (int64_t)(i) })
#define QN_REAL(x) ((qn_value){ .kind = QN_VALUE_REAL, .real = (x) })

typedef struct qn_report qn_report;

// `columns` must outlive the report. CSV and JSON rows are written at once, text at the end,
// when the widths are known. The CSV header comes with the first row or at the end.
qn_result qn_report_open(FILE *out, qn_report_format format, const qn_column *columns, size_t count,
                         qn_report **report);
// One value per column.
qn_result qn_report_row(qn_report *r, const qn_value *values);
// Writes what is left and frees. Whether the output took everything is the stream's to tell
// (ferror); for stdout the program looks at its end.
qn_result qn_report_close(qn_report **report);

#endif
