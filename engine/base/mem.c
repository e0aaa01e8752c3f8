// The host allocator's wrapper, growable arrays and the bump arena.
#include "mem.h"
#include "fail.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int_least64_t fail_countdown; // 0: never; tests only

void qn_alloc_fail_at(int64_t n)
{
    atomic_store(&fail_countdown, n);
}

static bool injected_failure(void)
{
    int64_t n = atomic_load(&fail_countdown);
    if (n == 0) return false;
    if (n == 1) return true;
    atomic_store(&fail_countdown, n - 1);
    return false;
}

void *qn_malloc(size_t size)
{
    return injected_failure() ? NULL : malloc(size ? size : 1);
}

void *qn_calloc(size_t count, size_t size)
{
    return injected_failure() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *qn_realloc(void *ptr, size_t size)
{
    return injected_failure() ? NULL : realloc(ptr, size ? size : 1);
}

void qn_free(void *ptr)
{
    free(ptr);
}

char *qn_strndup(const char *s, size_t n)
{
    char *copy = qn_malloc(n + 1);
    if (!copy) return NULL;
    memcpy(copy, s, n);
    copy[n] = 0;
    return copy;
}

char *qn_strdup(const char *s)
{
    return qn_strndup(s, strlen(s));
}

qn_result qn_no_memory(size_t size)
{
    return qn_fail(QN_ERR_NO_MEMORY, "out of host memory (%zu bytes wanted)", size);
}

qn_result qn_grow(void **items, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap) return QN_OK;
    size_t n = *cap ? *cap : 8;
    while (n < need) {
        if (n > SIZE_MAX / 2) return qn_no_memory(SIZE_MAX);
        n *= 2;
    }
    if (n > SIZE_MAX / size) return qn_no_memory(SIZE_MAX);
    void *p = qn_realloc(*items, n * size);
    if (!p) return qn_no_memory(n * size);
    *items = p;
    *cap = n;
    return QN_OK;
}

struct qn_arena_block {
    struct qn_arena_block *next;
    max_align_t data[];
};

void *qn_arena_alloc(qn_arena *a, size_t size)
{
    if (size > SIZE_MAX - 64) return NULL;
    size = (size + 15) & ~(size_t)15;
    if (!a->blocks || a->size - a->used < size) {
        size_t want = size > 65536 ? size : 65536;
        struct qn_arena_block *b = qn_calloc(1, sizeof *b + want);
        if (!b) return NULL;
        b->next = a->blocks;
        a->blocks = b;
        a->used = 0;
        a->size = want;
    }
    void *p = (char *)a->blocks->data + a->used;
    a->used += size;
    return p;
}

char *qn_arena_printf(qn_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : qn_arena_alloc(a, (size_t)n + 1);
    if (s) vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    return s;
}

void qn_arena_free(qn_arena *a)
{
    for (struct qn_arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        qn_free(b);
    }
    *a = (qn_arena){ 0 };
}
