// HyperTab on the device: hypernetworks trained side by side, and what they say about rows.
// [hypertab]
#ifndef QN_TAB_HYPER_H
#define QN_TAB_HYPER_H

#include <quoin/graph.h>
#include <quoin/ops.h>

// How a fit is made. Zero-initialise and call qn_tab_settings_default() or _published().
typedef struct qn_tab_settings {
    double subsample; // m / d
    int hidden, depth;
    int views;          // V
    int views_per_step; // K
    int epochs, batch;
    double rate;  // Adam's learning rate
    bool even;    // batches of equal size instead of a short last one
    bool balance; // rows of rare classes are repeated until all classes have as many
    bool anneal;  // the rate falls to zero along half a cosine
} qn_tab_settings;

qn_tab_settings qn_tab_published(void); // the authors' program, February 2024
qn_tab_settings qn_tab_default(void);   // before tuning

// Preprocessed rows.
typedef struct qn_tab_data {
    int64_t rows, columns; // n, d
    const float *x;        // [n, d]
    const float *y;        // [n] class numbers, or standardised values
    int classes;           // C; 0: regression
} qn_tab_data;

static inline int qn_tab_outputs(const qn_tab_data *d)
{
    return d->classes ? d->classes : 1;
}

// A trained network: parameters in the order of qn_hyper_fit(), views as ascending column numbers.
typedef struct qn_tab_net {
    qn_target_net net;
    int64_t columns, chosen; // d, m
    int views;               // V
    int64_t parameters;      // N
    float *theta;            // [N]
    int32_t *view_columns;   // [V, m]
    double loss;             // mean training loss of the last epoch
} qn_tab_net;
void qn_tab_net_free(qn_tab_net *n);
int64_t qn_tab_parameters(const qn_tab_net *n);

// One fit: the rows it may see, its settings and its seed.
typedef struct qn_tab_job {
    const qn_tab_data *data;
    const int32_t *rows; // indices into data
    int64_t row_count;
    const qn_tab_settings *settings;
    uint64_t seed;
} qn_tab_job;

typedef struct qn_tab_hooks {
    // Called often; done of total Adam steps of all fits. false: stop, keep what there is.
    bool (*progress)(void *user, double done, double total, double loss);
    void *user;
} qn_tab_hooks;

// Trains all jobs, those of one shape side by side. nets [count] are the caller's to free, also
// after a failure. A fit that was stopped early is as far as it came; *stopped (NULL: not wanted)
// tells. QN_ERR_UNSUPPORTED when the table has more columns than the device can take.
qn_result qn_tab_train(qn_device *dev, const qn_tab_job *jobs, size_t count,
                       const qn_tab_hooks *hooks, qn_tab_net *nets, bool *stopped);

// Logits of every view for rows x [n, d]: out [V, n, C]. Rows are taken in blocks.
qn_result qn_tab_view_logits(qn_device *dev, const qn_tab_net *net, const float *x, int64_t rows,
                             float *out);
// Adds the mean over views to sum [n, C] (double: seeds are added up by the caller).
qn_result qn_tab_add_logits(qn_device *dev, const qn_tab_net *net, const float *x, int64_t rows,
                            double *sum);

// ----------------------------------------------------------------- underneath, also for golden cases

// Fits of one shape with everything spelt out; see qn_hyper_fit() for the arrays.
typedef struct qn_tab_launch {
    qn_hyper_fit_opts opts;
    int64_t fits, columns, chosen, parameters;
    int64_t rows, orders, steps; // of x; ints of a fit's orders; longest fit
    int views;
    float *state; // [fits, 3, N], read and written
    int32_t *fit_words, *order_words;
    float *rates; // [steps, 2]
    const float *x, *y;
    float *masks;
    int32_t *view_columns;
    float *losses; // [fits, steps] or NULL
    // After every run, with the steps done so far; false: stop.
    bool (*after)(void *user, int64_t steps);
    void *user;
} qn_tab_launch;
qn_result qn_tab_launch_run(qn_device *dev, qn_tab_launch *l);

#endif
