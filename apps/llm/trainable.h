// Parts of a model that a run trains while the rest is frozen: patterns of names and rows, or the
// neurons that serve a function.
#ifndef QN_TRAINABLE_H
#define QN_TRAINABLE_H

#include "pattern.h"
#include "trainer.h"

#include <quoin/io.h>

typedef struct qn_part {
    qn_selection selection;
    char *text;             // what was selected, as it was asked for
    qn_safetensors *scores; // of neurons; NULL: by patterns
    char *scores_path;
    int function;
    double share;           // of each layer's neurons
    int64_t experts, hidden;
    qn_trainable trainable; // refers to the part
} qn_part;

// Do not move *out afterwards.
qn_result qn_part_open(const char *const *items, size_t count, qn_part *out);
// The `percent` of each layer's neurons with the highest score for a function, from a file of `bricks
// analyse --save-scores`: their columns of the input matrices and rows of the output matrices.
qn_result qn_part_open_top(const char *scores, const char *function, double percent, qn_part *out);
void qn_part_close(qn_part *p);

#endif
