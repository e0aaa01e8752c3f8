// Parts of a model that a run trains while the rest is frozen: patterns of names and rows.
#ifndef QN_TRAINABLE_H
#define QN_TRAINABLE_H

#include "pattern.h"
#include "trainer.h"

typedef struct qn_part {
    qn_selection selection;
    char *text;             // what was selected, as it was asked for
    qn_trainable trainable; // refers to the part
} qn_part;

// Do not move *out afterwards.
qn_result qn_part_open(const char *const *items, size_t count, qn_part *out);
void qn_part_close(qn_part *p);

#endif
