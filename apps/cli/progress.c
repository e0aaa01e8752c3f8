// The progress line.
#include "cli/progress.h"
#include "cli/term.h"
#include "io/utf8.h"
#include "platform.h"

#include <math.h>
#include <string.h>

#define REDRAW 0.1    // seconds between redraws on a terminal
#define PLAIN 30.0    // seconds between lines elsewhere
#define SMOOTHING 5.0 // seconds over which the rate is averaged

static bool on_screen; // a line stands on the terminal and the cursor is in it

char *qn_format_duration(double seconds, char text[24])
{
    if (!(seconds >= 0 && seconds < 1e8)) {
        memcpy(text, "?", 2);
        return text;
    }
    unsigned s = (unsigned)(seconds + 0.5), minutes = s / 60 % 60, hours = s / 3600;
    if (hours >= 48)
        snprintf(text, 24, "%ud %uh", hours / 24, hours % 24);
    else if (hours)
        snprintf(text, 24, "%u:%02u:%02u", hours, minutes, s % 60);
    else
        snprintf(text, 24, "%u:%02u", minutes, s % 60);
    return text;
}

// Cuts text to `width` columns without cutting a character.
static void cut(char *text, int width)
{
    size_t at = 0, size = strlen(text);
    for (int column = 0; at < size && column < width; column++) {
        size_t n = qn_utf8_char(text + at, size - at, NULL);
        at += n ? n : 1;
    }
    text[at] = 0;
}

void qn_progress_format(const qn_progress *p, const char *note, int width, char *text, size_t size)
{
    char left[24], of[64] = "", rate[64] = "";
    if (p->total > 0) {
        double percent = 100 * p->done / p->total;
        snprintf(of, sizeof of, "/%.0f %s %.0f%%", p->total, p->unit,
                 percent < 100 ? floor(percent) : 100);
    } else {
        snprintf(of, sizeof of, " %s", p->unit);
    }
    if (p->rate > 0) {
        snprintf(rate, sizeof rate, " %.3g %s/s", p->rate, p->unit);
        if (p->total > p->done) {
            size_t n = strlen(rate);
            snprintf(rate + n, sizeof rate - n, " %s left",
                     qn_format_duration((p->total - p->done) / p->rate, left));
        }
    }
    snprintf(text, size, "%s %.0f%s%s%s%s", p->what, p->done, of, rate, note ? "  " : "",
             note ? note : "");
    cut(text, width);
}

static void correct_rate(qn_progress *p, double now)
{
    double elapsed = now - p->seen_at;
    if (elapsed < REDRAW || p->done <= p->seen) return;
    double rate = (p->done - p->seen) / elapsed;
    double weight = p->rate > 0 ? 1 - exp(-elapsed / SMOOTHING) : 1;
    p->rate += weight * (rate - p->rate);
    p->seen_at = now;
    p->seen = p->done;
}

static void draw(qn_progress *p, const char *note, double now)
{
    char line[512];
    p->drawn_at = now;
    if (p->terminal) {
        // One column short: a full line would make some terminals wrap.
        qn_progress_format(p, note, qn_terminal_width(stderr) - 1, line, sizeof line);
        fprintf(stderr, "\r%s\x1b[K", line);
        on_screen = true;
    } else {
        qn_progress_format(p, note, sizeof line, line, sizeof line);
        fprintf(stderr, "%s\n", line);
    }
    fflush(stderr);
}

void qn_progress_start(qn_progress *p, const char *what, const char *unit, double done,
                       double total, bool quiet)
{
    double now = qn_clock();
    *p = (qn_progress){
        .what = what,
        .unit = unit,
        .total = total,
        .done = done,
        .seen_at = now,
        .seen = done,
        .drawn_at = now,
        .terminal = qn_is_terminal(stderr),
        .quiet = quiet,
    };
    if (!quiet && p->terminal) draw(p, NULL, now);
}

void qn_progress_update(qn_progress *p, double done, const char *note)
{
    double now = qn_clock();
    p->done = done;
    correct_rate(p, now);
    if (p->quiet || now - p->drawn_at < (p->terminal ? REDRAW : PLAIN)) return;
    draw(p, note, now);
}

void qn_progress_end(qn_progress *p, const char *note)
{
    if (p->quiet) return;
    draw(p, note, qn_clock());
    if (!on_screen) return;
    fputs("\n", stderr);
    on_screen = false;
}

void qn_progress_hide(void)
{
    if (!on_screen) return;
    fputs("\r\x1b[K", stderr);
    on_screen = false;
}
