// A stable counting sort of integers: least significant digit first, four bits at a time. Each pass
// counts the digits per block of keys, scans the counts, and moves keys and positions; no order
// depends on timing. Where a key's range begins is then found by binary search.
#include "grid.h"

#include "args.h"
#include "args/sort.h"
#include "args/sort_offsets.h"
#include "args/sort_scan.h"

typedef struct sorting {
    int32_t buckets;
} sorting;

enum { KEYS };                                                        // input
enum { ORDER, OFFSETS, MOVED_KEYS, OTHER_KEYS, OTHER_ORDER, COUNTS }; // outputs
enum { DIGIT_BITS = 4, LEAST_BLOCK = 32, MOST_BLOCKS = 1024, SCAN_GROUP = 128 };

// How a sort is cut up: a pure function of its sizes.
typedef struct layout {
    uint32_t count, buckets;
    uint32_t passes, bits; // of the digit of each pass
    uint32_t block, blocks;
} layout;

static layout layout_of(const qn_node *n)
{
    layout l = {
        .count = (uint32_t)qn_shape_count(n->in[KEYS]->shape),
        .buckets = (uint32_t)((const sorting *)n->attrs)->buckets,
    };
    uint32_t bits = 1;
    while ((l.buckets - 1) >> bits) bits++;
    l.passes = qn_div_up(bits, DIGIT_BITS);
    l.bits = qn_div_up(bits, l.passes);
    l.block = qn_div_up(qn_div_up(l.count, MOST_BLOCKS), 4) * 4;
    if (l.block < LEAST_BLOCK) l.block = LEAST_BLOCK;
    l.blocks = qn_div_up(l.count, l.block);
    return l;
}

// Counts of a pass: one row per digit and one for the keys that are left out.
static uint32_t count_cells(const layout *l)
{
    return ((1u << l->bits) + 1) * l->blocks;
}

static qn_result infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                       qn_dtype *dtype)
{
    (void)dev;
    QN_TRY(qn_expect_dtype(n, KEYS, "keys", QN_I32));
    int32_t buckets = ((const sorting *)n->attrs)->buckets;
    int64_t count = qn_shape_count(n->in[KEYS]->shape);
    if (buckets < 1 || buckets > 1 << 30)
        return qn_refuse(n, "%d buckets, expected 1 to 2^30", buckets);
    if (count > INT32_MAX)
        return qn_refuse(n, "keys (%s) has %lld elements, expected fewer than 2^31",
                         n->in[KEYS]->name, (long long)count);
    layout l = layout_of(n);
    int64_t other = l.passes > 1 ? count : 1;
    shape[ORDER] = shape[MOVED_KEYS] = QN_SHAPE(count);
    shape[OFFSETS] = QN_SHAPE((int64_t)buckets + 1);
    shape[OTHER_KEYS] = shape[OTHER_ORDER] = QN_SHAPE(other);
    shape[COUNTS] = QN_SHAPE((int64_t)count_cells(&l));
    for (int i = 0; i <= COUNTS; i++) dtype[i] = QN_I32;
    return QN_OK;
}

// Keys and positions before or after a pass.
typedef struct sequence {
    qn_range keys, order;
} sequence;

static qn_result record_pass(qn_recorder *r, const layout *l, uint32_t pass, sequence from,
                             sequence to, qn_range counts)
{
    const qn_device_info *dev = qn_recorder_device(r);
    sort_args args = {
        .count = l->count,
        .buckets = l->buckets,
        .block = l->block,
        .blocks = l->blocks,
        .shift = pass * l->bits,
        .first = pass == 0,
    };
    qn_dispatch d = {
        .kernel = QN_K_sort_count,
        .buffers = { from.keys, counts },
        .args = &args,
        .args_size = sizeof args,
        .constants = { 1u << l->bits },
        .rounds = l->block / 4,
    };
    qn_grid_items(dev, l->blocks, d.groups);
    QN_TRY(qn_record(r, &d));

    sort_scan_args scan = { .count = count_cells(l) };
    uint32_t lanes = dev->kernel_class == QN_CLASS_FLAT ? dev->subgroup_size : SCAN_GROUP;
    QN_TRY(qn_record(r, &(qn_dispatch){
                            .kernel = QN_K_sort_scan,
                            .buffers = { counts, counts },
                            .args = &scan,
                            .args_size = sizeof scan,
                            .group_size = SCAN_GROUP,
                            .groups = { 1, 1, 1 },
                            .rounds = 8 * (uint64_t)qn_div_up(scan.count, 4 * lanes),
                        }));

    d.kernel = QN_K_sort_move;
    d.buffers[0] = from.keys;
    d.buffers[1] = from.order;
    d.buffers[2] = counts;
    d.buffers[3] = to.keys;
    d.buffers[4] = to.order;
    return qn_record(r, &d);
}

static qn_result record(qn_recorder *r, const qn_node *n)
{
    layout l = layout_of(n);
    sequence result = { qn_at(r, n->out[MOVED_KEYS]), qn_at(r, n->out[ORDER]) };
    sequence other = { qn_at(r, n->out[OTHER_KEYS]), qn_at(r, n->out[OTHER_ORDER]) };
    sequence from = { qn_at(r, n->in[KEYS]), qn_at(r, NULL) };
    for (uint32_t pass = 0; pass < l.passes; pass++) {
        sequence to = (l.passes - pass) % 2 ? result : other;
        QN_TRY(record_pass(r, &l, pass, from, to, qn_at(r, n->out[COUNTS])));
        from = to;
    }
    sort_offsets_args args = { .count = l.count, .buckets = l.buckets };
    qn_dispatch d = {
        .kernel = QN_K_sort_offsets,
        .buffers = { result.keys, qn_at(r, n->out[OFFSETS]) },
        .args = &args,
        .args_size = sizeof args,
    };
    qn_grid_items(qn_recorder_device(r), (uint64_t)l.buckets + 1, d.groups);
    return qn_record(r, &d);
}

const qn_op_def qn_op_counting_sort = {
    .name = "counting_sort",
    .inputs = 1,
    .outputs = 6,
    .attrs_size = sizeof(sorting),
    .infer = infer,
    .record = record,
};

qn_sorted qn_counting_sort(qn_graph *g, const qn_tensor *keys, int buckets)
{
    if (!keys) return (qn_sorted){ 0 };
    sorting attrs = { buckets };
    const qn_node *made;
    const qn_tensor *in[QN_MAX_INPUTS] = { keys };
    if (!qn_op(g, &qn_op_counting_sort, &attrs, in, &made)) return (qn_sorted){ 0 };
    return (qn_sorted){ made->out[ORDER], made->out[OFFSETS] };
}
