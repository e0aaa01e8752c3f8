// Lifetimes to offsets: largest first, each at the lowest place that is free during its life.
#include "graph_impl.h"

#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    const qn_lifetime *x = *(qn_lifetime *const *)a, *y = *(qn_lifetime *const *)b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x < y ? -1 : x > y; // a total order, so that equal graphs get equal plans
}

static int by_offset(const void *a, const void *b)
{
    const qn_lifetime *x = *(qn_lifetime *const *)a, *y = *(qn_lifetime *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static uint64_t round_up(uint64_t x, uint64_t to)
{
    return (x + to - 1) / to * to;
}

// The lowest offset for `item` beside the `count` neighbours, which are sorted by offset.
static uint64_t lowest_gap(const qn_lifetime *item, qn_lifetime *const *neighbours, size_t count,
                           uint64_t align, uint64_t chunk)
{
    uint64_t at = 0;
    for (size_t i = 0; i <= count; i++) {
        if (chunk && at / chunk != (at + item->size - 1) / chunk) at = round_up(at, chunk);
        if (i == count) break;
        const qn_lifetime *n = neighbours[i];
        if (at + item->size <= n->offset) break;
        uint64_t end = round_up(n->offset + n->size, align);
        if (end > at) at = end;
    }
    return at;
}

qn_result qn_memplan(qn_lifetime *items, size_t count, uint64_t align, uint64_t chunk,
                     uint64_t *total)
{
    *total = 0;
    if (count == 0) return QN_OK;
    qn_lifetime **order = qn_malloc(count * sizeof *order);
    qn_lifetime **near = qn_malloc(count * sizeof *near);
    qn_result r = order && near ? QN_OK : qn_no_memory(count * sizeof *order);
    for (size_t i = 0; r == QN_OK && i < count; i++) {
        order[i] = &items[i];
        if (chunk && items[i].size > chunk)
            r = qn_fail(QN_ERR_UNSUPPORTED,
                        "an intermediate of %llu bytes exceeds the device's largest allocation, "
                        "%llu bytes; use a smaller batch",
                        (unsigned long long)items[i].size, (unsigned long long)chunk);
    }
    if (r == QN_OK) {
        qsort(order, count, sizeof *order, by_size);
        for (size_t i = 0; i < count; i++) {
            size_t n = 0;
            for (size_t j = 0; j < i; j++)
                if (order[j]->first <= order[i]->last && order[i]->first <= order[j]->last)
                    near[n++] = order[j];
            qsort(near, n, sizeof *near, by_offset);
            order[i]->offset = lowest_gap(order[i], near, n, align, chunk);
            uint64_t end = order[i]->offset + order[i]->size;
            if (end > *total) *total = end;
        }
    }
    qn_free(order);
    qn_free(near);
    return r;
}
