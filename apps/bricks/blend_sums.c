// Sums over a tensor and over its rows and columns, masks that are made on the way.
#include "blend_impl.h"

#include "args/merge_columns.h"
#include "args/merge_rank.h"
#include "args/merge_reduce.h"

#include <quoin/io.h>

#include <math.h>
#include <string.h>

enum { GRAM = 0, L1, SQUARES, DRAW, LOGSUM, DIVERGE, EQUAL, SHARED, MARK }; // reduce.comp: MODE

static uint64_t mask_words(const qn_blend *b)
{
    return qn_ceil_div(b->t.count, SEGMENT) * (SEGMENT / 32);
}

// One use of reduce.comp.
typedef struct reduction {
    uint32_t mode;
    int x, z, base;
    bool plane, rows; // keys come from the plane; every row has sums of its own
    qn_blend_keep keep;
    merge_reduce_args args;
} reduction;

static qn_result reduce_window(qn_blend *b, const reduction *n, uint64_t first, uint64_t count,
                               uint64_t segment)
{
    uint64_t width = n->rows ? b->t.width : count;
    merge_reduce_args args = n->args;
    args.rows = (u32)(count / width);
    args.width = (u32)width;
    args.parts = (u32)qn_ceil_div(width, SEGMENT);
    args.first = (u32)first;
    args.segment = (u32)segment;
    args.mask = (u32)(n->keep.mask * mask_words(b));
    args.low = n->keep.low;
    args.low_index = n->keep.low_index;
    args.high = n->keep.high;
    args.high_index = n->keep.high_index;
    qn_dispatch d = {
        .kernel = QN_K_merge_reduce,
        .storage = b->t.storage,
        .args = &args,
        .args_size = sizeof args,
        .constants = { n->mode, n->base >= 0, n->keep.kind, n->plane, !n->rows || width % 4 == 0, 0,
                       n->keep.low_below },
        .rounds = 4000,
    };
    d.buffers[0] = qn_blend_input(b, n->x, first, count);
    d.buffers[1] = qn_blend_input(b, n->z, first, count);
    d.buffers[2] = qn_blend_input(b, n->base, first, count);
    if (n->plane || n->mode == SHARED) d.buffers[3] = qn_blend_f32(&b->plane, first, count);
    if (n->keep.kind == QN_KEEP_MASK || n->mode == DRAW || n->mode == MARK)
        d.buffers[4] = qn_all(&b->masks);
    if (n->mode == DIVERGE) d.buffers[5] = qn_all(&b->table);
    if (n->mode != MARK) d.buffers[7] = qn_all(&b->sums);
    qn_blend_groups((uint64_t)args.rows * args.parts, d.groups);
    return qn_blend_dispatch(b, &d);
}

// Dispatches over the whole tensor; *segments is how many triples of sums there are then.
static qn_result reduce(qn_blend *b, const reduction *n, uint64_t *segments)
{
    uint64_t width = n->rows ? b->t.width : b->t.count, rows = b->t.count / width;
    uint64_t parts = qn_ceil_div(width, SEGMENT);
    *segments = rows * parts;
    if (n->mode != MARK)
        QN_TRY(qn_room(b, &b->sums, *segments * 3 * sizeof(float), QN_MEMORY_DEVICE, "merge sums"));
    uint64_t step = n->rows ? qn_blend_rows(b, width, b->window) * width : b->window;
    for (uint64_t at = 0; at < b->t.count; at += step)
        QN_TRY(reduce_window(b, n, at, qn_smaller(step, b->t.count - at),
                             n->rows ? at / width * parts : at / SEGMENT));
    return QN_OK;
}

// The three floats of every segment, in a fresh array.
static qn_result read_sums(qn_blend *b, uint64_t segments, float **out)
{
    size_t size = (size_t)segments * 3 * sizeof(float);
    QN_TRY(qn_blend_flush(b));
    float *sums = qn_malloc(size);
    if (!sums) return qn_no_memory(size);
    qn_result r = qn_buffer_read(b->sums.buffer, 0, sums, size);
    if (r != QN_OK) {
        qn_free(sums);
        return r;
    }
    *out = sums;
    return QN_OK;
}

// Adds up the segments of every vector: totals [vectors][3].
static qn_result totals(qn_blend *b, uint64_t segments, uint64_t vectors, double *out)
{
    float *sums;
    QN_TRY(read_sums(b, segments, &sums));
    uint64_t parts = segments / vectors;
    for (uint64_t v = 0; v < vectors; v++)
        for (int k = 0; k < 3; k++) {
            double s = 0;
            for (uint64_t p = 0; p < parts; p++) s += (double)sums[3 * (v * parts + p) + k];
            out[3 * v + k] = s;
        }
    qn_free(sums);
    return QN_OK;
}

static qn_result reduce_total(qn_blend *b, const reduction *n, double out[3])
{
    uint64_t segments;
    QN_TRY(reduce(b, n, &segments));
    return totals(b, segments, 1, out);
}

// ---------------------------------------------------------------------------------- products

static qn_result gram_columns(qn_blend *b, int x, int z, int base, double *sums)
{
    enum { BLOCK = 32 };
    uint64_t width = b->t.columns, rows = b->t.count / width;
    uint64_t blocks = qn_ceil_div(rows, BLOCK);
    QN_TRY(
        qn_room(b, &b->sums, blocks * width * 3 * sizeof(float), QN_MEMORY_DEVICE, "merge sums"));
    uint64_t step = qn_blend_rows(b, width, b->window);
    step = qn_ceil_div(step, RANGE_ITEMS) * RANGE_ITEMS; // whole blocks, aligned
    for (uint64_t at = 0; at < rows; at += step) {
        uint64_t n = qn_smaller(step, rows - at);
        merge_columns_args args = { (u32)n, (u32)width, BLOCK, (u32)(at / BLOCK) };
        qn_dispatch d = {
            .kernel = QN_K_merge_columns,
            .storage = b->t.storage,
            .args = &args,
            .args_size = sizeof args,
            .constants = { base >= 0 },
        };
        d.buffers[0] = qn_blend_input(b, x, at * width, n * width);
        d.buffers[1] = qn_blend_input(b, z, at * width, n * width);
        d.buffers[2] = qn_blend_input(b, base, at * width, n * width);
        d.buffers[3] = qn_all(&b->sums);
        uint64_t items = qn_ceil_div(n, BLOCK) * width;
        qn_blend_groups(qn_ceil_div(items, qn_blend_lanes(b)), d.groups);
        QN_TRY(qn_blend_dispatch(b, &d));
    }
    float *part;
    QN_TRY(read_sums(b, blocks * width, &part));
    memset(sums, 0, (size_t)width * 3 * sizeof *sums);
    for (uint64_t i = 0; i < blocks; i++)
        for (uint64_t c = 0; c < 3 * width; c++) sums[c] += (double)part[i * 3 * width + c];
    qn_free(part);
    return QN_OK;
}

qn_result qn_blend_gram(qn_blend *b, int x, int z, int base, qn_blend_spread spread, double *sums)
{
    if (spread == QN_BLEND_COLUMNS) return gram_columns(b, x, z, base, sums);
    reduction n = { .mode = GRAM, .x = x, .z = z, .base = base, .rows = spread == QN_BLEND_ROWS };
    uint64_t segments;
    QN_TRY(reduce(b, &n, &segments));
    return totals(b, segments, n.rows ? b->t.count / b->t.width : 1, sums);
}

qn_result qn_blend_l1(qn_blend *b, int x, int base, const qn_blend_keep *keep, double sums[2])
{
    double t[3];
    QN_TRY(reduce_total(
        b, &(reduction){ .mode = L1, .x = x, .z = QN_BLEND_NONE, .base = base, .keep = *keep }, t));
    sums[0] = t[0];
    sums[1] = t[1];
    return QN_OK;
}

qn_result qn_blend_squares(qn_blend *b, int x, int base, const qn_blend_keep *keep, double *sum)
{
    double t[3];
    QN_TRY(reduce_total(
        b, &(reduction){ .mode = SQUARES, .x = x, .z = QN_BLEND_NONE, .base = base, .keep = *keep },
        t));
    *sum = t[0];
    return QN_OK;
}

qn_result qn_blend_shared(qn_blend *b, int x, int base, float epsilon, double sums[2])
{
    double t[3];
    QN_TRY(reduce_total(
        b,
        &(reduction){
            .mode = SHARED, .x = x, .z = QN_BLEND_NONE, .base = base, .args.epsilon = epsilon },
        t));
    sums[0] = t[0];
    sums[1] = t[1];
    return QN_OK;
}

// ---------------------------------------------------------------------------------- rows

// Softmax of x against that of base, from sums with each segment's own largest element.
static void row_logsums(const float *sums, uint64_t parts, float *shift, float *logsum)
{
    double high = -INFINITY, s = 0, a = 0;
    for (uint64_t p = 0; p < parts; p++) high = fmax(high, (double)sums[3 * p]);
    for (uint64_t p = 0; p < parts; p++) {
        double f = exp((double)sums[3 * p] - high);
        s += f * (double)sums[3 * p + 1];
        a += f * (double)sums[3 * p + 2];
    }
    *logsum = (float)(high + log(s));
    *shift = (float)log1p(a / s);
}

qn_result qn_blend_divergence(qn_blend *b, int x, int base, float *out)
{
    uint64_t rows = b->t.count / b->t.width, segments;
    reduction n = { .mode = LOGSUM, .x = x, .z = QN_BLEND_NONE, .base = base, .rows = true };
    float *sums;
    QN_TRY(reduce(b, &n, &segments));
    QN_TRY(read_sums(b, segments, &sums));
    uint64_t parts = segments / rows;
    for (uint64_t r = 0; r < rows; r++) { // in place: 2 floats behind 3
        float shift, logsum;
        row_logsums(sums + 3 * r * parts, parts, &shift, &logsum);
        sums[2 * r] = shift;
        sums[2 * r + 1] = logsum;
    }
    size_t size = (size_t)rows * 2 * sizeof(float);
    qn_result r = qn_room(b, &b->table, size, QN_MEMORY_DEVICE, "merge rows");
    if (r == QN_OK) r = qn_buffer_write(b->table.buffer, 0, sums, size);
    qn_free(sums);
    QN_TRY(r);
    n.mode = DIVERGE;
    QN_TRY(reduce(b, &n, &segments));
    double *all = qn_malloc((size_t)rows * 3 * sizeof *all);
    if (!all) return qn_no_memory((size_t)rows * 3 * sizeof *all);
    r = totals(b, segments, rows, all);
    for (uint64_t i = 0; r == QN_OK && i < rows; i++) out[i] = (float)all[3 * i];
    qn_free(all);
    return r;
}

// ---------------------------------------------------------------------------------- masks

qn_result qn_blend_masks(qn_blend *b, size_t count)
{
    if (count * mask_words(b) > UINT32_MAX)
        return qn_fail(QN_ERR_UNSUPPORTED, "%zu masks of %llu elements are too many", count,
                       (unsigned long long)b->t.count);
    return qn_room(b, &b->masks, count * mask_words(b) * 4, QN_MEMORY_DEVICE, "merge masks");
}

static qn_result write_words(qn_blend *b, size_t mask, const uint32_t *words)
{
    uint64_t size = mask_words(b) * 4;
    return qn_buffer_write(b->masks.buffer, mask * size, words, size);
}

qn_result qn_blend_mask_write(qn_blend *b, size_t mask, const uint8_t *keep)
{
    uint32_t *words = qn_calloc((size_t)mask_words(b), 4);
    if (!words) return qn_no_memory((size_t)mask_words(b) * 4);
    for (uint64_t i = 0; i < b->t.count; i++)
        if (keep[i]) words[i / 32] |= (uint32_t)1 << i % 32;
    qn_result r = write_words(b, mask, words);
    qn_free(words);
    return r;
}

qn_result qn_blend_mark(qn_blend *b, const qn_blend_keys *keys, const qn_blend_keep *keep,
                        size_t mask)
{
    reduction n = { .mode = MARK,
                    .x = keys->plane ? QN_BLEND_NONE : keys->x,
                    .z = QN_BLEND_NONE,
                    .base = keys->plane ? QN_BLEND_NONE : keys->base,
                    .plane = keys->plane,
                    .keep = *keep };
    uint64_t segments;
    n.keep.mask = mask;
    return reduce(b, &n, &segments);
}

qn_result qn_blend_locate(qn_blend *b, const qn_blend_keys *keys, const qn_blend_found *found,
                          uint64_t which, uint64_t *index)
{
    reduction n = { .mode = EQUAL,
                    .x = keys->plane ? QN_BLEND_NONE : keys->x,
                    .z = QN_BLEND_NONE,
                    .base = keys->plane ? QN_BLEND_NONE : keys->base,
                    .plane = keys->plane,
                    .keep = { .low = found->key } };
    uint64_t segments, s = 0;
    float *sums;
    QN_TRY(reduce(b, &n, &segments));
    QN_TRY(read_sums(b, segments, &sums));
    while (s + 1 < segments && which >= (uint64_t)sums[3 * s]) which -= (uint64_t)sums[3 * s++];
    qn_free(sums);

    // The segment as a mask of the equal ones; a bit for each element, read back.
    uint32_t words[SEGMENT / 32];
    qn_blend_keep only = {
        .kind = QN_KEEP_KEYS, .low = found->key, .high = found->key, .high_index = UINT32_MAX
    };
    QN_TRY(qn_blend_flush(b));
    room saved = b->masks;
    b->masks = b->open;
    qn_result r =
        qn_room(b, &b->masks, mask_words(b) * 4, QN_MEMORY_DEVICE, "merge mask of equals");
    if (r == QN_OK) r = qn_blend_mark(b, keys, &only, 0);
    if (r == QN_OK) r = qn_blend_flush(b);
    if (r == QN_OK) r = qn_buffer_read(b->masks.buffer, s * sizeof words, words, sizeof words);
    b->open = b->masks;
    b->masks = saved;
    QN_TRY(r);
    for (uint64_t i = 0; i < SEGMENT; i++) {
        if (!(words[i / 32] >> i % 32 & 1)) continue;
        if (which-- == 0) {
            *index = s * SEGMENT + i;
            return QN_OK;
        }
    }
    *index = b->t.count; // behind the last one
    return QN_OK;
}

// ---------------------------------------------------------------------------------- random masks

static qn_result read_slot(qn_blend *b, int input, float *out)
{
    static const qn_st_dtype dtypes[] = {
        [QN_STORE_F32] = QN_ST_F32, [QN_STORE_F16] = QN_ST_F16, [QN_STORE_BF16] = QN_ST_BF16
    };
    qn_range from = qn_blend_input(b, input, 0, b->t.count);
    size_t size = (size_t)b->t.count * qn_storage_size(b->t.storage);
    void *raw = qn_malloc(size);
    if (!raw) return qn_no_memory(size);
    qn_safetensor t = { .name = "slot",
                        .dtype = dtypes[b->t.storage],
                        .count = b->t.count,
                        .size = size,
                        .data = raw };
    qn_result r = qn_buffer_read(from.buffer, from.offset, raw, size);
    if (r == QN_OK) r = qn_safetensor_f32(&t, 0, t.count, out);
    qn_free(raw);
    return r;
}

qn_result qn_blend_difference(qn_blend *b, int x, int base, float *out)
{
    float *other = qn_malloc((size_t)b->t.count * sizeof *other);
    if (!other) return qn_no_memory((size_t)b->t.count * sizeof *other);
    qn_result r = qn_blend_flush(b);
    if (r == QN_OK) r = read_slot(b, x, out);
    if (r == QN_OK) r = read_slot(b, base, other);
    for (uint64_t i = 0; r == QN_OK && i < b->t.count; i++) out[i] -= other[i];
    qn_free(other);
    return r;
}

static void random_args(const qn_blend_random *random, merge_reduce_args *args)
{
    args->seed_low = (u32)random->seed;
    args->seed_high = (u32)(random->seed >> 32);
    args->stream = random->stream;
    args->model = random->model;
    double drawn = ceil(random->probability * 0x1p24); // u < p, u in units of 2^-24
    args->drawn = drawn >= 0x1p24 ? (u32)1 << 24 : drawn > 0 ? (u32)drawn : 0;
}

static qn_result draw_plain(qn_blend *b, int x, int base, const qn_blend_random *random,
                            size_t mask, double sums[2])
{
    reduction n = { .mode = DRAW, .x = x, .z = QN_BLEND_NONE, .base = base, .keep.mask = mask };
    double t[3];
    random_args(random, &n.args);
    QN_TRY(reduce_total(b, &n, t));
    sums[0] = t[0];
    sums[1] = t[1];
    return QN_OK;
}

static uint32_t log2_bins(uint64_t width)
{
    uint32_t bits = 5;
    while (bits < 8 && ((uint64_t)1 << bits) < width / 16) bits++;
    return bits;
}

// The number at the head of a list.
static qn_result list_length(qn_blend *b, const room *list, uint32_t *out)
{
    QN_TRY(qn_blend_flush(b));
    return qn_buffer_read(list->buffer, 0, out, sizeof *out);
}

// The mask of some rows: what the drawn number alone decides, and a list of the rest.
static qn_result draw_certain(qn_blend *b, const qn_dispatch *rank, const qn_blend_random *random,
                              uint64_t at, uint64_t count)
{
    const merge_rank_args *of = rank->args;
    merge_reduce_args args = { .rows = 1,
                               .width = (u32)count,
                               .parts = (u32)qn_ceil_div(count, SEGMENT),
                               .first = (u32)at,
                               .mask = of->mask,
                               .lowest = of->lowest };
    random_args(random, &args);
    args.highest = (f32)(random->lowest + random->slope * (double)(random->row_width - 1));
    qn_dispatch d = { .kernel = QN_K_merge_reduce,
                      .storage = b->t.storage,
                      .args = &args,
                      .args_size = sizeof args,
                      .constants = { DRAW, 1, 0, 0, 1, 1, 0 },
                      .rounds = 4000 };
    d.buffers[0] = rank->buffers[0];
    d.buffers[2] = rank->buffers[1];
    d.buffers[4] = qn_all(&b->masks);
    d.buffers[6] = qn_all(&b->open);
    d.buffers[7] = qn_all(&b->sums);
    qn_blend_groups(args.parts, d.groups);
    return qn_blend_dispatch(b, &d);
}

static qn_result draw_rows(qn_blend *b, int x, int base, const qn_blend_random *random, size_t mask,
                           uint64_t first, uint64_t rows)
{
    uint64_t width = random->row_width, count = rows * width, at = first * width;
    qn_stream *s;
    QN_TRY(qn_blend_stream(b, &s));
    QN_TRY(qn_stream_fill(s, (qn_range){ b->doubtful.buffer, 0, 256 }, 0));
    QN_TRY(qn_stream_fill(s, qn_all(&b->table), 0));
    merge_rank_args args = { (u32)rows,
                             (u32)width,
                             0,
                             (u32)at,
                             (u32)(mask * mask_words(b)),
                             (u32)random->seed,
                             (u32)(random->seed >> 32),
                             random->stream,
                             random->model,
                             (f32)random->lowest,
                             (f32)random->slope };
    qn_dispatch rank = { .kernel = QN_K_merge_rank,
                         .storage = b->t.storage,
                         .args = &args,
                         .args_size = sizeof args,
                         .constants = { 0, width % 4 == 0, log2_bins(width) } };
    rank.buffers[0] = qn_blend_input(b, x, at, count);
    rank.buffers[1] = qn_blend_input(b, base, at, count);
    rank.buffers[2] = qn_all(&b->table);
    rank.buffers[3] = qn_all(&b->masks);
    rank.buffers[4] = qn_all(&b->open);
    rank.buffers[5] = qn_all(&b->doubtful);
    bool flat = b->info->kernel_class == QN_CLASS_FLAT;
    qn_blend_groups(flat ? qn_ceil_div(rows, b->info->subgroup_size) : rows, rank.groups);
    for (uint32_t step = 0; step < 3; step++) {
        rank.constants[0] = step;
        rank.rounds = step == 2 ? 256 : width / 4 + 1;
        QN_TRY(qn_blend_dispatch(b, &rank));
    }
    QN_TRY(draw_certain(b, &rank, random, at, count));
    args.items = (u32)qn_ceil_div(count, SEGMENT);
    rank.constants[0] = 3;
    rank.rounds = SEGMENT;
    qn_blend_groups(args.items, rank.groups);
    QN_TRY(qn_blend_dispatch(b, &rank));
    QN_TRY(list_length(b, &b->doubtful, &args.items));
    if (!args.items) return QN_OK;
    rank.constants[0] = 4;
    rank.rounds = width / (4 * qn_blend_lanes(b)) + 2;
    qn_blend_groups(args.items, rank.groups);
    return qn_blend_dispatch(b, &rank);
}

static qn_result draw_ranked(qn_blend *b, int x, int base, const qn_blend_random *random,
                             size_t mask, double sums[2])
{
    uint64_t width = random->row_width, rows = b->t.count / width;
    uint64_t bins = ((uint64_t)1 << log2_bins(width)) + 1;
    const uint64_t table = (uint64_t)1 << 22; // words
    uint64_t step = qn_blend_rows(b, width, qn_smaller(b->window, table / bins * width));
    step = qn_smaller(step, rows);
    QN_TRY(qn_room(b, &b->table, step * bins * 4, QN_MEMORY_DEVICE, "merge bins of rows"));
    uint64_t segments = qn_ceil_div(step * width, SEGMENT);
    QN_TRY(qn_room(b, &b->open, segments * (SEGMENT + qn_blend_lanes(b)) * 4, QN_MEMORY_DEVICE,
                   "merge open elements"));
    QN_TRY(qn_room(b, &b->doubtful, 256 + step * width * 4, QN_MEMORY_DEVICE,
                   "merge elements to be ranked"));
    QN_TRY(qn_room(b, &b->sums, segments * 3 * sizeof(float), QN_MEMORY_DEVICE, "merge sums"));
    for (uint64_t first = 0; first < rows; first += step)
        QN_TRY(draw_rows(b, x, base, random, mask, first, qn_smaller(step, rows - first)));
    return qn_blend_l1(b, x, base, &(qn_blend_keep){ .kind = QN_KEEP_MASK, .mask = mask }, sums);
}

qn_result qn_blend_draw(qn_blend *b, int x, int base, const qn_blend_random *random, size_t mask,
                        double sums[2])
{
    return random->ranked ? draw_ranked(b, x, base, random, mask, sums)
                          : draw_plain(b, x, base, random, mask, sums);
}
