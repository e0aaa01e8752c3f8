// The dispatches that write a result: weighted sums, task vectors, unique and shared differences.
#include "blend_impl.h"

#include "args/merge_mix.h"
#include "args/merge_plane.h"
#include "args/merge_ram.h"
#include "args/merge_task.h"

#include <string.h>

static qn_result upload(qn_blend *b, const void *data, uint64_t size)
{
    QN_TRY(qn_blend_flush(b)); // an earlier recording may still read the old values
    QN_TRY(qn_room(b, &b->params, size, QN_MEMORY_UPLOAD, "merge coefficients"));
    return qn_buffer_write(b->params.buffer, 0, data, size);
}

// Scratch of one window for what is passed from one group of models to the next.
static qn_result need_before(qn_blend *b)
{
    for (int i = 0; i < 2; i++)
        QN_TRY(qn_room(b, &b->before[i], qn_smaller(b->window, b->t.count) * 4, QN_MEMORY_DEVICE,
                       "merge sums of models"));
    return QN_OK;
}

// ---------------------------------------------------------------------------------- mix

typedef struct mix_group {
    size_t first, count; // inputs
    uint64_t offset;     // bytes in params
} mix_group;

static uint64_t mix_sets(const qn_blend *b, qn_blend_spread spread)
{
    if (spread == QN_BLEND_WHOLE) return 1;
    return spread == QN_BLEND_ROWS ? b->t.count / b->t.width : b->t.columns;
}

// Coefficients by group of models: each group's table has its own pivot column, zero but for the
// first group.
static qn_result upload_mix(qn_blend *b, const qn_blend_mix_opts *o, size_t groups)
{
    uint64_t sets = mix_sets(b, o->spread), pad = 64;
    uint64_t stride = qn_ceil_div(sets * (1 + GROUP_MODELS), pad) * pad;
    float *table = qn_calloc((size_t)(groups * stride), sizeof *table);
    if (!table) return qn_no_memory((size_t)(groups * stride) * sizeof *table);
    for (size_t g = 0; g < groups; g++) {
        size_t first = g * GROUP_MODELS, count = qn_smaller(GROUP_MODELS, o->count - first);
        for (uint64_t s = 0; s < sets; s++) {
            const float *from = o->coefs + s * (1 + o->count);
            float *to = table + g * stride + s * (1 + count);
            to[0] = g ? 0 : from[0];
            for (size_t m = 0; m < count; m++) to[1 + m] = from[1 + first + m];
        }
    }
    qn_result r = upload(b, table, groups * stride * sizeof *table);
    qn_free(table);
    return r;
}

static qn_result mix_window(qn_blend *b, const qn_blend_mix_opts *o, size_t groups, uint64_t first,
                            uint64_t count)
{
    uint64_t sets = mix_sets(b, o->spread), pad = 64;
    uint64_t stride = qn_ceil_div(sets * (1 + GROUP_MODELS), pad) * pad * sizeof(float);
    uint64_t width = o->spread == QN_BLEND_COLUMNS ? b->t.columns : b->t.width;
    merge_mix_args args = { (u32)count, (u32)first, (u32)width };
    for (size_t g = 0; g < groups; g++) {
        bool last = g + 1 == groups;
        size_t from = g * GROUP_MODELS, n = qn_smaller(GROUP_MODELS, o->count - from);
        qn_dispatch d = {
            .kernel = QN_K_merge_mix,
            .storage = b->t.storage,
            .args = &args,
            .args_size = sizeof args,
            .constants = { last ? b->t.out : QN_STORE_F32, (uint32_t)n + 1, o->spread, g > 0,
                           o->near_swap },
            .rounds = 100,
        };
        d.buffers[0] = qn_blend_input(b, o->pivot, first, count);
        for (size_t m = 0; m < n; m++)
            d.buffers[1 + m] = qn_blend_input(b, o->inputs[from + m], first, count);
        d.buffers[8] = (qn_range){ b->params.buffer, g * stride, stride };
        if (g) d.buffers[9] = qn_blend_f32(&b->before[(g + 1) % 2], 0, count);
        d.buffers[10] =
            last ? qn_blend_out(b, first, count) : qn_blend_f32(&b->before[g % 2], 0, count);
        qn_blend_each(b, count, d.groups);
        QN_TRY(qn_blend_dispatch(b, &d));
    }
    return QN_OK;
}

qn_result qn_blend_mix(qn_blend *b, const qn_blend_mix_opts *o)
{
    size_t groups = o->count ? (size_t)qn_ceil_div(o->count, GROUP_MODELS) : 1;
    if (groups > 1) QN_TRY(need_before(b));
    QN_TRY(upload_mix(b, o, groups));
    for (uint64_t at = 0; at < b->t.count; at += b->window)
        QN_TRY(mix_window(b, o, groups, at, qn_smaller(b->window, b->t.count - at)));
    return QN_OK;
}

// ---------------------------------------------------------------------------------- task vectors

typedef struct task_model { // as in task.comp
    float sign_weight, weight, scale;
    uint32_t kind, low, low_index, low_below, high, high_index, mask;
} task_model;

static uint64_t mask_words(const qn_blend *b)
{
    return qn_ceil_div(b->t.count, SEGMENT) * (SEGMENT / 32);
}

static uint64_t model_stride(void)
{
    return qn_ceil_div(GROUP_MODELS * sizeof(task_model), QN_RANGE_ALIGN) * QN_RANGE_ALIGN;
}

static qn_result upload_task(qn_blend *b, const qn_blend_task_opts *o, size_t groups)
{
    uint64_t size = groups * model_stride();
    char *table = qn_calloc(1, size);
    if (!table) return qn_no_memory(size);
    for (size_t m = 0; m < o->count; m++) {
        const qn_blend_task_model *from = &o->models[m];
        task_model *group = (task_model *)(void *)(table + m / GROUP_MODELS * model_stride());
        group[m % GROUP_MODELS] = (task_model){
            from->sign_weight,     from->weight,
            from->scale,           from->keep.kind,
            from->keep.low,        from->keep.low_index,
            from->keep.low_below,  from->keep.high,
            from->keep.high_index, (uint32_t)(from->keep.mask * mask_words(b)),
        };
    }
    qn_result r = upload(b, table, size);
    qn_free(table);
    return r;
}

static uint32_t thinning(const qn_blend_task_opts *o)
{
    uint32_t bits = 0;
    for (size_t m = 0; m < o->count; m++) {
        bits |= o->models[m].keep.kind == QN_KEEP_KEYS ? 1 : 0;
        bits |= o->models[m].keep.kind == QN_KEEP_MASK ? 2 : 0;
        bits |= o->models[m].scale != 1.0f ? 4 : 0; // neither, but not the plain difference
    }
    return bits;
}

static qn_result task_dispatch(qn_blend *b, const qn_blend_task_opts *o, size_t g, size_t groups,
                               int phase, uint64_t first, uint64_t count)
{
    size_t from = g * GROUP_MODELS, n = qn_smaller(GROUP_MODELS, o->count - from);
    uint64_t plane = qn_ceil_div(qn_smaller(b->window, b->t.count), 4);
    merge_task_args args = { (u32)count, (u32)first, (u32)plane, o->lambda };
    qn_dispatch d = {
        .kernel = QN_K_merge_task,
        .storage = b->t.storage,
        .args = &args,
        .args_size = sizeof args,
        .constants = { b->t.out, (uint32_t)n, o->signs, o->divide, (uint32_t)phase,
                       (g == 0 ? 1u : 0u) | (g + 1 == groups ? 2u : 0u), thinning(o) },
        .rounds = 100,
    };
    d.buffers[0] = qn_blend_input(b, o->base, first, count);
    for (size_t m = 0; m < n; m++)
        d.buffers[1 + m] = qn_blend_input(b, o->models[from + m].input, first, count);
    d.buffers[8] = (qn_range){ b->params.buffer, g * model_stride(), model_stride() };
    if (thinning(o) & 2) d.buffers[9] = qn_all(&b->masks);
    if (phase) d.buffers[10] = qn_all(&b->state);
    if (phase != 1) d.buffers[11] = qn_blend_out(b, first, count);
    qn_blend_each(b, count, d.groups);
    return qn_blend_dispatch(b, &d);
}

qn_result qn_blend_task(qn_blend *b, const qn_blend_task_opts *o)
{
    size_t groups = o->count ? (size_t)qn_ceil_div(o->count, GROUP_MODELS) : 1;
    QN_TRY(upload_task(b, o, groups));
    if (groups > 1)
        QN_TRY(qn_room(b, &b->state, qn_ceil_div(qn_smaller(b->window, b->t.count), 4) * 16 * 3,
                       QN_MEMORY_DEVICE, "merge sums of task vectors"));
    for (uint64_t at = 0; at < b->t.count; at += b->window) {
        uint64_t count = qn_smaller(b->window, b->t.count - at);
        for (int phase = groups > 1 ? 1 : 0; phase <= (groups > 1 ? 2 : 0); phase++)
            for (size_t g = 0; g < groups; g++)
                QN_TRY(task_dispatch(b, o, g, groups, phase, at, count));
    }
    return QN_OK;
}

// ---------------------------------------------------------------------------------- planes

static qn_result plane(qn_blend *b, const int *inputs, size_t count, int base, uint32_t kind,
                       float epsilon)
{
    QN_TRY(qn_room(b, &b->plane, b->t.count * 4, QN_MEMORY_DEVICE, "merge plane"));
    if (kind == 0)
        QN_TRY(qn_room(b, &b->means, qn_smaller(b->window, b->t.count) * 4, QN_MEMORY_DEVICE,
                       "merge means"));
    for (uint64_t at = 0; at < b->t.count; at += b->window) {
        uint64_t items = qn_smaller(b->window, b->t.count - at);
        for (size_t first = 0; first < count; first += GROUP_MODELS) {
            size_t n = qn_smaller(GROUP_MODELS, count - first);
            merge_plane_args args = { (u32)items, (u32)at, (u32)b->t.width, (u32)first, epsilon };
            qn_dispatch d = {
                .kernel = QN_K_merge_plane,
                .storage = b->t.storage,
                .args = &args,
                .args_size = sizeof args,
                .constants = { (uint32_t)n, kind },
                .rounds = 100,
            };
            d.buffers[0] = qn_blend_input(b, base, at, items);
            for (size_t m = 0; m < n; m++)
                d.buffers[1 + m] = qn_blend_input(b, inputs[first + m], at, items);
            if (kind == 2) d.buffers[8] = qn_all(&b->params);
            d.buffers[9] = qn_blend_f32(&b->plane, at, items);
            if (kind == 0) d.buffers[10] = qn_blend_f32(&b->means, 0, items);
            qn_blend_each(b, items, d.groups);
            QN_TRY(qn_blend_dispatch(b, &d));
        }
    }
    return QN_OK;
}

qn_result qn_blend_variance(qn_blend *b, const int *inputs, size_t count, int base)
{
    return plane(b, inputs, count, base, 0, 0);
}

qn_result qn_blend_hits(qn_blend *b, const int *inputs, size_t count, int base, float epsilon)
{
    return plane(b, inputs, count, base, 1, epsilon);
}

qn_result qn_blend_importance(qn_blend *b, int x, int base, const float *factors)
{
    QN_TRY(upload(b, factors, b->t.count / b->t.width * sizeof *factors));
    return plane(b, &x, 1, base, 2, 0);
}

qn_result qn_blend_ram(qn_blend *b, const int *inputs, const float *factors, size_t count, int base,
                       float epsilon)
{
    size_t groups = (size_t)qn_ceil_div(count, GROUP_MODELS);
    if (groups > 1) QN_TRY(need_before(b));
    QN_TRY(upload(b, factors, count * sizeof *factors));
    for (uint64_t at = 0; at < b->t.count; at += b->window) {
        uint64_t items = qn_smaller(b->window, b->t.count - at);
        for (size_t g = 0; g < groups; g++) {
            size_t first = g * GROUP_MODELS, n = qn_smaller(GROUP_MODELS, count - first);
            merge_ram_args args = { (u32)items, (u32)first, epsilon };
            qn_dispatch d = {
                .kernel = QN_K_merge_ram,
                .storage = b->t.storage,
                .args = &args,
                .args_size = sizeof args,
                .constants = { g + 1 == groups ? b->t.out : QN_STORE_F32, (uint32_t)n, g > 0 },
                .rounds = 100,
            };
            d.buffers[0] = qn_blend_input(b, base, at, items);
            for (size_t m = 0; m < n; m++)
                d.buffers[1 + m] = qn_blend_input(b, inputs[first + m], at, items);
            d.buffers[8] = qn_all(&b->params);
            d.buffers[9] = qn_blend_f32(&b->plane, at, items);
            if (g) d.buffers[10] = qn_blend_f32(&b->before[(g + 1) % 2], 0, items);
            d.buffers[11] = g + 1 == groups ? qn_blend_out(b, at, items)
                                            : qn_blend_f32(&b->before[g % 2], 0, items);
            qn_blend_each(b, items, d.groups);
            QN_TRY(qn_blend_dispatch(b, &d));
        }
    }
    return QN_OK;
}
