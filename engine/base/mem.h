// Host memory: checked sizes, an allocator that tests can make fail, and a bump arena.
#ifndef QN_MEM_H
#define QN_MEM_H

#include <quoin/base.h>

// Like malloc, calloc, realloc and free. NULL means out of memory; callers turn it into
// qn_no_memory().
QN_API void *qn_malloc(size_t size);
QN_API void *qn_calloc(size_t count, size_t size);
QN_API void *qn_realloc(void *ptr, size_t size);
QN_API void qn_free(void *ptr);
QN_API char *qn_strdup(const char *s);
QN_API char *qn_strndup(const char *s, size_t n);

// Sets the message and returns QN_ERR_NO_MEMORY.
QN_API qn_result qn_no_memory(size_t size);

// Tests: the n-th allocation from now on (1 = the next) and all later ones fail; 0: none.
QN_API void qn_alloc_fail_at(int64_t n);

// *out = a * b or a + b; false when that does not fit.
static inline bool qn_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a && b > UINT64_MAX / a) return false;
    *out = a * b;
    return true;
}
static inline bool qn_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    *out = a + b;
    return *out >= a;
}

// Grows *items (elements of `size` bytes, capacity *cap) so that `need` fit. Doubles.
QN_API qn_result qn_grow(void **items, size_t *cap, size_t need, size_t size);

// Bump allocation for things that die together. Zero-initialise; memory is zeroed.
typedef struct qn_arena {
    struct qn_arena_block *blocks;
    size_t used, size; // of the newest block
} qn_arena;
QN_API void *qn_arena_alloc(qn_arena *a, size_t size); // 16-byte aligned; NULL: out of memory
QN_API char *qn_arena_printf(qn_arena *a, const char *fmt, ...);
QN_API void qn_arena_free(qn_arena *a);

#endif
