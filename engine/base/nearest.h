// The real name that a mistyped one probably meant: commands, options, tensors, methods.
#ifndef QN_NEAREST_H
#define QN_NEAREST_H

#include <quoin/base.h>

// Insertions, deletions, substitutions and swaps of neighbours that turn a into b (the
// "optimal string alignment" distance). Bytes beyond the first 63 of either are not looked at.
QN_API size_t qn_edit_distance(const char *a, const char *b);

// A search in progress: start with { .word = typed }, offer every candidate, read .best. It is
// NULL when nothing is near enough to be a typing mistake (a third of the letters, at least one).
typedef struct qn_nearest {
    const char *word;
    const char *best; // the first of the nearest candidates
    size_t distance;
} qn_nearest;
QN_API void qn_nearest_offer(qn_nearest *n, const char *candidate);

#endif
