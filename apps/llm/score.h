// Log-probabilities of given tokens under a model, many rows per forward pass.
#ifndef QN_SCORE_H
#define QN_SCORE_H

#include <quoin/model.h>

// Tokens id[0 .. count-1]; those from index `from` (at least 1) on are scored, each under all before
// it. count - 1 <= the scorer's positions.
typedef struct qn_score_row {
    const int32_t *id;
    int64_t count, from;
} qn_score_row;

// Plans for rows of up to `positions` inputs, one per power of two, each of as many rows as a
// bounded size of logits allows. `weights` is loaded and must outlive the scorer.
typedef struct qn_scorer qn_scorer;
qn_result qn_scorer_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                           int64_t positions, qn_scorer **out);
void qn_scorer_destroy(qn_scorer **s);

// nll[i]: the sum over row i's scored tokens of -ln p. `each`, unless NULL, is called once per
// scored token, rows in any order, tokens of a row in theirs. A loss that is not finite is
// QN_ERR_INVALID: the weights hold NaN or infinite values.
typedef struct qn_score_hooks {
    void (*each)(void *user, size_t row, int64_t index, double nll);
    // Scored so far, and in all; false: QN_ERR_CANCELLED.
    bool (*progress)(void *user, int64_t tokens, int64_t total);
    void *user;
} qn_score_hooks;
qn_result qn_scorer_run(qn_scorer *s, const qn_score_row *rows, size_t count,
                        const qn_score_hooks *hooks, double *nll);

#endif
