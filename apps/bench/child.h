// Work that may crash, hang or lose the device, in a process of its own: what it has written line
// by line is kept whatever becomes of it.
#ifndef QN_BENCH_CHILD_H
#define QN_BENCH_CHILD_H

#include <quoin/base.h>

typedef struct qn_child {
    int (*work)(void *user, int out);           // in the child: writes lines to `out`; its exit
    void (*line)(void *user, const char *line); // in the parent, for each of them
    bool (*go_on)(void);                        // asked now and then; false ends the child
    void *user;
    double limit; // seconds until the child is ended
} qn_child;

typedef enum qn_child_end {
    QN_CHILD_EXITED = 0,
    QN_CHILD_SIGNAL,  // by a signal of its own: it crashed
    QN_CHILD_LIMIT,   // ended for taking too long
    QN_CHILD_STOPPED, // ended because go_on() said so
} qn_child_end;

// *code is the exit status or the signal's number. No Vulkan object may exist in the caller.
qn_result qn_child_run(const qn_child *c, qn_child_end *end, int *code);

#endif
