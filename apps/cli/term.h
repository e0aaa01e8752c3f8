// The terminal and the signals.
#ifndef QN_TERM_H
#define QN_TERM_H

#include <stdbool.h>
#include <stdio.h>

bool qn_is_terminal(FILE *f);
// Columns of the terminal behind f; 80 where there is none.
int qn_terminal_width(FILE *f);

// From now on the first Ctrl-C (or SIGTERM) only sets a flag, so that a command can end in
// order; the second one ends the process.
void qn_interrupt_watch(void);
bool qn_interrupted(void);
// Whether there was a Ctrl-C (not a SIGTERM) since; forgets it and watches anew.
bool qn_interrupt_take(void);

// A reader that closes its end must not kill us in the middle of a checkpoint: writes fail
// instead, and the exit status tells.
void qn_survive_closed_pipes(void);
// Whether a reader has gone since.
bool qn_pipe_closed(void);

#endif
