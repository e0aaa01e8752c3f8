// How good predictions are. Labels are class numbers; rows are weighted equally.
#ifndef QN_TAB_SCORE_H
#define QN_TAB_SCORE_H

#include "fail.h"

#define QN_TAB_BINS 10 // of the calibration error and its picture

typedef struct qn_tab_scores {
    int64_t rows;
    double balanced_accuracy; // mean over the classes that occur of their recall
    double accuracy;
    double auc;      // mean over classes against the rest, ties count half; NaN: one class only
    double log_loss; // of the label's probability, at least 1e-15
    double calibration_error; // mean over rows of |confidence - accuracy| of its bin
    double r2, rmse; // regression
    int64_t confusion[64 * 64]; // [label, prediction], row-major with `classes` columns
    double bin_confidence[QN_TAB_BINS], bin_accuracy[QN_TAB_BINS];
    int64_t bin_rows[QN_TAB_BINS];
} qn_tab_scores;

// probabilities [rows, classes]; the prediction is the first largest.
qn_result qn_tab_score(const float *y, const double *probabilities, int64_t rows, int classes,
                       qn_tab_scores *out);
void qn_tab_score_values(const double *y, const double *predicted, int64_t rows, qn_tab_scores *out);

// Softmax of logits / temperature, rows of `classes`; in place.
void qn_tab_softmax(double *logits, int64_t rows, int classes, double temperature);
int qn_tab_largest(const double *values, int count);
// The temperature in [0.05, 20] that makes the log-loss least.
double qn_tab_temperature(const double *logits, const float *y, int64_t rows, int classes);
// Points of the curve of class c against the rest: rates [0, 1], at most rows + 2 of them.
qn_result qn_tab_roc(const float *y, const double *probabilities, int64_t rows, int classes, int c,
                     double *false_rate, double *true_rate, size_t *points);

#endif
