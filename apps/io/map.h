// Hash maps from strings, and from pairs of 32-bit numbers, to 32-bit numbers. Open addressing,
// seeded per process so that a file cannot be made to collide. Zero-initialise.
#ifndef QN_MAP_H
#define QN_MAP_H

#include <quoin/base.h>

#define QN_MAP_NONE UINT32_MAX // not in the map; no valid value

typedef struct qn_strmap {
    struct qn_strmap_slot *slots;
    size_t count, capacity; // capacity is a power of two
} qn_strmap;

// Maps the key to `value` unless it is there already; *found is what it maps to now. The key's
// bytes are not copied and must outlive the map.
qn_result qn_strmap_add(qn_strmap *m, const char *key, size_t size, uint32_t value,
                        uint32_t *found);
uint32_t qn_strmap_find(const qn_strmap *m, const char *key, size_t size);
void qn_strmap_free(qn_strmap *m);

typedef struct qn_pairmap {
    struct qn_pairmap_slot *slots;
    size_t count, capacity;
} qn_pairmap;

qn_result qn_pairmap_add(qn_pairmap *m, uint32_t a, uint32_t b, uint32_t value, uint32_t *found);
uint32_t qn_pairmap_find(const qn_pairmap *m, uint32_t a, uint32_t b);
void qn_pairmap_free(qn_pairmap *m);

// The hash behind both, for tables of another form.
uint64_t qn_hash_bytes(const void *data, size_t size);

#endif
