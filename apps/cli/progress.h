// One line of progress on stderr: redrawn in place on a terminal, at most ten times a second; a
// plain line now and then where stderr goes to a file; nothing with --quiet.
#ifndef QN_PROGRESS_H
#define QN_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct qn_progress {
    const char *what, *unit; // "train", "steps"
    double total, done;      // in units; total 0: unknown
    double rate;             // units per second, smoothed; 0: not known yet
    double seen_at, seen;    // when the rate was last corrected, and what was done then
    double drawn_at;         // when a line was last written
    bool terminal, quiet;
} qn_progress;

// `what` and `unit` must outlive the progress. `done` is what was already there (a resumed run).
void qn_progress_start(qn_progress *p, const char *what, const char *unit, double done,
                       double total, bool quiet);
// Cheap enough to be called for every step. `note` is shown behind ("loss 3.21"); NULL: none.
void qn_progress_update(qn_progress *p, double done, const char *note);
// Writes the last state and ends the line.
void qn_progress_end(qn_progress *p, const char *note);
// Takes the line away before something else is written to the terminal; the next update
// brings it back.
void qn_progress_hide(void);

// The line itself, cut to `width` columns: "train 120/1000 steps 12% 3.4 steps/s 4:19 left  note".
void qn_progress_format(const qn_progress *p, const char *note, int width, char *text, size_t size);
// "4:19", "2:03:10", "3d 4h"; "?" when not known.
char *qn_format_duration(double seconds, char text[24]);

#endif
