// Philox 4x32-10 [philox], and a Feistel permutation of any range by cycle walking.
#include "random.h"

#include <math.h>

void qn_philox(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t c[4] = { (uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream,
                      (uint32_t)(stream >> 32) };
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)b;
        c[2] = n2;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

uint32_t qn_random_word(qn_random *r)
{
    if (r->left == 0) {
        qn_philox(r->seed, r->stream, r->counter++, r->word);
        r->left = 4;
    }
    return r->word[--r->left];
}

double qn_random_unit(qn_random *r)
{
    uint64_t high = qn_random_word(r) >> 5, low = qn_random_word(r) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

double qn_random_normal(qn_random *r)
{
    if (r->has_spare) {
        r->has_spare = false;
        return r->spare;
    }
    double radius = sqrt(-2 * log(1 - qn_random_unit(r)));
    double angle = 6.283185307179586 * qn_random_unit(r);
    r->spare = radius * sin(angle);
    r->has_spare = true;
    return radius * cos(angle);
}

uint64_t qn_random_below(qn_random *r, uint64_t n)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do {
        x = qn_random_word(r);
        x = x << 32 | qn_random_word(r);
    } while (x >= limit);
    return x % n;
}

uint64_t qn_permute(uint64_t i, uint64_t n, uint64_t key)
{
    int half = 1;
    while (((uint64_t)1 << 2 * half) < n) half++;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    do { // a permutation of 4^half numbers; walk until one below n comes up
        uint64_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < 6; round++) {
            uint32_t word[4];
            qn_philox(key, round, right, word);
            uint64_t next = left ^ (word[0] & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
