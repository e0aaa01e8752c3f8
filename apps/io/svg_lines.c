// Line charts.
#include "io/svg_draw.h"

#include <math.h>
#include <string.h>

#define LEGEND_MOST 16 // entries
#define LEGEND_LETTERS 30

typedef struct frame {
    double left, top, right, bottom; // of the plot, in pixels
    int width, height;
} frame;

static double x_of(const qn_svg_series *s, size_t i)
{
    return s->x ? s->x[i] : (double)i;
}

static void see_data(const qn_svg_lines *c, qn_scale *x, qn_scale *y)
{
    for (size_t k = 0; k < c->series_count; k++) {
        const qn_svg_series *s = &c->series[k];
        for (size_t i = 0; i < s->count; i++) {
            if (!qn_scale_shows(x, x_of(s, i)) || !qn_scale_shows(y, s->y[i])) continue;
            qn_scale_see(x, x_of(s, i));
            qn_scale_see(y, s->y[i]);
        }
    }
}

// ------------------------------------------------------------------------------------ legend

static void series_class(qn_textbuf *t, size_t k, const qn_svg_series *s)
{
    static const char *const dashes[] = { "", " stroke-dasharray=\"6 3\"",
                                          " stroke-dasharray=\"2 3\"" };
    qn_textbuf_printf(t, "class=\"line s%zu%s%s\"%s", k % QN_SVG_COLORS, s->faint ? " pale" : "",
                      s->dots ? " dots" : "", s->dots ? "" : dashes[k / QN_SVG_COLORS % 3]);
}

// Lays the names out in rows; draws them unless t is NULL. Returns the height used.
static double legend(qn_textbuf *t, const qn_svg_lines *c, double left, double top, double right)
{
    double x = left, y = top + 6;
    size_t shown = 0, named = 0;
    for (size_t k = 0; k < c->series_count; k++) named += c->series[k].name != NULL;
    if (!named) return 0;
    for (size_t k = 0; k < c->series_count; k++) {
        const char *name = c->series[k].name;
        char more[40];
        if (!name) continue;
        bool last = shown == LEGEND_MOST && named > LEGEND_MOST + 1;
        if (last) {
            snprintf(more, sizeof more, "and %zu more", named - shown);
            name = more;
        }
        size_t letters = qn_textbuf_columns(name);
        if (letters > LEGEND_LETTERS) letters = LEGEND_LETTERS;
        double wide = 26 + (double)letters * QN_SVG_LETTER + 14;
        if (x > left && x + wide > right) {
            x = left;
            y += 18;
        }
        if (t) {
            if (!last) {
                qn_textbuf_puts(t, "<path ");
                series_class(t, k, &c->series[k]);
                qn_textbuf_puts(t, " d=\"M");
                qn_svg_number(t, x);
                qn_textbuf_puts(t, " ");
                qn_svg_number(t, y);
                qn_textbuf_puts(t, "h20\"/>\n");
            }
            qn_svg_label(t, "label", x + 26, y + 4, QN_ANCHOR_START, name, LEGEND_LETTERS);
        }
        x += wide;
        shown++;
        if (last) break;
    }
    return y - top + 12;
}

// ------------------------------------------------------------------------------------ axes

static double widest_label(const qn_ticks *ticks)
{
    size_t most = 1;
    for (size_t i = 0; i < ticks->count; i++) {
        size_t n = strlen(ticks->label[i]);
        if (n > most) most = n;
    }
    return (double)most * QN_SVG_LETTER;
}

static void segment(qn_textbuf *t, double x, double y, char direction, double length)
{
    qn_textbuf_puts(t, "M");
    qn_svg_number(t, x);
    qn_textbuf_puts(t, " ");
    qn_svg_number(t, y);
    qn_textbuf_add(t, &direction, 1);
    qn_svg_number(t, length);
}

static void axes(qn_textbuf *t, const qn_svg_lines *c, const frame *f, const qn_scale *x,
                 const qn_scale *y, const qn_ticks *xt, const qn_ticks *yt)
{
    qn_textbuf_puts(t, "<path class=\"grid\" d=\"");
    for (size_t i = 0; i < xt->count; i++) {
        segment(t, qn_scale_at(x, xt->value[i]), f->top, 'V', f->bottom);
    }
    for (size_t i = 0; i < yt->count; i++) {
        segment(t, f->left, qn_scale_at(y, yt->value[i]), 'H', f->right);
    }
    qn_textbuf_puts(t, "\"/>\n<path class=\"axis\" d=\"");
    segment(t, f->left, f->top, 'V', f->bottom);
    segment(t, f->left, f->bottom, 'H', f->right);
    qn_textbuf_puts(t, "\"/>\n");
    for (size_t i = 0; i < xt->count; i++) {
        qn_svg_label(t, "label", qn_scale_at(x, xt->value[i]), f->bottom + 18, QN_ANCHOR_MIDDLE,
                     xt->label[i], 24);
    }
    for (size_t i = 0; i < yt->count; i++) {
        qn_svg_label(t, "label", f->left - 8, qn_scale_at(y, yt->value[i]) + 4, QN_ANCHOR_END,
                     yt->label[i], 24);
    }
    if (c->x_label) {
        qn_svg_label(t, "label", (f->left + f->right) / 2, f->height - 12, QN_ANCHOR_MIDDLE,
                     c->x_label, 90);
    }
    if (c->y_label) qn_svg_label_up(t, 20, (f->top + f->bottom) / 2, c->y_label);
}

// ------------------------------------------------------------------------------------ curves

// A path in the making. Points that share a pixel column are thinned to the first, lowest,
// highest and last of it, which draws the same picture whatever the number of points.
typedef struct pen {
    qn_textbuf *t;
    bool down; // the path has a current point
    bool open; // a column is being gathered
    double column, first, last, low, high;
} pen;

static void point(pen *p, double x, double y)
{
    qn_textbuf_puts(p->t, p->down ? "L" : "M");
    qn_svg_number(p->t, x);
    qn_textbuf_puts(p->t, " ");
    qn_svg_number(p->t, y);
    // A subpath of a single point is drawn by its round cap.
    if (!p->down) qn_textbuf_puts(p->t, "h0");
    p->down = true;
}

static void flush_column(pen *p)
{
    if (!p->open) return;
    double x = p->column;
    point(p, x, p->first);
    if (p->low != p->first) point(p, x, p->low);
    if (p->high != p->low && p->high != p->first) point(p, x, p->high);
    if (p->last != p->high && p->last != p->first) point(p, x, p->last);
    p->open = false;
}

static void gather(pen *p, double x, double y)
{
    double column = floor(x) + 0.5;
    if (p->open && column != p->column) flush_column(p);
    if (!p->open) {
        p->open = true;
        p->column = column;
        p->first = p->low = p->high = y;
    }
    p->low = fmin(p->low, y);
    p->high = fmax(p->high, y);
    p->last = y;
}

static void curve(qn_textbuf *t, const qn_svg_series *s, size_t k, const qn_scale *x,
                  const qn_scale *y)
{
    bool thin = (double)s->count > 3 * fabs(x->to - x->from);
    pen p = { .t = t };
    qn_textbuf_puts(t, "<path ");
    series_class(t, k, s);
    qn_textbuf_puts(t, " d=\"");
    for (size_t i = 0; i < s->count; i++) {
        double vx = x_of(s, i), vy = s->y[i];
        if (!qn_scale_shows(x, vx) || !qn_scale_shows(y, vy)) {
            flush_column(&p);
            p.down = false;
            continue;
        }
        double px = qn_scale_at(x, vx), py = qn_scale_at(y, vy);
        if (s->dots) p.down = false;
        if (thin && !s->dots)
            gather(&p, px, py);
        else
            point(&p, px, py);
    }
    flush_column(&p);
    qn_textbuf_puts(t, "\"/>\n");
}

// ------------------------------------------------------------------------------------ chart

void qn_svg_lines_text(const qn_svg_lines *c, qn_textbuf *t)
{
    frame f = { .width = c->width > 0 ? c->width : 760, .height = c->height > 0 ? c->height : 440 };
    if (f.width < 320) f.width = 320;
    if (f.height < 160) f.height = 160;
    qn_scale x = qn_scale_start(c->x_log), y = qn_scale_start(c->y_log);
    see_data(c, &x, &y);
    bool empty = x.empty, fixed = c->y_min < c->y_max;
    if (fixed) {
        y = qn_scale_start(c->y_log);
        qn_scale_see(&y, c->y_min);
        qn_scale_see(&y, c->y_max);
    }
    f.top = c->title ? 42 : 16;
    f.right = f.width - 20;
    f.top += legend(NULL, c, 16, f.top, f.right);
    f.bottom = f.height - (c->x_label ? 52 : 34);
    qn_scale_finish(&y, f.bottom, f.top + 4, fixed);
    qn_ticks yt = qn_scale_ticks(&y, (int)((f.bottom - f.top) / 56) + 1);
    f.left = (c->y_label ? 34 : 14) + widest_label(&yt) + 8;
    qn_scale_finish(&x, f.left, f.right, true);
    qn_ticks xt = qn_scale_ticks(&x, (int)((f.right - f.left) / 96) + 1);

    qn_svg_begin(t, f.width, f.height, c->title);
    legend(t, c, 16, c->title ? 42 : 16, f.right);
    axes(t, c, &f, &x, &y, &xt, &yt);
    if (empty) {
        qn_svg_no_data(t, (f.left + f.right) / 2, (f.top + f.bottom) / 2);
    } else {
        qn_textbuf_puts(t, "<svg x=\"0\" y=\"");
        qn_svg_number(t, f.top);
        qn_textbuf_printf(t, "\" width=\"%d\" height=\"", f.width);
        qn_svg_number(t, f.bottom - f.top + 2);
        qn_textbuf_puts(t, "\" viewBox=\"0 ");
        qn_svg_number(t, f.top);
        qn_textbuf_printf(t, " %d ", f.width);
        qn_svg_number(t, f.bottom - f.top + 2);
        qn_textbuf_puts(t, "\">\n"); // cuts what lies outside given limits
        for (size_t k = 0; k < c->series_count; k++) curve(t, &c->series[k], k, &x, &y);
        qn_textbuf_puts(t, "</svg>\n");
    }
    qn_svg_end(t);
}
