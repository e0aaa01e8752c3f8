// From cells to numbers: what a table's columns become, learnt from the training rows and kept with
// the model.
#ifndef QN_TAB_PREP_H
#define QN_TAB_PREP_H

#include "tab/table.h"

typedef struct qn_tab_column {
    const char *name;
    bool categorical;
    double median;       // numeric: stands for a missing value
    const char **levels; // categorical: a feature each, in byte order; "" is missing
    size_t level_count;
    size_t first, count; // its features
} qn_tab_column;

// Rules: a column is numeric when all its non-empty cells are finite numbers (NaN, NA, null, none
// and ? beside numbers count as missing, infinities are refused), else categorical. A missing number
// becomes the median of the training rows; a category becomes a feature of 0 or 1 for each value seen
// in them, an unseen one none. Then every feature is shifted and scaled to mean 0, deviation 1 of
// the training rows.
typedef struct qn_tab_prep {
    const char *label;
    bool regression;
    const char **classes; // in byte order
    int class_count;
    double target_mean, target_deviation; // regression
    qn_tab_column *columns; // all but the label, in the file's order
    size_t column_count;
    size_t features; // d
    double *mean, *deviation; // [d]
    qn_arena arena;
} qn_tab_prep;

enum { QN_TAB_MOST_CLASSES = 64 };

// rows: indices of the training rows; NULL: all of them. Types of columns and classes come from the
// whole table. label NULL: the last column.
qn_result qn_tab_prep_fit(const qn_tab_table *t, const char *label, bool regression,
                          const int32_t *rows, int64_t count, qn_tab_prep **out);
void qn_tab_prep_free(qn_tab_prep **p);

// x [rows of t, d]. absent [d], NULL: not wanted, is set for features whose column the table lacks
// (their x is 0, the mean); without it a missing column is an error. *unseen (may be NULL) counts
// cells with categories that the training rows did not have.
qn_result qn_tab_prep_apply(const qn_tab_prep *p, const qn_tab_table *t, float *x, bool *absent,
                            int64_t *unseen);
// y [rows of t]: class numbers or standardised values. A row without a label is an error.
qn_result qn_tab_prep_labels(const qn_tab_prep *p, const qn_tab_table *t, float *y);
// "age", "sex=male": a fresh text in the arena of p.
const char *qn_tab_feature_name(qn_tab_prep *p, size_t feature);

#endif
