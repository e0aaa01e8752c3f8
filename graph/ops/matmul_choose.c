#include "matmul_choose.h"

// Terms that one pass sums: few enough rounds of any kernel's loop (shaders/) for drivers that
// count them.
enum { MOST_TERMS = 1 << 17 };

enum { TILED_LANES = 128, TILED_COLUMNS = 64, TILED_BLOCK = 16, FLAT_UNROLL = 8 };
enum { VECTOR_ROWS = 4 }; // up to so many rows are a matrix-vector product
enum { ROWVEC_ROWS = 8 }; // of b, for a group
enum { STRIPE_WIDE = 8, STRIPE_NARROW = 2 };

// A tile and its worth: the arithmetic it does per unit of time on a large product, as measured
// (docs/kernels-matmul.md), the best one 100.
typedef struct tile {
    uint32_t constant, rows;
    uint32_t speed;
} tile;

static const tile flat_tiles[] = { { 32, 32, 100 }, { 16, 16, 88 }, { 8, 8, 72 }, { 4, 4, 55 } };
static const tile tiled_tiles[] = { { 8, 64, 100 }, { 4, 32, 75 } };

static const tile *tiles_of(const qn_device_info *dev, int *count)
{
    bool flat = dev->kernel_class == QN_CLASS_FLAT;
    *count = flat ? 4 : 2;
    return flat ? flat_tiles : tiled_tiles;
}

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static uint32_t columns_of(const qn_device_info *dev)
{
    return dev->kernel_class == QN_CLASS_FLAT ? 4 * dev->subgroup_size : TILED_COLUMNS;
}

// One row, or one column, is the same in memory either way round: take the way with long rows.
static qn_product normal(qn_product p)
{
    if (p.m == 1) p.transpose_a = p.transpose_c = false;
    if (p.n == 1) p.transpose_b = true;
    if (p.n == 1 && p.m > 1 && !p.bias) p.transpose_c = true;
    return p;
}

static qn_product transposed(qn_product p)
{
    return normal((qn_product){
        .batch = p.batch,
        .m = p.n,
        .n = p.m,
        .k = p.k,
        .transpose_a = !p.transpose_b,
        .transpose_b = !p.transpose_a,
        .transpose_c = !p.transpose_c,
    });
}

static bool is_vector(const qn_product *p)
{
    return p->m <= VECTOR_ROWS && !p->transpose_a && !p->transpose_c;
}

// The tile whose padded product takes the least time; *time is relative.
static const tile *best_tile(const qn_product *p, const qn_device_info *dev, double *time)
{
    int count;
    const tile *tiles = tiles_of(dev, &count), *best = NULL;
    for (int i = 0; i < count; i++) {
        double t = (double)round_up(p->m, tiles[i].rows) * (double)round_up(p->n, columns_of(dev)) /
                   tiles[i].speed;
        if (best && !(t < *time)) continue;
        best = &tiles[i];
        *time = t;
    }
    return best;
}

static void choose_vector(qn_matmul_choice *c, const qn_device_info *dev)
{
    const qn_product *p = &c->p;
    c->rows = c->tile = (uint32_t)p->m;
    if (dev->kernel_class != QN_CLASS_FLAT) {
        c->kernel = QN_K_matvec;
        c->columns = p->transpose_b ? 16 : 64;
        c->group_size = TILED_LANES;
        c->rounds_of_most = MOST_TERMS / 8;
    } else if (p->transpose_b && p->k % 32 == 0) {
        c->kernel = QN_K_rowvec_flat;
        c->columns = ROWVEC_ROWS;
        c->rounds_of_most = MOST_TERMS / 8 / dev->subgroup_size;
    } else if (p->transpose_b) { // reads along the rows of b like a vector kernel
        c->kernel = QN_K_matmul_flat;
        c->rows = c->tile = p->m == 3 ? 4 : (uint32_t)p->m;
        c->columns = columns_of(dev);
        c->rounds_of_most = MOST_TERMS / FLAT_UNROLL;
    } else {
        c->kernel = QN_K_matvec_flat;
        uint32_t wide = columns_of(dev) * STRIPE_WIDE;
        c->columns = p->n >= wide ? wide : columns_of(dev) * STRIPE_NARROW;
        c->rounds_of_most = MOST_TERMS / 4;
    }
}

static void choose_tile(qn_matmul_choice *c, const tile *t, const qn_device_info *dev)
{
    bool flat = dev->kernel_class == QN_CLASS_FLAT;
    c->kernel = flat ? QN_K_matmul_flat : QN_K_matmul;
    c->tile = t->constant;
    c->rows = t->rows;
    c->columns = columns_of(dev);
    c->group_size = flat ? 0 : TILED_LANES;
    c->rounds_of_most = MOST_TERMS / (flat ? FLAT_UNROLL : TILED_BLOCK);
}

qn_matmul_choice qn_matmul_choose(const qn_product *given, const qn_device_info *dev)
{
    qn_matmul_choice c = { .p = normal(*given), .most_terms = MOST_TERMS };
    // Only the second operand may be stored in other types, and a bias lies along its columns.
    bool may_swap = !given->half && !given->bias;
    qn_product other = may_swap ? transposed(c.p) : c.p;
    double time, other_time;
    const tile *t = best_tile(&c.p, dev, &time), *other_t = best_tile(&other, dev, &other_time);
    if (may_swap && !is_vector(&c.p) && (is_vector(&other) || other_time < time)) {
        c.swapped = true;
        c.p = other;
        t = other_t;
    }
    if (is_vector(&c.p))
        choose_vector(&c, dev);
    else
        choose_tile(&c, t, dev);
    const qn_product *p = &c.p;
    c.aligned = (p->transpose_a ? p->m : p->k) % 4 == 0 &&
                (p->transpose_b ? p->k : p->n) % 4 == 0 && (p->transpose_c ? p->m : p->n) % 4 == 0;
    return c;
}

qn_expert_choice qn_expert_matmul_choose(uint64_t slots, uint64_t experts,
                                         const qn_device_info *dev)
{
    bool flat = dev->kernel_class == QN_CLASS_FLAT;
    int count;
    const tile *tiles = tiles_of(dev, &count), *best = tiles;
    double mean = slots > experts ? (double)slots / (double)experts : 1, least = 0;
    for (int i = 0; i < count; i++) { // half a tile of padding per expert is to be expected
        double time = (mean + tiles[i].rows / 2.0) / tiles[i].speed;
        if (i > 0 && !(time < least)) continue;
        best = &tiles[i];
        least = time;
    }
    return (qn_expert_choice){
        .kernel = flat ? QN_K_expert_matmul_flat : QN_K_expert_matmul,
        .tile = best->constant,
        .rows = best->rows,
        .columns = columns_of(dev),
        .group_size = flat ? 0 : TILED_LANES,
        .terms_per_round = flat ? FLAT_UNROLL : TILED_BLOCK,
    };
}

qn_expert_choice qn_expert_outer_choose(uint64_t rows, const qn_device_info *dev)
{
    bool flat = dev->kernel_class == QN_CLASS_FLAT;
    double time;
    qn_product p = { .m = rows, .n = 1 };
    const tile *t = best_tile(&p, dev, &time);
    return (qn_expert_choice){
        .kernel = flat ? QN_K_expert_outer_flat : QN_K_expert_outer,
        .tile = t->constant,
        .rows = t->rows,
        .columns = columns_of(dev),
        .group_size = flat ? 0 : TILED_LANES,
        .terms_per_round = flat ? FLAT_UNROLL : TILED_BLOCK,
    };
}
