// What the files of `quoin tab` share.
#ifndef QN_TAB_COMMAND_H
#define QN_TAB_COMMAND_H

#include "cli/command.h"
#include "cli/progress.h"
#include "tab/fit.h"
#include "tab/model.h"
#include "tab/score.h"

typedef struct tab_opts {
    const char *out, *label, *splits, *model, *compare, *pictures;
    bool regression, published, no_balance, uneven, baselines;
    double subsample, rate;
    int64_t hidden, depth, views, views_per_step, epochs, batch, seeds, folds, outer, repeats;
} tab_opts;

// Everything that a subcommand has open.
typedef struct tab_run {
    const qn_cli *cli;
    const tab_opts *o;
    qn_context *ctx;
    qn_device *dev;
    qn_tab_settings grid[QN_TAB_MOST_GRID];
    qn_tab_fit_opts fit;
    qn_progress progress;
} tab_run;

// A table, what its rows have become, and the rows to learn from.
typedef struct tab_rows {
    qn_tab_table *table;
    qn_tab_prep *prep;
    float *x, *y;
    int32_t *all; // 0 .. rows - 1
    qn_tab_data data;
} tab_rows;

// Preprocessing learnt from `rows` (NULL: all).
qn_result tab_rows_prepare(const tab_run *r, const qn_tab_table *t, const int32_t *rows,
                           int64_t count, tab_rows *out);
void tab_rows_free(tab_rows *t); // not the table

qn_result tab_fit(tab_run *r);
qn_result tab_predict(tab_run *r);
qn_result tab_evaluate(tab_run *r);
qn_result tab_tune(tab_run *r);
qn_result tab_explain(tab_run *r);
qn_result tab_demo(tab_run *r);

// Progress of qn_tab_fit() on stderr; ends it too.
qn_result tab_train(tab_run *r, const char *what, const qn_tab_problem *problems, size_t count,
                    qn_tab_choice *choices);
char *tab_settings_text(const qn_tab_settings *s, char text[160]);

#endif
