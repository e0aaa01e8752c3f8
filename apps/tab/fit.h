// Choosing settings by inner cross-validation and training the networks of a model; for many tables,
// or splits of one, side by side.
#ifndef QN_TAB_FIT_H
#define QN_TAB_FIT_H

#include "tab/hyper.h"

#define QN_TAB_MOST_GRID 64

typedef struct qn_tab_fit_opts {
    const qn_tab_settings *grid; // [grid_count] candidates
    size_t grid_count;
    int folds;  // of the inner cross-validation; 0: none, the first candidate is taken
    int seeds;  // networks of the model
    uint64_t seed;
    double least_gain; // by how much a later candidate must beat the first
} qn_tab_fit_opts;

// Rows to learn from.
typedef struct qn_tab_problem {
    const qn_tab_data *data;
    const int32_t *rows;
    int64_t count;
} qn_tab_problem;

typedef struct qn_tab_choice {
    size_t chosen;
    double scores[QN_TAB_MOST_GRID]; // balanced accuracy or R2 of the held-out rows; NaN: not tried
    double temperature;
    qn_tab_net *nets; // [seeds], the caller's to free
    bool stopped;     // before the end: nets may be less trained, or missing (theta NULL)
} qn_tab_choice;
void qn_tab_choice_free(qn_tab_choice *c, int seeds);

// Only the rows of a problem are looked at, neither x nor y of any other. choices [count].
qn_result qn_tab_fit(qn_device *dev, const qn_tab_problem *problems, size_t count,
                     const qn_tab_fit_opts *opts, const qn_tab_hooks *hooks,
                     qn_tab_choice *choices);

// Stratified folds: fold[i] of problem row i, 0 <= fold < folds.
void qn_tab_folds(const qn_tab_problem *p, int folds, uint64_t seed, int *fold);

#endif
