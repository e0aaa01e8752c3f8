// Lines that a person types: edited and recalled on a terminal where libedit was found when quoin
// was built, as they come otherwise.
#ifndef QN_LINE_H
#define QN_LINE_H

#include <quoin/base.h>

typedef struct qn_line qn_line;

// `history` names a file that lines are recalled from and added to; NULL: those of this run.
qn_result qn_line_open(const char *history, qn_line **out);
void qn_line_close(qn_line **l);
// The next line without its newline, of at most 1 MiB, until the next call; NULL: the input has
// ended, or Ctrl-C came, which qn_interrupted() tells. The prompt is shown on terminals only.
const char *qn_line_read(qn_line *l, const char *prompt);

#endif
