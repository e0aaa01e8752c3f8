// Slots, windows and recording of the blend. What it computes: blend_*.c.
#include "blend_impl.h"

#include <string.h>

#define WINDOW ((uint64_t)1 << 22) // elements

qn_result qn_blend_create(qn_device *dev, qn_blend **out)
{
    qn_blend *b = qn_calloc(1, sizeof *b);
    if (!b) return qn_no_memory(sizeof *b);
    b->dev = dev;
    b->info = qn_device_describe(dev);
    b->unified = b->info->caps & QN_CAP_UNIFIED_MEMORY;
    qn_blend_window(b, 0);
    *out = b;
    return QN_OK;
}

static void room_free(room *r)
{
    qn_buffer_destroy(&r->buffer);
    r->size = 0;
}

void qn_blend_destroy(qn_blend **blend)
{
    qn_blend *b = *blend;
    if (!b) return;
    *blend = NULL;
    qn_stream_destroy(&b->stream);
    for (int s = 0; s < QN_BLEND_SETS; s++) {
        slot_set *set = &b->sets[s];
        for (size_t i = 0; i < set->count; i++) {
            room_free(&set->upload[i]);
            room_free(&set->local[i]);
        }
        qn_free(set->upload);
        qn_free(set->local);
        room_free(&set->result);
        room_free(&set->readback);
    }
    room *rooms[] = {
        &b->params, &b->sums,      &b->masks,     &b->plane, &b->means, &b->state,
        &b->bins,   &b->before[0], &b->before[1], &b->table, &b->open,  &b->doubtful
    };
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) room_free(rooms[i]);
    qn_free(b);
}

void qn_blend_window(qn_blend *b, uint64_t elements)
{
    uint64_t most = b->info->max_binding / 4 / SEGMENT * SEGMENT;
    b->window = elements ? qn_ceil_div(elements, SEGMENT) * SEGMENT : WINDOW;
    if (b->window > most) b->window = most;
}

uint64_t qn_blend_peak(const qn_blend *b)
{
    return b->peak;
}

qn_result qn_room(qn_blend *b, room *r, uint64_t size, qn_memory memory, const char *name)
{
    size = qn_ceil_div(size ? size : 1, 256) * 256;
    if (r->size >= size) return QN_OK;
    QN_TRY(qn_blend_flush(b));
    b->held -= r->size;
    room_free(r);
    QN_TRY(qn_buffer_create(
        b->dev, &(qn_buffer_opts){ .size = size, .memory = memory, .name = name }, &r->buffer));
    r->size = size;
    b->held += size;
    if (b->held > b->peak) b->peak = b->held;
    return QN_OK;
}

static qn_result grow_set(slot_set *set, size_t inputs)
{
    if (set->count >= inputs) return QN_OK;
    room **lists[] = { &set->upload, &set->local };
    for (int i = 0; i < 2; i++) {
        void *grown = qn_realloc(*lists[i], inputs * sizeof(room));
        if (!grown) return qn_no_memory(inputs * sizeof(room));
        *lists[i] = grown;
        memset(*lists[i] + set->count, 0, (inputs - set->count) * sizeof(room));
    }
    set->count = inputs;
    return QN_OK;
}

qn_result qn_blend_reserve(qn_blend *b, int s, size_t inputs, uint64_t bytes)
{
    slot_set *set = &b->sets[s];
    QN_TRY(grow_set(set, inputs));
    for (size_t i = 0; i < inputs; i++) {
        QN_TRY(qn_room(b, &set->upload[i], bytes, QN_MEMORY_UPLOAD, "merge input"));
        if (!b->unified)
            QN_TRY(qn_room(b, &set->local[i], bytes, QN_MEMORY_DEVICE, "merge input on device"));
    }
    return QN_OK;
}

qn_result qn_blend_reserve_result(qn_blend *b, int s, uint64_t bytes)
{
    slot_set *set = &b->sets[s];
    QN_TRY(qn_room(b, &set->readback, bytes, QN_MEMORY_READBACK, "merge result"));
    if (b->unified) return QN_OK;
    return qn_room(b, &set->result, bytes, QN_MEMORY_DEVICE, "merge result on device");
}

void *qn_blend_slot(qn_blend *b, int set, size_t input)
{
    return qn_buffer_map(b->sets[set].upload[input].buffer);
}

const void *qn_blend_result(const qn_blend *b, int set)
{
    return qn_buffer_map(b->sets[set].readback.buffer);
}

// Buffers are shared by ranges of whole vec4s.
static uint64_t padded(uint64_t bytes)
{
    return qn_ceil_div(bytes, 16) * 16;
}

qn_range qn_blend_input(const qn_blend *b, int input, uint64_t first, uint64_t count)
{
    if (input < 0) return (qn_range){ 0 };
    const slot_set *set = &b->sets[b->set];
    uint64_t size = qn_storage_size(b->t.storage);
    const room *r = b->unified ? &set->upload[input] : &set->local[input];
    return (qn_range){ r->buffer, first * size, padded(count * size) };
}

qn_range qn_blend_f32(const room *r, uint64_t first, uint64_t count)
{
    if (!r->buffer) return (qn_range){ 0 };
    return (qn_range){ r->buffer, first * 4, padded(count * 4) };
}

qn_range qn_blend_out(const qn_blend *b, uint64_t first, uint64_t count)
{
    const slot_set *set = &b->sets[b->set];
    uint64_t size = qn_storage_size(b->t.out);
    const room *r = b->unified ? &set->readback : &set->result;
    return (qn_range){ r->buffer, first * size, padded(count * size) };
}

qn_result qn_blend_stream(qn_blend *b, qn_stream **s)
{
    if (!b->stream) QN_TRY(qn_stream_create(b->dev, NULL, &b->stream));
    *s = b->stream;
    return QN_OK;
}

qn_result qn_blend_dispatch(qn_blend *b, const qn_dispatch *d)
{
    qn_stream *s;
    QN_TRY(qn_blend_stream(b, &s));
    return qn_stream_dispatch(s, d);
}

qn_result qn_blend_flush(qn_blend *b)
{
    if (!b->stream) return QN_OK;
    qn_result r = qn_stream_submit(b->stream);
    if (r == QN_OK) r = qn_stream_wait(b->stream, UINT64_MAX);
    qn_stream_destroy(&b->stream);
    return r;
}

qn_result qn_blend_begin(qn_blend *b, int s, const qn_blend_tensor *t)
{
    if (t->count > UINT32_MAX)
        return qn_fail(QN_ERR_UNSUPPORTED, "%llu elements, expected at most 4294967295",
                       (unsigned long long)t->count);
    b->set = s;
    b->t = *t;
    slot_set *set = &b->sets[s];
    if (b->unified) return QN_OK;
    qn_stream *stream;
    QN_TRY(qn_blend_stream(b, &stream));
    uint64_t bytes = qn_ceil_div(t->count * qn_storage_size(t->storage), 16) * 16;
    for (size_t i = 0; i < t->inputs; i++)
        QN_TRY(qn_stream_copy(stream, (qn_range){ set->local[i].buffer, 0, bytes },
                              (qn_range){ set->upload[i].buffer, 0, bytes }));
    return QN_OK;
}

qn_result qn_blend_end(qn_blend *b)
{
    if (!b->unified) {
        qn_stream *stream;
        slot_set *set = &b->sets[b->set];
        uint64_t bytes = padded(b->t.count * qn_storage_size(b->t.out));
        QN_TRY(qn_blend_stream(b, &stream));
        QN_TRY(qn_stream_copy(stream, (qn_range){ set->readback.buffer, 0, bytes },
                              (qn_range){ set->result.buffer, 0, bytes }));
    }
    return qn_blend_flush(b);
}

uint32_t qn_blend_lanes(const qn_blend *b)
{
    return b->info->kernel_class == QN_CLASS_FLAT ? b->info->subgroup_size : 64;
}

void qn_blend_groups(uint64_t count, uint32_t groups[3])
{
    const uint64_t most = 65535;
    groups[1] = (uint32_t)qn_ceil_div(count, most);
    groups[0] = (uint32_t)qn_ceil_div(count, groups[1]);
    groups[2] = 1;
}

void qn_blend_each(const qn_blend *b, uint64_t count, uint32_t groups[3])
{
    const uint64_t per_flat = 16; // vec4s per invocation, as in each.glsl
    uint64_t vec4s = qn_blend_lanes(b) * (b->info->kernel_class == QN_CLASS_FLAT ? per_flat : 1);
    qn_blend_groups(qn_ceil_div(qn_ceil_div(count, 4), vec4s), groups);
}

uint64_t qn_blend_rows(const qn_blend *b, uint64_t width, uint64_t window)
{
    (void)b;
    uint64_t step = RANGE_ITEMS, w = width;
    while (step > 1 && w % 2 == 0) {
        step /= 2;
        w /= 2;
    }
    uint64_t rows = window / width / step * step;
    return rows ? rows : step;
}
