// Read-after-write, write-after-read and write-after-write on overlapping ranges need a barrier.
#include "hazard.h"
#include "fail.h"
#include "mem.h"

#include <string.h>

static bool overlap(const qn_access *a, const qn_access *b)
{
    return a->buffer == b->buffer && a->offset < b->offset + b->size &&
           b->offset < a->offset + a->size;
}

static bool any_overlap(const qn_access *list, size_t count, const qn_access *a)
{
    for (size_t i = 0; i < count; i++)
        if (overlap(&list[i], a)) return true;
    return false;
}

static bool conflicts(const qn_hazards *h, const qn_access *a)
{
    return any_overlap(h->writes, h->write_count, a) ||
           (a->write && any_overlap(h->reads, h->read_count, a));
}

static bool same(const qn_access *a, const qn_access *b)
{
    return a->buffer == b->buffer && a->offset == b->offset && a->size == b->size;
}

static void note(qn_access *list, size_t *count, const qn_access *a)
{
    for (size_t i = *count; i-- > 0;) // many steps read the same weights
        if (same(&list[i], a)) return;
    list[(*count)++] = *a;
}

void qn_hazards_clear(qn_hazards *h)
{
    h->read_count = h->write_count = 0;
}

bool qn_hazards_step(qn_hazards *h, const qn_access *accesses, size_t count)
{
    bool barrier =
        h->read_count + count > QN_HAZARD_ACCESSES || h->write_count + count > QN_HAZARD_ACCESSES;
    for (size_t i = 0; i < count && !barrier; i++) barrier = conflicts(h, &accesses[i]);
    if (barrier) qn_hazards_clear(h);
    for (size_t i = 0; i < count; i++) {
        if (accesses[i].write)
            note(h->writes, &h->write_count, &accesses[i]);
        else
            note(h->reads, &h->read_count, &accesses[i]);
    }
    return barrier;
}

// ---------------------------------------------------------------------------------- traces

qn_result qn_trace_add(qn_trace *t, bool barrier, const qn_access *accesses, size_t count)
{
    void *steps = t->steps, *list = t->accesses;
    qn_result r = qn_grow(&steps, &t->capacity, t->count + 1, sizeof *t->steps);
    t->steps = steps;
    if (r == QN_OK)
        r = qn_grow(&list, &t->access_capacity, t->access_count + count, sizeof *t->accesses);
    t->accesses = list;
    if (r != QN_OK) return r;
    t->steps[t->count++] =
        (struct qn_trace_step){ .first = t->access_count, .count = count, .barrier = barrier };
    if (count) memcpy(t->accesses + t->access_count, accesses, count * sizeof *accesses);
    t->access_count += count;
    return QN_OK;
}

void qn_trace_free(qn_trace *t)
{
    qn_free(t->steps);
    qn_free(t->accesses);
    *t = (qn_trace){ 0 };
}

static bool steps_conflict(const qn_trace *t, size_t first, size_t second)
{
    const struct qn_trace_step *a = &t->steps[first], *b = &t->steps[second];
    for (size_t i = 0; i < a->count; i++)
        for (size_t j = 0; j < b->count; j++) {
            const qn_access *x = &t->accesses[a->first + i], *y = &t->accesses[b->first + j];
            if ((x->write || y->write) && overlap(x, y)) return true;
        }
    return false;
}

bool qn_trace_ordered(const qn_trace *t, size_t *first, size_t *second)
{
    for (size_t later = 1; later < t->count; later++) {
        for (size_t earlier = later; earlier > 0 && !t->steps[earlier].barrier; earlier--) {
            if (!steps_conflict(t, earlier - 1, later)) continue;
            *first = earlier - 1;
            *second = later;
            return false;
        }
    }
    return true;
}
