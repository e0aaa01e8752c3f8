// Random numbers from a counter: the same (seed, stream, index) gives the same number anywhere.
// Philox 4x32 with ten rounds. [philox]
#ifndef QN_RANDOM_H
#define QN_RANDOM_H

#include <quoin/base.h>

typedef struct qn_random {
    uint64_t seed, stream, counter;
    uint32_t word[4];
    int left; // words not yet handed out
    double spare;
    bool has_spare;
} qn_random;

// The four words of one counter value.
QN_API void qn_philox(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

static inline qn_random qn_random_start(uint64_t seed, uint64_t stream)
{
    return (qn_random){ .seed = seed, .stream = stream };
}
QN_API uint32_t qn_random_word(qn_random *r);
QN_API double qn_random_unit(qn_random *r);                   // [0, 1), 53 bits
QN_API double qn_random_normal(qn_random *r);                 // mean 0, deviation 1
QN_API uint64_t qn_random_below(qn_random *r, uint64_t n);    // [0, n), unbiased; n > 0

// A pseudo-random permutation of [0, n): where index i goes under `key`. No table.
QN_API uint64_t qn_permute(uint64_t i, uint64_t n, uint64_t key);

#endif
