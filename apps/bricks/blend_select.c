// The k-th magnitude without sorting: histograms over the bits, 256 bins at a time.
#include "blend_impl.h"

#include "args/merge_select.h"

#include <string.h>

enum { BINS = 256, COUNTERS = BINS + 1, RUN = 512 }; // RUN: vec4s of one invocation, flat form

// How many separate sets of counters a window needs.
static uint64_t groups_of(const qn_blend *b, uint64_t count)
{
    return qn_ceil_div(qn_ceil_div(count, 4), (uint64_t)RUN * qn_blend_lanes(b));
}

static qn_result count_window(qn_blend *b, const qn_blend_keys *keys, uint32_t low, uint32_t shift,
                              uint64_t first, uint64_t count)
{
    merge_select_args args = { (u32)count, low, shift, RUN };
    qn_dispatch d = {
        .kernel = QN_K_merge_select,
        .storage = b->t.storage,
        .args = &args,
        .args_size = sizeof args,
        .constants = { keys->base >= 0, keys->plane },
        .rounds = RUN + 4,
    };
    if (!keys->plane) d.buffers[0] = qn_blend_input(b, keys->x, first, count);
    if (!keys->plane) d.buffers[1] = qn_blend_input(b, keys->base, first, count);
    if (keys->plane) d.buffers[2] = qn_blend_f32(&b->plane, first, count);
    d.buffers[3] = qn_all(&b->bins);
    qn_blend_groups(groups_of(b, count), d.groups);
    return qn_blend_dispatch(b, &d);
}

// counts[BINS] is the number of keys below `low`.
static qn_result histogram(qn_blend *b, const qn_blend_keys *keys, uint32_t low, uint32_t shift,
                           uint64_t counts[COUNTERS])
{
    bool flat = b->info->kernel_class == QN_CLASS_FLAT;
    uint64_t sets = flat ? groups_of(b, qn_smaller(b->window, b->t.count)) * qn_blend_lanes(b) : 1;
    size_t size = (size_t)sets * COUNTERS * 4;
    qn_stream *s;
    QN_TRY(qn_room(b, &b->bins, size, QN_MEMORY_DEVICE, "merge histogram"));
    QN_TRY(qn_blend_stream(b, &s));
    QN_TRY(qn_stream_fill(s, qn_all(&b->bins), 0));
    for (uint64_t at = 0; at < b->t.count; at += b->window)
        QN_TRY(count_window(b, keys, low, shift, at, qn_smaller(b->window, b->t.count - at)));
    QN_TRY(qn_blend_flush(b));
    uint32_t *all = qn_malloc(size);
    if (!all) return qn_no_memory(size);
    qn_result r = qn_buffer_read(b->bins.buffer, 0, all, size);
    memset(counts, 0, COUNTERS * sizeof *counts);
    for (uint64_t i = 0; r == QN_OK && i < sets; i++)
        for (int c = 0; c < COUNTERS; c++) counts[c] += all[i * COUNTERS + c];
    qn_free(all);
    return r;
}

qn_result qn_blend_select(qn_blend *b, const qn_blend_keys *keys, uint64_t rank,
                          qn_blend_found *out)
{
    static const uint32_t shifts[] = { 23, 15, 7, 0 }; // 31 bits
    uint64_t counts[COUNTERS];
    uint32_t low = 0;
    for (size_t i = 0; i < sizeof shifts / sizeof *shifts; i++) {
        QN_TRY(histogram(b, keys, low, shifts[i], counts));
        uint64_t below = counts[BINS];
        uint32_t bin = 0;
        while (bin < BINS - 1 && below + counts[bin] <= rank) below += counts[bin++];
        low += bin << shifts[i];
        *out = (qn_blend_found){ low, below, counts[bin] };
    }
    return QN_OK;
}
