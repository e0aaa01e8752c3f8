// What the charts have in common: document, style, text, colours.
#ifndef QN_SVG_DRAW_H
#define QN_SVG_DRAW_H

#include "io/svg.h"
#include "io/svg_scale.h"

#define QN_SVG_LETTER 6.7 // pixels a character takes on average at the size we use
#define QN_SVG_COLORS 8

typedef enum qn_anchor { QN_ANCHOR_START = 0, QN_ANCHOR_MIDDLE, QN_ANCHOR_END } qn_anchor;

void qn_svg_begin(qn_textbuf *t, int width, int height, const char *title);
void qn_svg_end(qn_textbuf *t);
// `class` is one of the style's: "label", "title", "faint", "value". The text is escaped and cut
// to `most` characters.
void qn_svg_label(qn_textbuf *t, const char *class, double x, double y, qn_anchor anchor,
                  const char *text, size_t most);
void qn_svg_label_up(qn_textbuf *t, double x, double y, const char *text); // reads upwards
// A pixel coordinate, without useless zeros.
void qn_svg_number(qn_textbuf *t, double v);
// The document for nothing to show: a sentence in the middle of the frame.
void qn_svg_no_data(qn_textbuf *t, double x, double y);

// A colour scale from share 0 to 1, as "#rrggbb".
void qn_svg_shade(double share, bool diverging, char text[8]);

#endif
