// What a table is compared with: a linear model, or a network with one hidden layer, trained on the
// device on all rows at once.
#ifndef QN_TAB_BASELINE_H
#define QN_TAB_BASELINE_H

#include "tab/fit.h"

typedef struct qn_tab_baseline {
    int hidden;   // 0: logistic (or linear) regression
    bool balance; // as in qn_tab_settings
    uint64_t seed;
} qn_tab_baseline;

// Trains on the problem's rows; out [rows, C] probabilities of the rows x, or standardised values.
// A penalty of half the squared weights over the number of rows for the linear model (C = 1 of the
// usual logistic regression), decay 1e-4 for the network.
qn_result qn_tab_baseline_run(qn_device *dev, const qn_tab_problem *p, const qn_tab_baseline *b,
                              const float *x, int64_t rows, double *out);

#endif
