// Free pieces of one block of memory. Pure: numbers only, no GPU.
#ifndef QN_RANGES_H
#define QN_RANGES_H

#include <quoin/base.h>

typedef struct qn_piece {
    uint64_t offset, size;
} qn_piece;

typedef struct qn_ranges {
    qn_piece *free; // sorted by offset, never touching each other
    size_t count, capacity;
    size_t taken;   // pieces handed out
    uint64_t size;  // of the whole block
} qn_ranges;

qn_result qn_ranges_init(qn_ranges *r, uint64_t size);
void qn_ranges_free(qn_ranges *r);
// Takes `size` bytes at a multiple of `align` (a power of two) from the smallest piece that has
// them. *found tells whether there was one; only host memory can make the call fail.
qn_result qn_ranges_take(qn_ranges *r, uint64_t size, uint64_t align, uint64_t *offset,
                         bool *found);
// Gives back what was taken. Cannot fail.
void qn_ranges_give(qn_ranges *r, uint64_t offset, uint64_t size);
// The largest free piece.
uint64_t qn_ranges_largest(const qn_ranges *r);

#endif
