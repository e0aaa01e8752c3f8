// A model for tables: preprocessing, some trained networks whose logits are averaged, temperature.
// One file: safetensors, with everything that is not an array as JSON in its metadata.
#ifndef QN_TAB_MODEL_H
#define QN_TAB_MODEL_H

#include "tab/hyper.h"
#include "tab/prep.h"

typedef struct qn_tab_model {
    qn_tab_prep *prep;
    qn_tab_settings settings;
    uint64_t seed;
    double temperature;  // classification
    double inner_score;  // balanced accuracy or R2 of the inner cross-validation; NaN: none
    bool stopped;        // training was interrupted
    qn_tab_net *nets;    // [net_count]
    size_t net_count;
} qn_tab_model;

void qn_tab_model_free(qn_tab_model *m);
qn_result qn_tab_model_save(const qn_tab_model *m, const char *path);
qn_result qn_tab_model_load(const char *path, qn_tab_model *m);

// What the model says about rows. For missing columns the views that see one are left out.
typedef struct qn_tab_prediction {
    int64_t rows;
    double *out;   // [rows, C] probabilities; or [rows] values
    double *doubt; // [rows] how far the views disagree: the mean over classes of the deviation of
                   // their probabilities, or the deviation of their values
    size_t views_used, views;
    int64_t unseen; // cells with categories that training did not have
} qn_tab_prediction;
void qn_tab_prediction_free(qn_tab_prediction *p);
qn_result qn_tab_predict(qn_device *dev, const qn_tab_model *m, const qn_tab_table *t,
                         qn_tab_prediction *out);
// The same from preprocessed rows [rows, d]; absent [d] may be NULL.
qn_result qn_tab_predict_rows(qn_device *dev, const qn_tab_model *m, const float *x, int64_t rows,
                              const bool *absent, qn_tab_prediction *out);

// Importance of every feature [d]: the mean over labelled rows and networks of the right class's
// logit (for values: minus the squared error) in the views with the feature, minus that in the views
// without it; 0 where either has none.
qn_result qn_tab_importance(qn_device *dev, const qn_tab_model *m, const float *x, const float *y,
                            int64_t rows, double *out);

#endif
