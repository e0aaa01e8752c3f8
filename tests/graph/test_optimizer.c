// AdamW through the public interface: it learns, repeats itself bit for bit, leaves frozen groups
// alone, and steps stores that no single binding can span.
#include "device.h"

#include "llm/schedule.h"
#include <quoin/ops.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

// --------------------------------------------------------------------- a network that learns
// h = tanh(x W1' + b1), y = h W2' + b2, loss = mean (y - t)^2, t a fixed function of x.

enum { SAMPLES = 96, INPUTS = 5, HIDDEN = 24, BLOCK = 64 };

static const struct {
    const char *name;
    qn_shape shape;
} tensors[] = {
    { "w1", { 2, { HIDDEN, INPUTS } } },
    { "b1", { 1, { HIDDEN } } },
    { "w2", { 2, { 1, HIDDEN } } },
    { "b2", { 1, { 1 } } },
};
enum { W1, B1, W2, B2, TENSORS };

typedef struct network {
    qn_store *weights, *gradients, *moment[2];
    qn_graph *g;
    qn_plan *plan;
    const qn_tensor *hyper, *loss;
} network;

// A small multiplicative generator: the same numbers everywhere.
static float next_number(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) * 0x1p-23f - 1;
}

static void make_stores(network *n, qn_device *dev)
{
    qn_store **stores[] = { &n->weights, &n->gradients, &n->moment[0], &n->moment[1] };
    for (int s = 0; s < 4; s++) {
        assert_ok(qn_store_create(dev, "store", stores[s]));
        for (int i = 0; i < TENSORS; i++)
            assert_ok(qn_store_add(*stores[s], tensors[i].name, QN_F32, tensors[i].shape));
        assert_ok(qn_store_allocate(*stores[s]));
    }
}

static void set_weights(network *n, uint32_t seed)
{
    for (int i = 0; i < TENSORS; i++) {
        float values[HIDDEN * INPUTS];
        int64_t count = qn_shape_count(tensors[i].shape);
        for (int64_t k = 0; k < count; k++) values[k] = 0.7f * next_number(&seed);
        assert_ok(qn_store_write(n->weights, tensors[i].name, values, (uint64_t)count * 4));
    }
}

static const qn_tensor *build_loss(network *n)
{
    static float x[SAMPLES * INPUTS], t[SAMPLES];
    uint32_t state = 1;
    for (int i = 0; i < SAMPLES; i++) {
        for (int k = 0; k < INPUTS; k++) x[i * INPUTS + k] = next_number(&state);
        const float *row = x + i * INPUTS;
        t[i] = sinf(2 * row[0]) + row[1] * row[2] - 0.5f * row[3];
    }
    qn_graph *g = n->g;
    const qn_tensor *w[TENSORS];
    for (int i = 0; i < TENSORS; i++) w[i] = qn_param(g, n->weights, tensors[i].name);
    const qn_tensor *input = qn_constant(g, "x", QN_F32, QN_SHAPE(SAMPLES, INPUTS), x);
    const qn_tensor *target = qn_constant(g, "t", QN_F32, QN_SHAPE(SAMPLES, 1), t);
    qn_matmul_opts first = { .transpose_b = true, .bias = w[B1] };
    qn_matmul_opts second = { .transpose_b = true, .bias = w[B2] };
    const qn_tensor *h = qn_activate(g, qn_matmul(g, input, w[W1], &first), QN_TANH);
    const qn_tensor *error = qn_add(g, qn_matmul(g, h, w[W2], &second), qn_scale(g, target, -1, 0));
    const qn_tensor *loss = qn_scale(g, qn_sum_squares(g, error), 1.0f / SAMPLES, 0);

    const qn_tensor *grads[TENSORS];
    assert_ok(qn_backward(g, loss, NULL, w, TENSORS, grads));
    for (int i = 0; i < TENSORS; i++)
        qn_assign(g, qn_frozen(g, n->gradients, tensors[i].name), grads[i]);
    return loss;
}

// Row 0 decays, row 1 does not and is half as fast; -1 is frozen.
static void group_tensor(const network *n, int32_t *groups, int which, int32_t group)
{
    const qn_store_entry *e = qn_store_find(n->weights, tensors[which].name);
    for (uint64_t at = e->offset; at < e->offset + e->size; at += BLOCK * 4)
        groups[at / 4 / BLOCK] = group;
}

static void make_network(network *n, qn_device *dev, uint32_t seed, int frozen)
{
    static const float table[2][2] = { { 1, 1e-4f }, { 0.5f, 0 } };
    *n = (network){ 0 };
    make_stores(n, dev);
    set_weights(n, seed);
    assert_ok(qn_graph_create(dev, &n->g));
    qn_graph *g = n->g;
    n->loss = build_loss(n);
    int64_t blocks = (int64_t)(qn_store_bytes(n->weights) / 4 / BLOCK);
    int32_t *groups = calloc((size_t)blocks, sizeof *groups);
    assert_non_null(groups);
    group_tensor(n, groups, B1, 1);
    group_tensor(n, groups, B2, 1);
    if (frozen >= 0) group_tensor(n, groups, frozen, -1);
    const qn_tensor *gradient = qn_store_tensor(g, n->gradients);
    n->hyper = qn_input(g, "hyper", QN_F32, QN_SHAPE(QN_ADAM_HYPER));
    qn_adamw(g, qn_store_tensor(g, n->weights), gradient, qn_store_tensor(g, n->moment[0]),
             qn_store_tensor(g, n->moment[1]), n->hyper, qn_sum_squares(g, gradient),
             qn_constant(g, "groups", QN_I32, QN_SHAPE(blocks), groups),
             qn_constant(g, "table", QN_F32, QN_SHAPE(2, 2), table));
    free(groups);
    assert_ok(qn_graph_status(g));
    assert_ok(
        qn_plan_create(g, &(qn_plan_opts){ .outputs = &n->loss, .output_count = 1 }, &n->plan));
}

static void free_network(network *n)
{
    qn_plan_destroy(&n->plan);
    qn_graph_destroy(&n->g);
    qn_store_destroy(&n->weights);
    qn_store_destroy(&n->gradients);
    qn_store_destroy(&n->moment[0]);
    qn_store_destroy(&n->moment[1]);
}

// Trains for some steps; the loss before the first and before the last of them.
static void train(network *n, int steps, float *first, float *last)
{
    const qn_adam adam = { .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .clip = 1 };
    const qn_schedule rate = {
        .decay = QN_DECAY_COSINE,
        .peak = 0.02,
        .floor = 1e-3,
        .warmup = 10,
        .steps = steps,
    };
    for (int step = 1; step <= steps; step++) {
        float hyper[QN_ADAM_HYPER];
        qn_adam_hyper(&adam, qn_schedule_rate(&rate, step), step, hyper);
        assert_ok(qn_plan_set(n->plan, n->hyper, hyper, sizeof hyper));
        assert_ok(qn_plan_run(n->plan));
        assert_ok(qn_plan_get(n->plan, n->loss, last, sizeof *last));
        if (step == 1) *first = *last;
    }
}

static void read_tensor(const qn_store *s, int which, float *values)
{
    uint64_t size = (uint64_t)qn_shape_count(tensors[which].shape) * 4;
    assert_ok(qn_store_read(s, tensors[which].name, values, size));
}

static void a_network_learns(void **state)
{
    (void)state;
    network n;
    float first, last;
    make_network(&n, qn_test_device(), 5, -1);
    train(&n, 400, &first, &last);
    if (!(last < 0.01f * first))
        fail_msg("loss %g at first, %g at last", (double)first, (double)last);
    free_network(&n);
}

static void equal_seeds_give_equal_bits(void **state)
{
    (void)state;
    network a, b, other;
    float first, last;
    make_network(&a, qn_test_device(), 5, -1);
    make_network(&b, qn_test_device(), 5, -1);
    make_network(&other, qn_test_device(), 6, -1);
    train(&a, 30, &first, &last);
    train(&b, 30, &first, &last);
    train(&other, 30, &first, &last);
    for (int i = 0; i < TENSORS; i++) {
        float x[HIDDEN * INPUTS], y[HIDDEN * INPUTS], z[HIDDEN * INPUTS];
        size_t size = (size_t)qn_shape_count(tensors[i].shape) * 4;
        read_tensor(a.weights, i, x);
        read_tensor(b.weights, i, y);
        read_tensor(other.weights, i, z);
        assert_memory_equal(x, y, size);
        assert_memory_not_equal(x, z, size);
    }
    free_network(&a);
    free_network(&b);
    free_network(&other);
}

static void frozen_groups_keep_their_bytes(void **state)
{
    (void)state;
    network n;
    float first, last, before[TENSORS][HIDDEN * INPUTS];
    make_network(&n, qn_test_device(), 5, W1);
    for (int i = 0; i < TENSORS; i++) read_tensor(n.weights, i, before[i]);
    train(&n, 20, &first, &last);
    for (int i = 0; i < TENSORS; i++) {
        float after[HIDDEN * INPUTS], moment[HIDDEN * INPUTS];
        size_t size = (size_t)qn_shape_count(tensors[i].shape) * 4;
        read_tensor(n.weights, i, after);
        if (i != W1) {
            assert_memory_not_equal(before[i], after, size);
            continue;
        }
        assert_memory_equal(before[i], after, size);
        for (int which = 0; which < 2; which++) {
            read_tensor(n.moment[which], i, moment);
            for (size_t k = 0; k < size / 4; k++) assert_true(moment[k] == 0);
        }
    }
    assert_true(last < first);
    free_network(&n);
}

// ------------------------------------------------------------------------- very large stores

static void set_block(qn_store *s, const char *name, float value)
{
    float block[BLOCK];
    for (int i = 0; i < BLOCK; i++) block[i] = value;
    assert_ok(qn_store_write(s, name, block, sizeof block));
}

// A store a little larger than a binding, everything frozen but a block on either side of the
// binding's end and the last block. Of such a size that only devices with small bindings are tested.
static void a_store_larger_than_a_binding_is_stepped(void **state)
{
    (void)state;
    const uint64_t limit = qn_device_describe(qn_test_device())->max_binding;
    if (limit > 256 << 20) skip();
    const int64_t edge = (int64_t)(limit / 4 / BLOCK), behind = 129; // blocks
    const struct {
        const char *name;
        int64_t blocks;
        int32_t group;
    } parts[] = {
        { "most", edge - 1, -1 },   { "before", 1, 0 }, { "behind", 1, 0 },
        { "rest", behind - 2, -1 }, { "last", 1, 0 },
    };
    qn_store *s[4];
    for (int k = 0; k < 4; k++) {
        assert_ok(qn_store_create(qn_test_device(), "large", &s[k]));
        for (int i = 0; i < 5; i++)
            assert_ok(qn_store_add(s[k], parts[i].name, QN_F32, QN_SHAPE(parts[i].blocks * BLOCK)));
        assert_ok(qn_store_allocate(s[k]));
    }
    int64_t blocks = edge + behind, at = 0;
    int32_t *groups = calloc((size_t)blocks, sizeof *groups);
    assert_non_null(groups);
    for (int i = 0; i < 5; i++) {
        for (int64_t b = 0; b < parts[i].blocks; b++) groups[at++] = parts[i].group;
        if (parts[i].group < 0) continue;
        set_block(s[0], parts[i].name, (float)i);
        set_block(s[1], parts[i].name, 1);
    }
    qn_graph *g;
    qn_plan *plan;
    assert_ok(qn_graph_create(qn_test_device(), &g));
    // The first step of a constant gradient moves every weight by the learning rate.
    static const float hyper[QN_ADAM_HYPER] = { 0.5f, 0.5f, 0.25f, 1e-8f, 0, 0.5f, 0.25f };
    static const float table[2] = { 1, 0 }, one = 1;
    const qn_tensor *group = qn_input(g, "groups", QN_I32, QN_SHAPE(blocks));
    qn_adamw(g, qn_store_tensor(g, s[0]), qn_store_tensor(g, s[1]), qn_store_tensor(g, s[2]),
             qn_store_tensor(g, s[3]), qn_constant(g, "hyper", QN_F32, QN_SHAPE(8), hyper),
             qn_constant(g, "square", QN_F32, QN_SCALAR, &one), group,
             qn_constant(g, "table", QN_F32, QN_SHAPE(1, 2), table));
    assert_ok(qn_plan_create(g, NULL, &plan));
    assert_ok(qn_plan_set(plan, group, groups, (uint64_t)blocks * sizeof *groups));
    assert_ok(qn_plan_run(plan));
    assert_ok(qn_plan_wait(plan));
    assert_true(qn_plan_describe(plan).dispatches >= 2);
    for (int i = 0; i < 5; i++) {
        if (parts[i].group < 0) continue;
        float block[BLOCK];
        assert_ok(qn_store_read(s[0], parts[i].name, block, sizeof block));
        for (int k = 0; k < BLOCK; k++)
            if (!(fabsf(block[k] - ((float)i - 0.5f)) < 1e-6f))
                fail_msg("%s[%d] is %g", parts[i].name, k, (double)block[k]);
    }
    qn_plan_destroy(&plan);
    qn_graph_destroy(&g);
    for (int k = 0; k < 4; k++) qn_store_destroy(&s[k]);
    free(groups);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_learns),
        cmocka_unit_test(equal_seeds_give_equal_bits),
        cmocka_unit_test(frozen_groups_keep_their_bytes),
        cmocka_unit_test(a_store_larger_than_a_binding_is_stepped),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
