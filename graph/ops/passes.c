// Windows, grids and blocks of memory-bound operations.
#include "passes.h"

#include "args.h"
#include "args/col_sum.h"
#include "args/sum_blocks.h"

#include <string.h>

enum {
    PER_FLAT = 16,       // vec4s per invocation of an elementwise kernel, as in each.glsl
    OWN_WIDTH = 64,      // rows up to here belong to one invocation
    BUSY_ROUNDS = 64,    // rounds that hide what starting a group costs
    WINDOW_ITEMS = 64,   // windows start at multiples, and so at aligned bytes
    SUM_BLOCK = 8192,    // elements summed by one group
    COLUMN_BLOCKS = 256, // at most, but for very large tensors
    COLUMN_ROWS = 64,    // rows of a block at least; even
};

static bool is_flat(const qn_recorder *r)
{
    return qn_recorder_device(r)->kernel_class == QN_CLASS_FLAT;
}

// Bytes that one binding may span: texel buffers are promised up to 2^26 vec4s.
static uint64_t binding_limit(const qn_recorder *r)
{
    uint64_t limit = qn_recorder_device(r)->max_binding, texels = (uint64_t)1 << 30;
    return limit < texels ? limit : texels;
}

static uint64_t most_groups(const qn_recorder *r)
{
    return qn_recorder_device(r)->max_groups < 65535 ? qn_recorder_device(r)->max_groups : 65535;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

// Items per window: all of them, or the largest multiple of `step` with which every binding fits.
static uint64_t window_items(const qn_recorder *r, const qn_part *parts, int bindings,
                             uint64_t count, uint64_t step)
{
    uint64_t widest = 1, limit = binding_limit(r);
    for (int i = 0; i < bindings; i++)
        if (parts[i].tensor && parts[i].bytes > widest) widest = parts[i].bytes;
    if (count * widest <= limit) return count;
    return limit / widest / step * step;
}

static void bind_window(const qn_recorder *r, qn_dispatch *d, const qn_part *parts, int bindings,
                        uint64_t first, uint64_t count)
{
    for (int i = 0; i < bindings; i++) {
        const qn_part *p = &parts[i];
        if (!p->tensor)
            d->buffers[i] = (qn_range){ 0 };
        else if (p->bytes)
            d->buffers[i] = qn_at_rows(r, p->tensor, first, count, p->bytes);
        else if (p->count)
            d->buffers[i] = qn_at_rows(r, p->tensor, p->first, p->count, p->row);
        else
            d->buffers[i] = qn_at(r, p->tensor);
    }
}

// A copy of the dispatch whose first two arguments can be set.
typedef struct patched {
    qn_dispatch d;
    uint32_t args[QN_MAX_ARGS / 4];
} patched;

static void patch(patched *p, const qn_dispatch *d)
{
    p->d = *d;
    if (d->args) memcpy(p->args, d->args, d->args_size);
    if (!d->args) p->d.args_size = 2 * sizeof *p->args;
    p->d.args = p->args;
}

qn_result qn_record_each(qn_recorder *r, const qn_dispatch *d, const qn_part *parts, int bindings,
                         uint64_t count)
{
    patched p;
    patch(&p, d);
    uint64_t lanes = is_flat(r) ? qn_recorder_device(r)->subgroup_size * PER_FLAT : 64;
    uint64_t window = window_items(r, parts, bindings, count, 4 * WINDOW_ITEMS);
    for (uint64_t first = 0; first < count; first += window) {
        uint64_t items = smaller(window, count - first);
        bind_window(r, &p.d, parts, bindings, first, items);
        p.args[0] = (uint32_t)items;
        p.args[1] = (uint32_t)(first / 4);
        uint64_t groups = qn_div_up(qn_div_up(items, 4), lanes), most = most_groups(r);
        p.d.groups[1] = qn_div_up(groups, most);
        p.d.groups[0] = qn_div_up(groups, p.d.groups[1]);
        p.d.groups[2] = 1;
        QN_TRY(qn_record(r, &p.d));
    }
    return QN_OK;
}

qn_result qn_record_rows(qn_recorder *r, const qn_dispatch *d, const qn_part *parts, int bindings,
                         uint64_t rows, uint64_t width, int passes)
{
    patched p;
    patch(&p, d);
    bool flat = is_flat(r), own = width <= OWN_WIDTH;
    p.d.constants[0] = own;
    p.d.constants[1] = width % 4 != 0;
    p.d.group_size = width >= 4096 ? 128 : 64;
    uint64_t lanes = flat ? qn_recorder_device(r)->subgroup_size : p.d.group_size;
    // A row that starts within a vec4 may reach into one more.
    uint64_t row_rounds = (uint64_t)passes * (qn_div_up(width, own ? 4 : 4 * lanes) + 1) + 1;
    uint64_t at_once = own ? lanes : 1,
             window = window_items(r, parts, bindings, rows, WINDOW_ITEMS);
    for (uint64_t first = 0; first < rows; first += window) {
        uint64_t items = smaller(window, rows - first);
        bind_window(r, &p.d, parts, bindings, first, items);
        p.args[0] = (uint32_t)items;
        p.args[1] = (uint32_t)width;
        uint64_t turns = qn_div_up(items, at_once);
        uint64_t groups =
            flat ? qn_div_up(turns, BUSY_ROUNDS / smaller(row_rounds, BUSY_ROUNDS)) : turns;
        groups = smaller(groups, most_groups(r));
        p.d.groups[0] = (uint32_t)groups;
        p.d.groups[1] = p.d.groups[2] = 1;
        p.d.rounds = qn_div_up(turns, groups) * row_rounds;
        QN_TRY(qn_record(r, &p.d));
    }
    return QN_OK;
}

uint64_t qn_column_block(uint64_t rows, uint64_t width)
{
    const uint64_t partial = (uint64_t)1 << 24, window = (uint64_t)1 << 25; // elements
    uint64_t blocks = smaller(COLUMN_BLOCKS, partial / width), most = window / width;
    uint64_t block = qn_div_up(qn_div_up(rows, blocks), COLUMN_ROWS) * (uint64_t)COLUMN_ROWS;
    most -= most % (most < COLUMN_ROWS ? 2 : COLUMN_ROWS);
    return smaller(block, most);
}

qn_shape qn_column_partial(uint64_t rows, uint64_t width)
{
    uint64_t blocks = qn_div_up(rows, qn_column_block(rows, width));
    return blocks == 1 ? QN_SHAPE(1) : QN_SHAPE((int64_t)blocks, (int64_t)width);
}

// One window of rows, summed in blocks of `block`.
static qn_result record_column_window(qn_recorder *r, qn_dispatch *d, uint64_t width,
                                      const col_sum_args *args)
{
    uint64_t lanes = is_flat(r) ? qn_recorder_device(r)->subgroup_size : 64;
    uint64_t blocks = qn_div_up(args->rows, args->block);
    d->args = args;
    d->args_size = sizeof *args;
    d->constants[0] = width % 4 != 0;
    uint64_t columns = qn_div_up(width % 4 ? width : width / 4, lanes);
    d->groups[0] = (uint32_t)smaller(columns, most_groups(r));
    d->groups[1] = (uint32_t)smaller(blocks, most_groups(r));
    d->groups[2] = 1;
    d->rounds = (uint64_t)qn_div_up(columns, d->groups[0]) * qn_div_up(blocks, d->groups[1]) *
                (qn_div_up(args->block, width % 4 ? 1 : 2) + 4);
    return qn_record(r, d);
}

qn_result qn_record_columns(qn_recorder *r, const qn_dispatch *d, const qn_part *parts,
                            int bindings, uint64_t rows, uint64_t width)
{
    qn_dispatch copy = *d;
    uint64_t block = qn_column_block(rows, width);
    uint64_t window = window_items(r, parts, bindings, rows, block);
    for (uint64_t first = 0; first < rows; first += window) {
        uint64_t items = smaller(window, rows - first);
        bind_window(r, &copy, parts, bindings, first, items);
        col_sum_args args = { (u32)items, (u32)width, (u32)block, (u32)(first / block) };
        QN_TRY(record_column_window(r, &copy, width, &args));
    }
    return QN_OK;
}

qn_result qn_record_last_sum(qn_recorder *r, const qn_tensor *x, const qn_tensor *y, uint64_t rows,
                             uint64_t width)
{
    qn_dispatch d = { .kernel = QN_K_col_sum, .buffers = { qn_at(r, x), qn_at(r, y) } };
    col_sum_args args = { (u32)rows, (u32)width, (u32)rows, 0 };
    return record_column_window(r, &d, width, &args);
}

static uint64_t aligned(uint64_t elements)
{
    return (elements + WINDOW_ITEMS - 1) / WINDOW_ITEMS * WINDOW_ITEMS;
}

qn_shape qn_sum_partial(uint64_t count)
{
    uint64_t blocks = qn_div_up(count, SUM_BLOCK), further = qn_div_up(blocks, SUM_BLOCK);
    if (blocks == 1) return QN_SHAPE(1);
    return QN_SHAPE((int64_t)(aligned(blocks) + (further > 1 ? further : 0)));
}

static qn_result record_sum_blocks(qn_recorder *r, qn_range x, uint64_t count, qn_range y,
                                   uint64_t first, bool squares)
{
    sum_blocks_args args = { (u32)count, (u32)first };
    uint64_t blocks = qn_div_up(count, SUM_BLOCK), groups = smaller(blocks, most_groups(r));
    uint64_t lanes = is_flat(r) ? qn_recorder_device(r)->subgroup_size : 64;
    return qn_record(r, &(qn_dispatch){
                            .kernel = QN_K_sum_blocks,
                            .buffers = { x, y },
                            .args = &args,
                            .args_size = sizeof args,
                            .constants = { squares, SUM_BLOCK },
                            .groups = { (uint32_t)groups, 1, 1 },
                            .rounds = qn_div_up(blocks, groups) * (SUM_BLOCK / 16 / lanes + 2),
                        });
}

// The first `count` elements behind element `first`.
static qn_range slice(qn_range whole, uint64_t first, uint64_t count)
{
    return (qn_range){ whole.buffer, whole.offset + first * 4, count * 4 };
}

qn_result qn_record_sum(qn_recorder *r, const qn_tensor *x, const qn_tensor *partial,
                        const qn_tensor *y, bool squares)
{
    uint64_t count = (uint64_t)qn_shape_count(x->shape), blocks = qn_div_up(count, SUM_BLOCK);
    qn_range from = qn_at(r, x), part = qn_at(r, partial), to = qn_at(r, y);
    if (blocks == 1) return record_sum_blocks(r, from, count, to, 0, squares);

    uint64_t window = binding_limit(r) / 4 / SUM_BLOCK * SUM_BLOCK;
    qn_range sums = slice(part, 0, blocks);
    for (uint64_t at = 0; at < count; at += window) {
        uint64_t items = smaller(window, count - at);
        QN_TRY(record_sum_blocks(r, slice(from, at, items), items, sums, at / SUM_BLOCK, squares));
    }
    uint64_t further = qn_div_up(blocks, SUM_BLOCK);
    if (further == 1) return record_sum_blocks(r, sums, blocks, to, 0, false);
    qn_range last = slice(part, aligned(blocks), further);
    QN_TRY(record_sum_blocks(r, sums, blocks, last, 0, false));
    return record_sum_blocks(r, last, further, to, 0, false);
}

qn_result qn_expect_f32(const qn_node *n, int input, const char *what)
{
    return qn_expect_dtype(n, input, what, QN_F32);
}

qn_result qn_expect_rows(const qn_node *n, int input, const char *what)
{
    const qn_tensor *t = n->in[input];
    QN_TRY(qn_expect_f32(n, input, what));
    if (t->shape.rank < 1)
        return qn_refuse(n, "%s (%s) is a scalar, expected at least one dimension", what, t->name);
    if (qn_shape_last(t->shape) > QN_MAX_WIDTH)
        return qn_refuse(n, "%s (%s) has rows of %lld, expected at most %d", what, t->name,
                         (long long)qn_shape_last(t->shape), QN_MAX_WIDTH);
    return QN_OK;
}

qn_result qn_expect_columns(const qn_node *n, int input, const char *what,
                            const qn_device_info *dev)
{
    const int64_t most = 1 << 24, most_split = 1 << 19;
    const qn_tensor *t = n->in[input];
    int64_t width = qn_shape_last(t->shape);
    QN_TRY(qn_expect_f32(n, input, what));
    if (t->shape.rank < 1)
        return qn_refuse(n, "%s (%s) is a scalar, expected at least one dimension", what, t->name);
    bool split = (uint64_t)qn_shape_count(t->shape) * 4 > dev->max_binding;
    if (width > (split ? most_split : most))
        return qn_refuse(n, "%s (%s) has rows of %lld, expected at most %lld", what, t->name,
                         (long long)width, (long long)(split ? most_split : most));
    return QN_OK;
}
