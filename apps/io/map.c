// Open-addressed hash maps with linear probing, at most half full.
#include "map.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <pthread.h>
#include <string.h>

struct qn_strmap_slot {
    const char *key; // NULL: empty
    uint64_t hash;
    uint32_t value;
    uint32_t size;
};

struct qn_pairmap_slot {
    uint64_t key;
    uint32_t value; // QN_MAP_NONE: empty
};

static uint64_t seed;
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

// The finaliser of MurmurHash3: every bit of x reaches every bit of the result.
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xFF51AFD7ED558CCDull;
    x = (x ^ x >> 33) * 0xC4CEB9FE1A85EC53ull;
    return x ^ x >> 33;
}

// Where the loader put us and what time it is: enough that a file's author cannot know it. The
// maps' contents do not depend on it, only the places inside the tables.
static void make_seed(void)
{
    double now = qn_clock();
    uint64_t bits;
    memcpy(&bits, &now, sizeof bits);
    seed = mix(bits ^ mix((uint64_t)(uintptr_t)&seed ^ (uint64_t)(uintptr_t)&now << 16));
}

uint64_t qn_hash_bytes(const void *data, size_t size)
{
    pthread_once(&seeded, make_seed);
    const uint8_t *p = data;
    uint64_t h = seed ^ size * 0x9E3779B97F4A7C15ull;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = mix(h ^ word);
    }
    if (size) {
        uint64_t word = 0;
        memcpy(&word, p, size);
        h = mix(h ^ word);
    }
    return h;
}

static size_t str_slot(const qn_strmap *m, const char *key, size_t size, uint64_t hash)
{
    size_t i = hash & (m->capacity - 1);
    for (; m->slots[i].key; i = (i + 1) & (m->capacity - 1)) {
        const struct qn_strmap_slot *s = &m->slots[i];
        if (s->hash == hash && s->size == size && !memcmp(s->key, key, size)) break;
    }
    return i;
}

static qn_result str_grow(qn_strmap *m)
{
    qn_strmap bigger = { .capacity = m->capacity ? m->capacity * 2 : 64, .count = m->count };
    bigger.slots = qn_calloc(bigger.capacity, sizeof *bigger.slots);
    if (!bigger.slots) return qn_no_memory(bigger.capacity * sizeof *bigger.slots);
    for (size_t i = 0; i < m->capacity; i++) {
        const struct qn_strmap_slot *s = &m->slots[i];
        if (s->key) bigger.slots[str_slot(&bigger, s->key, s->size, s->hash)] = *s;
    }
    qn_free(m->slots);
    *m = bigger;
    return QN_OK;
}

qn_result qn_strmap_add(qn_strmap *m, const char *key, size_t size, uint32_t value, uint32_t *found)
{
    if (size > UINT32_MAX) return qn_fail(QN_ERR_INVALID, "a key of %zu bytes", size);
    if (m->count + 1 > m->capacity / 2) QN_TRY(str_grow(m));
    uint64_t hash = qn_hash_bytes(key, size);
    struct qn_strmap_slot *s = &m->slots[str_slot(m, key, size, hash)];
    if (!s->key) {
        *s = (struct qn_strmap_slot){
            .key = key, .hash = hash, .value = value, .size = (uint32_t)size
        };
        m->count++;
    }
    *found = s->value;
    return QN_OK;
}

uint32_t qn_strmap_find(const qn_strmap *m, const char *key, size_t size)
{
    if (!m->count || size > UINT32_MAX) return QN_MAP_NONE;
    const struct qn_strmap_slot *s = &m->slots[str_slot(m, key, size, qn_hash_bytes(key, size))];
    return s->key ? s->value : QN_MAP_NONE;
}

void qn_strmap_free(qn_strmap *m)
{
    qn_free(m->slots);
    *m = (qn_strmap){ 0 };
}

static size_t pair_slot(const qn_pairmap *m, uint64_t key)
{
    size_t i = mix(key ^ seed) & (m->capacity - 1);
    while (m->slots[i].value != QN_MAP_NONE && m->slots[i].key != key)
        i = (i + 1) & (m->capacity - 1);
    return i;
}

static qn_result pair_grow(qn_pairmap *m)
{
    pthread_once(&seeded, make_seed);
    qn_pairmap bigger = { .capacity = m->capacity ? m->capacity * 2 : 64, .count = m->count };
    bigger.slots = qn_malloc(bigger.capacity * sizeof *bigger.slots);
    if (!bigger.slots) return qn_no_memory(bigger.capacity * sizeof *bigger.slots);
    for (size_t i = 0; i < bigger.capacity; i++) bigger.slots[i].value = QN_MAP_NONE;
    for (size_t i = 0; i < m->capacity; i++) {
        const struct qn_pairmap_slot *s = &m->slots[i];
        if (s->value != QN_MAP_NONE) bigger.slots[pair_slot(&bigger, s->key)] = *s;
    }
    qn_free(m->slots);
    *m = bigger;
    return QN_OK;
}

qn_result qn_pairmap_add(qn_pairmap *m, uint32_t a, uint32_t b, uint32_t value, uint32_t *found)
{
    if (m->count + 1 > m->capacity / 2) QN_TRY(pair_grow(m));
    uint64_t key = (uint64_t)a << 32 | b;
    struct qn_pairmap_slot *s = &m->slots[pair_slot(m, key)];
    if (s->value == QN_MAP_NONE) {
        *s = (struct qn_pairmap_slot){ .key = key, .value = value };
        m->count++;
    }
    *found = s->value;
    return QN_OK;
}

uint32_t qn_pairmap_find(const qn_pairmap *m, uint32_t a, uint32_t b)
{
    if (!m->count) return QN_MAP_NONE;
    return m->slots[pair_slot(m, (uint64_t)a << 32 | b)].value;
}

void qn_pairmap_free(qn_pairmap *m)
{
    qn_free(m->slots);
    *m = (qn_pairmap){ 0 };
}
