// Charts as SVG text: line charts, heat maps and bar charts. The same data gives the same bytes.
// A width too small for the labels is enlarged.
// Colours suit light and dark pages. Values that are not finite (and those not above zero on a
// logarithmic axis) are left out; a chart without any value says so. Titles and labels may be any
// bytes. Each function appends a whole document to `out`; qn_textbuf_save() writes it to a file.
#ifndef QN_SVG_H
#define QN_SVG_H

#include "io/textbuf.h"

typedef struct qn_svg_series {
    const char *name;    // in the legend; NULL: none
    const double *x, *y; // [count]; x NULL: 0, 1, 2, ...
    size_t count;
    bool faint; // drawn thin and pale: raw values behind a smoothed curve
    bool dots;  // a dot for each value, no line
} qn_svg_series;

typedef struct qn_svg_lines {
    const char *title, *x_label, *y_label; // NULL: none
    bool x_log, y_log;
    double y_min, y_max; // both 0: from the data
    const qn_svg_series *series;
    size_t series_count;
    int width, height; // pixels; 0: 760 x 440
} qn_svg_lines;
void qn_svg_lines_text(const qn_svg_lines *c, qn_textbuf *out);

typedef struct qn_svg_heat {
    const char *title, *x_label, *y_label;
    const double *values; // [rows, columns]
    size_t rows, columns; // more than about 400 of either are averaged in blocks
    const char *const *row_names, *const *column_names; // NULL: indices
    double first_column, column_step; // index labels start at and advance by; step 0: 1
    double min, max;                  // of the colour scale; both 0: from the data
    bool diverging;                   // a scale that is neutral at 0
    const char *value_label;
    int width; // pixels; 0: 760
} qn_svg_heat;
void qn_svg_heat_text(const qn_svg_heat *c, qn_textbuf *out);

typedef struct qn_svg_bars {
    const char *title, *y_label;
    const char *const *names; // [count]
    const double *values;     // [count]
    size_t count;
    const char *unit; // behind each bar's value; NULL: none
    int width;        // pixels; 0: 760
} qn_svg_bars;
// Horizontal bars, one a line, each with its name and value.
void qn_svg_bars_text(const qn_svg_bars *c, qn_textbuf *out);

#endif
