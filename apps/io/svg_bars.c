// Bar charts: one horizontal bar a line.
#include "io/svg_draw.h"

#include <math.h>
#include <string.h>

#define MOST 200
#define NAME_LETTERS 28
#define LINE 24

static void bar(qn_textbuf *t, const qn_scale *x, double v, double y)
{
    double zero = qn_scale_at(x, 0), end = qn_scale_at(x, v);
    qn_textbuf_printf(t, "<rect class=\"%s\" rx=\"2\" height=\"14\" x=\"", v < 0 ? "minus" : "bar");
    qn_svg_number(t, fmin(zero, end));
    qn_textbuf_puts(t, "\" y=\"");
    qn_svg_number(t, y - 7);
    qn_textbuf_puts(t, "\" width=\"");
    qn_svg_number(t, fmax(fabs(end - zero), 1));
    qn_textbuf_puts(t, "\"/>\n");
}

static size_t format_value(const qn_svg_bars *c, double v, char text[64])
{
    snprintf(text, 64, "%.4g%s%.16s", v, c->unit ? " " : "", c->unit ? c->unit : "");
    return qn_textbuf_columns(text);
}

// Names take the width they need at the left, values the widest of theirs on the bars' side.
static void margins(const qn_svg_bars *c, size_t shown, double *left, double *room)
{
    size_t name_letters = 1, value_letters = 1;
    for (size_t i = 0; i < shown; i++) {
        char text[64];
        size_t n = c->names[i] ? qn_textbuf_columns(c->names[i]) : 0;
        if (n > name_letters) name_letters = n;
        n = format_value(c, c->values[i], text);
        if (n > value_letters) value_letters = n;
    }
    if (name_letters > NAME_LETTERS) name_letters = NAME_LETTERS;
    *left = 24 + (double)name_letters * QN_SVG_LETTER;
    *room = 12 + (double)value_letters * QN_SVG_LETTER;
}

void qn_svg_bars_text(const qn_svg_bars *c, qn_textbuf *t)
{
    size_t shown = c->count < MOST ? c->count : MOST;
    double top = c->title ? 44 : 16, left, room;
    if (c->y_label) top += 16;
    int height = (int)top + (int)(shown ? shown : 2) * LINE + (shown < c->count ? LINE : 0) + 16;
    qn_scale x = qn_scale_start(false);
    for (size_t i = 0; i < shown; i++) qn_scale_see(&x, c->values[i]);
    bool empty = x.empty;
    qn_scale_see(&x, 0);
    bool minus = x.lo < 0;
    margins(c, shown, &left, &room);
    int width = c->width > 0 ? c->width : 760,
        least = (int)(left + (minus ? 2 : 1) * room) + 16 + 120;
    if (width < least) width = least;
    qn_scale_finish(&x, left + (minus ? room : 0), width - 16 - room, true);

    qn_svg_begin(t, width, height, c->title);
    if (c->y_label) qn_svg_label(t, "faint", 16, top - 10, QN_ANCHOR_START, c->y_label, 90);
    if (empty) {
        qn_svg_no_data(t, width / 2.0, top + LINE);
        qn_svg_end(t);
        return;
    }
    for (size_t i = 0; i < shown; i++) {
        double y = top + ((double)i + 0.5) * LINE, v = c->values[i];
        char text[64];
        qn_svg_label(t, "label", left - 8, y + 4, QN_ANCHOR_END, c->names[i] ? c->names[i] : "",
                     NAME_LETTERS);
        if (!isfinite(v)) {
            qn_svg_label(t, "faint", qn_scale_at(&x, 0) + 6, y + 4, QN_ANCHOR_START, "-", 1);
            continue;
        }
        bar(t, &x, v, y);
        format_value(c, v, text);
        qn_svg_label(t, "value", qn_scale_at(&x, v) + (v < 0 ? -6 : 6), y + 4,
                     v < 0 ? QN_ANCHOR_END : QN_ANCHOR_START, text, 40);
    }
    double bottom = top + (double)shown * LINE;
    qn_textbuf_puts(t, "<path class=\"axis\" d=\"M");
    qn_svg_number(t, qn_scale_at(&x, 0));
    qn_textbuf_puts(t, " ");
    qn_svg_number(t, top);
    qn_textbuf_puts(t, "V");
    qn_svg_number(t, bottom);
    qn_textbuf_puts(t, "\"/>\n");
    if (shown < c->count) {
        char text[48];
        snprintf(text, sizeof text, "and %zu more", c->count - shown);
        qn_svg_label(t, "faint", left - 8, bottom + LINE / 2 + 4, QN_ANCHOR_END, text, 40);
    }
    qn_svg_end(t);
}
