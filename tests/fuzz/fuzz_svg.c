// Charts of arbitrary numbers and names: the document must stay balanced and free of raw input.
#include "io/svg.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST 512 // numbers

// Every '<' opens a tag that is closed, and no control character is left.
static void check_document(const qn_textbuf *t)
{
    bool inside = false;
    for (const char *s = qn_textbuf_get(t); *s; s++) {
        if (*s == '<' && inside) abort();
        if (*s == '<') inside = true;
        if (*s == '>') inside = false;
        if ((unsigned char)*s < 0x20 && *s != '\n' && *s != '\t') abort();
    }
    if (inside || t->size < 7 || strcmp(qn_textbuf_get(t) + t->size - 7, "</svg>\n")) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    // Flags, columns, a name of up to 40 bytes, then doubles.
    if (size < 48) return 0;
    unsigned flags = data[0];
    char name[41];
    memcpy(name, data + 8, 40);
    name[40] = 0;
    double values[MOST];
    size_t count = (size - 48) / sizeof *values;
    if (count > MOST) count = MOST;
    memcpy(values, data + 48, count * sizeof *values);

    qn_textbuf t = { 0 };
    const char *names[MOST];
    for (size_t i = 0; i < MOST; i++) names[i] = i % 3 ? name : NULL;
    if (flags % 3 == 0) {
        qn_svg_series series[] = {
            { .name = name, .x = flags & 4 ? values : NULL, .y = values, .count = count },
            { .name = name, .y = values, .count = count / 2, .faint = true }
        };
        qn_svg_lines_text(&(qn_svg_lines){ .title = name,
                                           .x_label = name,
                                           .y_label = name,
                                           .x_log = flags & 8,
                                           .y_log = flags & 16,
                                           .series = series,
                                           .series_count = 2,
                                           .y_max = flags & 32 && count ? values[0] : 0,
                                           .width = data[2] * 8,
                                           .height = data[3] * 4 },
                          &t);
    } else if (flags % 3 == 1) {
        size_t columns = data[1] % 64 + 1u;
        qn_svg_heat_text(&(qn_svg_heat){ .title = name,
                                         .values = values,
                                         .rows = count / columns,
                                         .columns = columns,
                                         .diverging = flags & 4,
                                         .row_names = flags & 8 ? names : NULL,
                                         .column_names = flags & 16 ? names : NULL,
                                         .column_step = count ? values[0] : 0,
                                         .first_column = count ? values[count - 1] : 0,
                                         .value_label = name,
                                         .width = data[2] * 8 },
                         &t);
    } else {
        qn_svg_bars_text(&(qn_svg_bars){ .title = name,
                                         .y_label = name,
                                         .names = names,
                                         .values = values,
                                         .count = count,
                                         .unit = name,
                                         .width = data[2] * 8 },
                         &t);
    }
    check_document(&t);
    qn_textbuf_free(&t);
    return 0;
}
