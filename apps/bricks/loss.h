// Perplexity before and after a change, for the commands that change models.
#ifndef QN_BRICKS_LOSS_H
#define QN_BRICKS_LOSS_H

#include "cli/command.h"
#include "model.h"

// Texts on which models are compared.
typedef struct qn_brick_texts {
    const qn_opt_list *paths;
    int64_t tokens; // of each text, at most; 0: all
} qn_brick_texts;

// A row for each text: perplexity of the model in `before` and of that in `after`. Does nothing
// without texts. Needs ModuleFormers.
qn_result qn_brick_compare(const qn_cli *cli, qn_device *dev, const char *before, const char *after,
                           const qn_brick_texts *texts);

// The same with a device of its own; nothing is opened without texts.
qn_result qn_brick_compare_alone(const qn_cli *cli, const char *before, const char *after,
                                 const qn_brick_texts *texts);

#endif
