// Best-fit allocation from a sorted list of free pieces.
#include "ranges.h"
#include "fail.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

// Between n handed-out pieces lie at most n + 1 free ones, so reserving while taking means that
// giving back needs no memory.
static qn_result reserve(qn_ranges *r)
{
    void *items = r->free;
    qn_result result = qn_grow(&items, &r->capacity, r->taken + 2, sizeof *r->free);
    r->free = items;
    return result;
}

qn_result qn_ranges_init(qn_ranges *r, uint64_t size)
{
    *r = (qn_ranges){ .size = size };
    QN_TRY(reserve(r));
    r->free[0] = (qn_piece){ 0, size };
    r->count = size ? 1 : 0;
    return QN_OK;
}

void qn_ranges_free(qn_ranges *r)
{
    qn_free(r->free);
    *r = (qn_ranges){ 0 };
}

static void insert(qn_ranges *r, size_t at, qn_piece piece)
{
    assert(r->count < r->capacity);
    memmove(r->free + at + 1, r->free + at, (r->count - at) * sizeof *r->free);
    r->free[at] = piece;
    r->count++;
}

static void erase(qn_ranges *r, size_t at)
{
    r->count--;
    memmove(r->free + at, r->free + at + 1, (r->count - at) * sizeof *r->free);
}

static uint64_t padding(const qn_piece *p, uint64_t align)
{
    return (align - p->offset % align) % align;
}

qn_result qn_ranges_take(qn_ranges *r, uint64_t size, uint64_t align, uint64_t *offset, bool *found)
{
    *found = false;
    QN_TRY(reserve(r));
    size_t best = r->count;
    for (size_t i = 0; i < r->count; i++) {
        const qn_piece *p = &r->free[i];
        uint64_t skip = padding(p, align);
        if (p->size < skip || p->size - skip < size) continue;
        if (best == r->count || p->size < r->free[best].size) best = i;
    }
    if (best == r->count) return QN_OK;
    qn_piece p = r->free[best];
    uint64_t skip = padding(&p, align), rest = p.size - skip - size;
    erase(r, best);
    if (rest) insert(r, best, (qn_piece){ p.offset + skip + size, rest });
    if (skip) insert(r, best, (qn_piece){ p.offset, skip });
    r->taken++;
    *offset = p.offset + skip;
    *found = true;
    return QN_OK;
}

void qn_ranges_give(qn_ranges *r, uint64_t offset, uint64_t size)
{
    size_t at = 0, end = r->count;
    while (at < end) { // the first free piece behind
        size_t middle = at + (end - at) / 2;
        if (r->free[middle].offset < offset)
            at = middle + 1;
        else
            end = middle;
    }
    r->taken--;
    bool joins_left = at > 0 && r->free[at - 1].offset + r->free[at - 1].size == offset;
    bool joins_right = at < r->count && offset + size == r->free[at].offset;
    if (joins_left && joins_right) {
        r->free[at - 1].size += size + r->free[at].size;
        erase(r, at);
    } else if (joins_left) {
        r->free[at - 1].size += size;
    } else if (joins_right) {
        r->free[at].offset = offset;
        r->free[at].size += size;
    } else {
        insert(r, at, (qn_piece){ offset, size });
    }
}

uint64_t qn_ranges_largest(const qn_ranges *r)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < r->count; i++)
        if (r->free[i].size > largest) largest = r->free[i].size;
    return largest;
}
