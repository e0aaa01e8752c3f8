// The demonstration's real table: timings of matrix products, as CSV.
#ifndef QN_TAB_TIMINGS_H
#define QN_TAB_TIMINGS_H

// Columns: the product's sizes and options; speed is "fast" where the arithmetic rate is above the
// median of all rows. Collected with tools/experiments/time_products.c, see docs/hypertab.md.
extern const char qn_tab_timings[];

#endif
