// Which parameters, and which rows of them: the grammar of --train-only and of `quoin bricks`.
//
//   GLOB               tensors whose name matches; * is any text, ? any character
//   GLOB#3             row 3 of their outermost dimension: expert 3 of a stack, router row 3
//   GLOB#0,2-5         several rows; an item of digits goes on with the list before it
#ifndef QN_PATTERN_H
#define QN_PATTERN_H

#include <quoin/base.h>

typedef struct qn_pattern_range {
    int64_t first, last; // inclusive
} qn_pattern_range;

typedef struct qn_pattern {
    char *glob;
    qn_pattern_range *ranges; // none: all rows
    size_t count, capacity;
} qn_pattern;

typedef struct qn_selection {
    qn_pattern *patterns;
    size_t count, capacity;
} qn_selection;

bool qn_glob_match(const char *glob, const char *name);

// Reads a list that was split at its commas.
qn_result qn_selection_parse(const char *const *items, size_t count, qn_selection *out);
void qn_selection_free(qn_selection *s);

// Marks in keep[rows] (all, where any pattern without rows matches) what is selected of a tensor and
// returns how many rows that is in *selected. QN_ERR_INVALID for a row that the tensor has not.
qn_result qn_selection_rows(const qn_selection *s, const char *name, int64_t rows, uint8_t *keep,
                            int64_t *selected);

// Whether pattern i matches any of the names; the nearest name of all otherwise.
qn_result qn_selection_check(const qn_selection *s, const char *const *names, size_t count);

#endif
