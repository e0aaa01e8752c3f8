// Heat maps.
#include "io/svg_draw.h"

#include <math.h>
#include <string.h>

#define MOST_COLUMNS 400
#define MOST_ROWS 200
#define LEGEND 86 // pixels at the right for the colour scale
#define LEVELS 64 // shades; cells of one shade share a path

// The matrix as drawn: averaged in blocks where it has more cells than fit.
typedef struct grid {
    const qn_svg_heat *heat;
    size_t rows, columns, row_block, column_block;
    double left, top, cell_width, cell_height;
    double lo, hi;
} grid;

// The mean of a block's finite values; NaN when it has none.
static double block_mean(const grid *g, size_t row, size_t column)
{
    const qn_svg_heat *h = g->heat;
    double sum = 0;
    size_t n = 0;
    for (size_t r = row * g->row_block; r < (row + 1) * g->row_block && r < h->rows; r++) {
        for (size_t c = column * g->column_block;
             c < (column + 1) * g->column_block && c < h->columns; c++) {
            double v = h->values[r * h->columns + c];
            if (!isfinite(v)) continue;
            n++;
            sum += (v - sum) / (double)n; // a running mean cannot overflow early
        }
    }
    return n ? sum : NAN;
}

// The shade of a cell: 0 to LEVELS - 1, or -1 for a missing value.
static int level_of(const grid *g, size_t row, size_t column)
{
    double v = block_mean(g, row, column);
    if (!isfinite(v)) return -1;
    double share = (v / 2 - g->lo / 2) / (g->hi / 2 - g->lo / 2);
    return (int)(fmax(0, fmin(1, share)) * (LEVELS - 1) + 0.5);
}

static bool find_range(grid *g)
{
    const qn_svg_heat *h = g->heat;
    qn_scale seen = qn_scale_start(false);
    for (size_t r = 0; r < g->rows; r++) {
        for (size_t c = 0; c < g->columns; c++) qn_scale_see(&seen, block_mean(g, r, c));
    }
    bool given = h->min < h->max;
    g->lo = given ? h->min : seen.lo;
    g->hi = given ? h->max : seen.hi;
    if (h->diverging) {
        g->hi = fmax(fabs(g->lo), fabs(g->hi));
        g->lo = -g->hi;
    }
    if (!(g->hi > g->lo)) { // one value: give it room
        double room = g->lo != 0 ? fabs(g->lo) / 2 : 1;
        g->lo -= room;
        g->hi += room;
    }
    return !seen.empty;
}

// ------------------------------------------------------------------------------------ cells

static void add_run(qn_textbuf *t, const grid *g, size_t row, size_t first, size_t end)
{
    double x0 = g->left + (double)first * g->cell_width, x1 = g->left + (double)end * g->cell_width;
    double y0 = g->top + (double)row * g->cell_height, y1 = y0 + g->cell_height;
    qn_textbuf_puts(t, "M");
    qn_svg_number(t, x0);
    qn_textbuf_puts(t, " ");
    qn_svg_number(t, y0);
    qn_textbuf_puts(t, "H");
    qn_svg_number(t, x1);
    qn_textbuf_puts(t, "V");
    qn_svg_number(t, y1);
    qn_textbuf_puts(t, "H");
    qn_svg_number(t, x0);
    qn_textbuf_puts(t, "z");
}

// All cells of one shade, neighbours in a row joined, as one path.
static void add_level(qn_textbuf *t, const grid *g, const signed char *levels, int level)
{
    bool any = false;
    for (size_t r = 0; r < g->rows; r++) {
        const signed char *row = levels + r * g->columns;
        for (size_t c = 0; c < g->columns; c++) {
            if (row[c] != level) continue;
            size_t first = c;
            while (c + 1 < g->columns && row[c + 1] == level) c++;
            if (!any) {
                char shade[8];
                qn_svg_shade((double)level / (LEVELS - 1), g->heat->diverging, shade);
                if (level < 0)
                    qn_textbuf_puts(t, "<path class=\"none\" d=\"");
                else
                    qn_textbuf_printf(t, "<path fill=\"%s\" d=\"", shade);
                any = true;
            }
            add_run(t, g, r, first, c + 1);
        }
    }
    if (any) qn_textbuf_puts(t, "\"/>\n");
}

static void cells(qn_textbuf *t, const grid *g)
{
    static _Thread_local signed char levels[MOST_ROWS * MOST_COLUMNS];
    for (size_t r = 0; r < g->rows; r++) {
        for (size_t c = 0; c < g->columns; c++) {
            levels[r * g->columns + c] = (signed char)level_of(g, r, c);
        }
    }
    qn_textbuf_puts(t, "<g class=\"cells\">\n");
    for (int level = -1; level < LEVELS; level++) add_level(t, g, levels, level);
    qn_textbuf_puts(t, "</g>\n");
}

// ------------------------------------------------------------------------------------ labels

static const char *row_name(const qn_svg_heat *h, size_t row, char text[24])
{
    if (h->row_names) return h->row_names[row] ? h->row_names[row] : "";
    snprintf(text, 24, "%zu", row);
    return text;
}

static void row_labels(qn_textbuf *t, const grid *g)
{
    size_t every = g->cell_height < 13 ? (size_t)ceil(13 / g->cell_height) : 1;
    for (size_t r = 0; r < g->rows; r += every) {
        char text[24];
        qn_svg_label(t, "label", g->left - 8, g->top + ((double)r + 0.5) * g->cell_height + 4,
                     QN_ANCHOR_END, row_name(g->heat, r * g->row_block, text), 24);
    }
}

static void column_names(qn_textbuf *t, const grid *g, double bottom)
{
    const qn_svg_heat *h = g->heat;
    size_t letters = 1;
    for (size_t c = 0; c < g->columns; c++) {
        const char *name = h->column_names[c * g->column_block];
        size_t n = name ? qn_textbuf_columns(name) : 0;
        if (n > letters) letters = n;
    }
    if (letters > 16) letters = 16;
    double wide = (double)letters * QN_SVG_LETTER + 8;
    size_t every = g->cell_width < wide ? (size_t)ceil(wide / g->cell_width) : 1;
    for (size_t c = 0; c < g->columns; c += every) {
        const char *name = h->column_names[c * g->column_block];
        qn_svg_label(t, "label", g->left + ((double)c + 0.5) * g->cell_width, bottom + 18,
                     QN_ANCHOR_MIDDLE, name ? name : "", letters);
    }
}

static void column_ticks(qn_textbuf *t, const grid *g, double bottom)
{
    const qn_svg_heat *h = g->heat;
    double step = h->column_step != 0 && isfinite(h->column_step) ? h->column_step : 1;
    double first = isfinite(h->first_column) ? h->first_column : 0;
    qn_scale x = qn_scale_start(false);
    qn_scale_see(&x, first);
    qn_scale_see(&x, first + step * (double)(h->columns - 1));
    double half = g->cell_width / 2 / (double)g->column_block;
    qn_scale_finish(&x, g->left + half, g->left + (double)g->columns * g->cell_width - half, true);
    double wide = (double)g->columns * g->cell_width;
    qn_ticks ticks = qn_scale_ticks(&x, (int)(wide / 96) + 1);
    for (size_t i = 0; i < ticks.count; i++) {
        if (h->columns == 1 && ticks.value[i] != first) continue;
        qn_svg_label(t, "label", qn_scale_at(&x, ticks.value[i]), bottom + 18, QN_ANCHOR_MIDDLE,
                     ticks.label[i], 24);
    }
}

// The colour scale with its values, at the right.
static void scale_legend(qn_textbuf *t, const grid *g, double x, double top, double bottom)
{
    qn_textbuf_puts(t, "<defs><linearGradient id=\"scale\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">");
    for (int i = 0; i <= 12; i++) {
        char shade[8];
        qn_svg_shade(i / 12.0, g->heat->diverging, shade);
        qn_textbuf_printf(t, "<stop offset=\"%.4f\" stop-color=\"%s\"/>", i / 12.0, shade);
    }
    qn_textbuf_puts(t, "</linearGradient></defs>\n<rect fill=\"url(#scale)\" width=\"12\" x=\"");
    qn_svg_number(t, x);
    qn_textbuf_puts(t, "\" y=\"");
    qn_svg_number(t, top);
    qn_textbuf_puts(t, "\" height=\"");
    qn_svg_number(t, bottom - top);
    qn_textbuf_puts(t, "\"/>\n");
    qn_scale s = { .lo = g->lo, .hi = g->hi, .from = bottom, .to = top };
    qn_ticks ticks = qn_scale_ticks(&s, (int)((bottom - top) / 44) + 1);
    for (size_t i = 0; i < ticks.count; i++) {
        qn_svg_label(t, "label", x + 18, qn_scale_at(&s, ticks.value[i]) + 4, QN_ANCHOR_START,
                     ticks.label[i], 12);
    }
}

// ------------------------------------------------------------------------------------ chart

static size_t blocks(size_t count, size_t most, size_t *block)
{
    *block = count > most ? (count + most - 1) / most : 1;
    return (count + *block - 1) / *block;
}

static double left_margin(const qn_svg_heat *h)
{
    size_t letters = 1;
    for (size_t r = 0; r < h->rows; r++) {
        char text[24];
        size_t n = qn_textbuf_columns(row_name(h, r, text));
        if (n > letters) letters = n;
    }
    return (h->y_label ? 34 : 14) + (double)(letters < 24 ? letters : 24) * QN_SVG_LETTER + 8;
}

void qn_svg_heat_text(const qn_svg_heat *h, qn_textbuf *t)
{
    grid g = { .heat = h, .top = h->title ? 44 : 16, .left = left_margin(h) };
    int width = h->width > 0 ? h->width : 760, least = (int)g.left + LEGEND + 120;
    if (width < least) width = least;
    g.rows = blocks(h->rows, MOST_ROWS, &g.row_block);
    g.columns = blocks(h->columns, MOST_COLUMNS, &g.column_block);
    double right = width - LEGEND, tall = fmax(96, fmin(560, (double)g.rows * 22));
    double bottom = g.top + tall;
    int height = (int)bottom + (h->x_label ? 52 : 34);
    bool any = g.rows && g.columns && find_range(&g);
    qn_svg_begin(t, width, height, h->title);
    if (h->x_label) {
        qn_svg_label(t, "label", (g.left + right) / 2, height - 12, QN_ANCHOR_MIDDLE, h->x_label,
                     90);
    }
    if (h->y_label) qn_svg_label_up(t, 20, (g.top + bottom) / 2, h->y_label);
    if (!any) {
        qn_svg_no_data(t, width / 2.0, (g.top + bottom) / 2);
        qn_svg_end(t);
        return;
    }
    g.cell_width = (right - g.left) / (double)g.columns;
    g.cell_height = tall / (double)g.rows;
    cells(t, &g);
    row_labels(t, &g);
    if (h->column_names)
        column_names(t, &g, bottom);
    else
        column_ticks(t, &g, bottom);
    double legend_top = g.top + (h->value_label ? 6 : 0);
    if (h->value_label) {
        qn_svg_label(t, "faint", width - 14, g.top - 6, QN_ANCHOR_END, h->value_label, 24);
    }
    scale_legend(t, &g, right + 22, legend_top, bottom);
    qn_svg_end(t);
}
