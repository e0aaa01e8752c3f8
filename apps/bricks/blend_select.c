// The k-th magnitude without sorting: a range of keys that holds it is narrowed by counting keys
// below thresholds, the first of which come from a sample; once few keys are left in the range they
// are handed out to the host. Every step is exact, whatever the sample says.
#include "blend_impl.h"

#include "args/merge_select.h"

#include <quoin/io.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    THRESHOLDS = 8,
    RUN = 512,       // vec4s of one invocation
    SMALL = 1 << 14, // tensors of up to this many elements are handed out whole
    ROOM = 48,       // keys of an invocation's 2048 that may be handed out otherwise
    SAMPLE = 1 << 16,
};
#define KEY_END ((uint32_t)1 << 31)

// A range [low, high) of keys, how many lie below it and how many in it.
typedef struct range {
    uint32_t low, high;
    uint64_t below, count;
} range;

static uint64_t groups_of(const qn_blend *b, uint64_t count)
{
    return qn_ceil_div(qn_ceil_div(count, 4), (uint64_t)RUN * qn_blend_lanes(b));
}

// Every window starts with a group of its own; all but the last window have the same number.
static uint64_t all_groups(const qn_blend *b)
{
    uint64_t whole = b->t.count / b->window;
    return whole * groups_of(b, b->window) + groups_of(b, b->t.count - whole * b->window);
}

static qn_result dispatch(qn_blend *b, const qn_blend_keys *keys, uint32_t mode,
                          merge_select_args args)
{
    for (uint64_t at = 0; at < b->t.count; at += b->window) {
        uint64_t count = qn_smaller(b->window, b->t.count - at);
        args.count = (u32)count;
        args.run = RUN;
        args.first = (u32)(at / b->window * groups_of(b, b->window));
        qn_dispatch d = {
            .kernel = QN_K_merge_select,
            .storage = b->t.storage,
            .args = &args,
            .args_size = sizeof args,
            .constants = { keys->base >= 0, keys->plane, mode },
            .rounds = RUN + 64,
        };
        if (!keys->plane) d.buffers[0] = qn_blend_input(b, keys->x, at, count);
        if (!keys->plane) d.buffers[1] = qn_blend_input(b, keys->base, at, count);
        if (keys->plane) d.buffers[2] = qn_blend_f32(&b->plane, at, count);
        d.buffers[3] = qn_all(&b->bins);
        qn_blend_groups(groups_of(b, count), d.groups);
        QN_TRY(qn_blend_dispatch(b, &d));
    }
    return qn_blend_flush(b);
}

static qn_result read_bins(qn_blend *b, uint64_t words, uint32_t **out)
{
    uint32_t *all = qn_malloc((size_t)words * 4);
    if (!all) return qn_no_memory((size_t)words * 4);
    qn_result r = qn_buffer_read(b->bins.buffer, 0, all, words * 4);
    if (r == QN_OK)
        *out = all;
    else
        qn_free(all);
    return r;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

// Cuts the range at ascending thresholds and goes on with the piece that holds the rank.
static qn_result narrow(qn_blend *b, const qn_blend_keys *keys, uint64_t rank,
                        const uint32_t t[THRESHOLDS], range *r)
{
    uint64_t groups = all_groups(b), counts[THRESHOLDS] = { 0 };
    uint32_t *all;
    QN_TRY(qn_room(b, &b->bins, groups * THRESHOLDS * 4, QN_MEMORY_DEVICE, "merge counts"));
    QN_TRY(dispatch(b, keys, 0,
                    (merge_select_args){ .t0 = t[0],
                                         .t1 = t[1],
                                         .t2 = t[2],
                                         .t3 = t[3],
                                         .t4 = t[4],
                                         .t5 = t[5],
                                         .t6 = t[6],
                                         .t7 = t[7] }));
    QN_TRY(read_bins(b, groups * THRESHOLDS, &all));
    for (uint64_t g = 0; g < groups; g++)
        for (int i = 0; i < THRESHOLDS; i++) counts[i] += all[g * THRESHOLDS + i];
    qn_free(all);
    uint64_t end = r->below + r->count;
    for (int i = 0; i < THRESHOLDS; i++) {
        if (t[i] <= r->low || t[i] >= r->high) continue;
        if (counts[i] <= rank) {
            r->low = t[i];
            r->below = counts[i];
        } else {
            r->high = t[i];
            end = counts[i];
        }
    }
    r->count = end - r->below;
    return QN_OK;
}

// The rank among the keys of the range; *found is false when some invocation has too many.
static qn_result hand_out(qn_blend *b, const qn_blend_keys *keys, uint64_t rank, const range *r,
                          uint32_t spare, qn_blend_found *out, bool *found)
{
    uint64_t lists = all_groups(b) * qn_blend_lanes(b), n = 0;
    uint32_t *all;
    QN_TRY(qn_room(b, &b->bins, lists * (spare + 1) * 4, QN_MEMORY_DEVICE, "merge candidates"));
    QN_TRY(
        dispatch(b, keys, 1, (merge_select_args){ .low = r->low, .high = r->high, .room = spare }));
    QN_TRY(read_bins(b, lists * (spare + 1), &all));
    *found = true;
    for (uint64_t i = 0; i < lists && *found; i++) {
        const uint32_t *list = all + i * (spare + 1);
        uint32_t count = list[0];
        *found = count <= spare;
        if (*found) memmove(all + n, list + 1, count * sizeof *all);
        n += count;
    }
    if (*found) {
        qsort(all, (size_t)n, sizeof *all, by_value);
        uint64_t at = rank - r->below, first = at, last = at;
        while (first > 0 && all[first - 1] == all[at]) first--;
        while (last + 1 < n && all[last + 1] == all[at]) last++;
        *out = (qn_blend_found){ all[at], r->below + first, last - first + 1 };
    }
    qn_free(all);
    return QN_OK;
}

// ---------------------------------------------------------------------------------- sample

// One element of what a slot holds.
static float element(const void *slot, qn_storage storage, uint64_t i)
{
    static const qn_st_dtype dtypes[] = {
        [QN_STORE_F32] = QN_ST_F32, [QN_STORE_F16] = QN_ST_F16, [QN_STORE_BF16] = QN_ST_BF16
    };
    float f = 0;
    if (storage == QN_STORE_F32) return ((const float *)slot)[i];
    qn_safetensor t = { .name = "slot", .dtype = dtypes[storage], .count = i + 1, .data = slot };
    (void)qn_safetensor_f32(&t, i, 1, &f); // cannot fail: the type is a float and i is inside
    return f;
}

// Keys of elements spread over the tensor, sorted; NULL: the host does not see them.
static uint32_t *make_sample(qn_blend *b, const qn_blend_keys *keys)
{
    const void *x =
        keys->plane ? qn_buffer_map(b->plane.buffer) : qn_blend_slot(b, b->set, (size_t)keys->x);
    const void *base =
        keys->plane || keys->base < 0 ? NULL : qn_blend_slot(b, b->set, (size_t)keys->base);
    qn_storage storage = keys->plane ? QN_STORE_F32 : b->t.storage;
    uint32_t *sample = x ? qn_malloc(SAMPLE * sizeof *sample) : NULL, random = 1;
    uint64_t stride = b->t.count / SAMPLE;
    for (uint64_t i = 0; sample && i < SAMPLE; i++) {
        random = random * 1664525 + 1013904223;
        uint64_t at = i * b->t.count / SAMPLE + (random >> 8) % (stride ? stride : 1);
        float d = element(x, storage, at) - (base ? element(base, storage, at) : 0);
        memcpy(&sample[i], &d, sizeof d);
        sample[i] &= 0x7fffffff;
    }
    if (sample) qsort(sample, SAMPLE, sizeof *sample, by_value);
    return sample;
}

// Around where the rank should be: close by, and at six standard deviations.
static void thresholds_of_sample(const uint32_t *sample, double share, uint32_t t[THRESHOLDS])
{
    static const double offsets[THRESHOLDS] = { -6, -2, -0.7, 0, 0, 0.7, 2, 6 };
    double sigma = sqrt(fmax(share * (1 - share), 1e-4) * SAMPLE);
    for (int i = 0; i < THRESHOLDS; i++) {
        double at = share * SAMPLE + offsets[i] * sigma;
        t[i] = sample[at < 0 ? 0 : at > SAMPLE - 1 ? SAMPLE - 1 : (size_t)at];
    }
    t[4]++; // a key that many elements have is met by t[3] and t[4]
    qsort(t, THRESHOLDS, sizeof *t, by_value);
}

static void even_thresholds(const range *r, uint32_t t[THRESHOLDS])
{
    uint64_t width = r->high - r->low;
    for (int i = 0; i < THRESHOLDS; i++)
        t[i] = r->low + (uint32_t)((width * (uint64_t)(i + 1) + THRESHOLDS) / (THRESHOLDS + 1));
}

qn_result qn_blend_select(qn_blend *b, const qn_blend_keys *keys, uint64_t rank,
                          qn_blend_found *out)
{
    uint32_t t[THRESHOLDS];
    range r = { 0, KEY_END, 0, b->t.count };
    bool found = false, small = b->t.count <= SMALL;
    QN_TRY(qn_blend_flush(b)); // planes may still be in the making
    if (small) return hand_out(b, keys, rank, &r, 4 * RUN, out, &found);
    uint32_t *sample = make_sample(b, keys);
    if (sample) {
        thresholds_of_sample(sample, (double)rank / (double)b->t.count, t);
        qn_free(sample);
        QN_TRY(narrow(b, keys, rank, t, &r));
    }
    while (r.high - r.low > 1) {
        if (r.count <= b->t.count / 200 + 64)
            QN_TRY(hand_out(b, keys, rank, &r, ROOM, out, &found));
        if (found) return QN_OK;
        even_thresholds(&r, t);
        QN_TRY(narrow(b, keys, rank, t, &r));
    }
    *out = (qn_blend_found){ r.low, r.below, r.count };
    return QN_OK;
}
