// Shared by the files of the blend: buffers, windows, recording.
#ifndef QN_BLEND_IMPL_H
#define QN_BLEND_IMPL_H

#include "args.h"
#include "blend.h"
#include "mem.h"

enum {
    SEGMENT = 4096,    // elements of one sum: results depend on it
    GROUP_MODELS = 7,  // models beside the base in one dispatch
    RANGE_ITEMS = 128, // elements at which the narrowest type is aligned
};

typedef struct room { // a buffer that grows
    qn_buffer *buffer;
    uint64_t size;
} room;

typedef struct slot_set {
    room *upload, *local; // per input; local: where the host cannot map what kernels read fast
    size_t count;
    room result, readback;
    uint64_t bytes; // of a slot, as reserved
} slot_set;

struct qn_blend {
    qn_device *dev;
    const qn_device_info *info;
    bool unified;
    uint64_t window, held, peak;
    slot_set sets[QN_BLEND_SETS];
    int set;
    qn_blend_tensor t;
    qn_stream *stream; // NULL: nothing recorded
    room params, sums, masks, plane, means, state, before[2], bins, table, open, doubtful;
};

// At least `size` bytes, contents undefined when it grows.
qn_result qn_room(qn_blend *b, room *r, uint64_t size, qn_memory memory, const char *name);
qn_result qn_blend_stream(qn_blend *b, qn_stream **s);
qn_result qn_blend_dispatch(qn_blend *b, const qn_dispatch *d);
qn_result qn_blend_flush(qn_blend *b); // submits what is recorded and waits for it

static inline uint32_t qn_storage_size(qn_storage s)
{
    return s == QN_STORE_F32 ? 4 : 2;
}
static inline uint64_t qn_ceil_div(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}
static inline uint64_t qn_smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
// Elements [first, first + count) of an input, of f32 scratch, of the result.
qn_range qn_blend_input(const qn_blend *b, int input, uint64_t first, uint64_t count);
qn_range qn_blend_f32(const room *r, uint64_t first, uint64_t count);
qn_range qn_blend_out(const qn_blend *b, uint64_t first, uint64_t count);
static inline qn_range qn_all(const room *r)
{
    return (qn_range){ r->buffer, 0, 0 };
}
// Groups for a kernel over elements (shaders/each.glsl), and for a number of groups.
void qn_blend_each(const qn_blend *b, uint64_t count, uint32_t groups[3]);
void qn_blend_groups(uint64_t count, uint32_t groups[3]);
uint32_t qn_blend_lanes(const qn_blend *b);
// Rows of one window: a multiple that keeps ranges aligned, as many as the window takes.
uint64_t qn_blend_rows(const qn_blend *b, uint64_t width, uint64_t window);

#endif
