// Document frame, style sheet, labels and colour scales of the charts.
#include "io/svg_draw.h"
#include "io/utf8.h"

#include <math.h>
#include <string.h>

// Line colours are mid-tones: they stand out on white and on near-black alike.
static const char style[] =
    "<style>"
    "text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu "
    "Sans',sans-serif;fill:#3d444d}"
    ".title{font-size:15px;font-weight:600;fill:#1b1f24}"
    ".value{fill:#1b1f24}"
    ".faint{fill:#78818b}"
    ".page{fill:#ffffff}"
    ".grid{stroke:#e3e6ea;stroke-width:1;fill:none}"
    ".axis{stroke:#9aa2ab;stroke-width:1;fill:none}"
    ".none{fill:#d5d9de}"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}"
    ".pale{stroke-width:1;stroke-opacity:.38}"
    ".dots{stroke-width:7;stroke-opacity:.8}"
    ".cells{shape-rendering:crispEdges}"
    ".s0{stroke:#3b7dd8}.s1{stroke:#e07b39}.s2{stroke:#2fa36b}.s3{stroke:#c94f7c}"
    ".s4{stroke:#8b6fd6}.s5{stroke:#b58a1b}.s6{stroke:#1f9fb5}.s7{stroke:#8a8f98}"
    ".bar{fill:#3b7dd8}.minus{fill:#e07b39}"
    "@media(prefers-color-scheme:dark){"
    "text{fill:#aeb6bf}.title,.value{fill:#e6eaee}.faint{fill:#818b96}.page{fill:#15181c}"
    ".grid{stroke:#2b3036}.axis{stroke:#59626c}.none{fill:#353b42}}"
    "</style>\n";

void qn_svg_begin(qn_textbuf *t, int width, int height, const char *title)
{
    qn_textbuf_printf(t,
                      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                      "viewBox=\"0 0 %d %d\" role=\"img\">\n",
                      width, height, width, height);
    if (title) {
        qn_textbuf_puts(t, "<title>");
        qn_textbuf_xml(t, title);
        qn_textbuf_puts(t, "</title>\n");
    }
    qn_textbuf_puts(t, style);
    qn_textbuf_printf(t, "<rect class=\"page\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", width,
                      height);
    if (title) qn_svg_label(t, "title", 16, 26, QN_ANCHOR_START, title, (size_t)(width / 8));
}

void qn_svg_end(qn_textbuf *t)
{
    qn_textbuf_puts(t, "</svg>\n");
}

void qn_svg_number(qn_textbuf *t, double v)
{
    char text[40];
    snprintf(text, sizeof text, "%.1f", isfinite(v) ? fmax(-1e6, fmin(1e6, v)) : 0);
    char *end = text + strlen(text) - 2;
    if (!strcmp(end, ".0")) *end = 0;
    qn_textbuf_puts(t, strcmp(text, "-0") ? text : "0");
}

static void add_cut(qn_textbuf *t, const char *text, size_t most)
{
    if (qn_textbuf_columns(text) <= most) {
        qn_textbuf_xml(t, text);
        return;
    }
    char part[512];
    size_t at = 0, size = strlen(text);
    for (size_t column = 1; column < most; column++) {
        size_t n = qn_utf8_char(text + at, size - at, NULL);
        if (!n) n = 1;
        if (at + n > sizeof part - 1) break;
        at += n;
    }
    memcpy(part, text, at);
    part[at] = 0;
    qn_textbuf_xml(t, part);
    qn_textbuf_puts(t, "\xe2\x80\xa6"); // an ellipsis
}

void qn_svg_label(qn_textbuf *t, const char *class, double x, double y, qn_anchor anchor,
                  const char *text, size_t most)
{
    static const char *const anchors[] = {
        [QN_ANCHOR_START] = "",
        [QN_ANCHOR_MIDDLE] = " text-anchor=\"middle\"",
        [QN_ANCHOR_END] = " text-anchor=\"end\"",
    };
    qn_textbuf_printf(t, "<text class=\"%s\" x=\"", class);
    qn_svg_number(t, x);
    qn_textbuf_puts(t, "\" y=\"");
    qn_svg_number(t, y);
    qn_textbuf_printf(t, "\"%s>", anchors[anchor]);
    add_cut(t, text, most);
    qn_textbuf_puts(t, "</text>\n");
}

void qn_svg_label_up(qn_textbuf *t, double x, double y, const char *text)
{
    qn_textbuf_puts(t, "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(");
    qn_svg_number(t, x);
    qn_textbuf_puts(t, " ");
    qn_svg_number(t, y);
    qn_textbuf_puts(t, ") rotate(-90)\">");
    add_cut(t, text, 60);
    qn_textbuf_puts(t, "</text>\n");
}

void qn_svg_no_data(qn_textbuf *t, double x, double y)
{
    qn_svg_label(t, "faint", x, y, QN_ANCHOR_MIDDLE, "no data", 10);
}

// ------------------------------------------------------------------------------------ colours

typedef struct rgb {
    double r, g, b;
} rgb;

// Lightness rises evenly from dark to light, so the order survives in grey.
static const rgb sequential[] = {
    { 38, 22, 82 },   { 48, 62, 140 },  { 34, 106, 158 }, { 30, 146, 150 },
    { 66, 182, 124 }, { 150, 208, 82 }, { 244, 228, 92 },
};
static const rgb two_sided[] = {
    { 27, 82, 160 },   { 92, 148, 206 }, { 170, 200, 226 }, { 236, 236, 234 },
    { 238, 186, 152 }, { 214, 120, 80 }, { 166, 52, 34 },
};
#define ANCHORS (sizeof sequential / sizeof *sequential)
_Static_assert(sizeof two_sided == sizeof sequential,
               "both scales have the same number of colours");

void qn_svg_shade(double share, bool diverging, char text[8])
{
    const rgb *scale = diverging ? two_sided : sequential;
    double at = fmax(0, fmin(1, share)) * (ANCHORS - 1);
    size_t i = at >= ANCHORS - 1 ? ANCHORS - 2 : (size_t)at;
    double w = at - (double)i;
    const rgb *a = &scale[i], *b = &scale[i + 1];
    snprintf(text, 8, "#%02x%02x%02x", (unsigned)(a->r + w * (b->r - a->r) + 0.5) & 0xff,
             (unsigned)(a->g + w * (b->g - a->g) + 0.5) & 0xff,
             (unsigned)(a->b + w * (b->b - a->b) + 0.5) & 0xff);
}
