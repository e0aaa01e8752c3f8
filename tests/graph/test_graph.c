// Graphs and plans: errors that stick, names, dumps, gradients, and that sharing memory, computing
// in place and placing assigned values never change a bit.
#include "device.h"
#include "mem.h"
#include "random.h"

#include <quoin/ops.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 6, WIDTH = 10, CELLS = ROWS * WIDTH };

static qn_graph *new_graph(void)
{
    qn_graph *g;
    assert_ok(qn_graph_create(qn_test_device(), &g));
    return g;
}

static qn_store *new_store(const char *first, const char *second)
{
    qn_store *s;
    assert_ok(qn_store_create(qn_test_device(), "weights", &s));
    assert_ok(qn_store_add(s, first, QN_F32, QN_SHAPE(ROWS, WIDTH)));
    if (second) assert_ok(qn_store_add(s, second, QN_F32, QN_SHAPE(ROWS, WIDTH)));
    assert_ok(qn_store_allocate(s));
    return s;
}

static void fill(qn_store *s, const char *name, uint64_t seed)
{
    float x[CELLS];
    qn_random rng = qn_random_start(seed, 0);
    for (int i = 0; i < CELLS; i++) x[i] = (float)qn_random_normal(&rng);
    assert_ok(qn_store_write(s, name, x, sizeof x));
}

// ------------------------------------------------------------------------------ building

static void test_errors_stick(void **state)
{
    (void)state;
    qn_graph *g = new_graph();
    const qn_tensor *a = qn_input(g, "a", QN_F32, QN_SHAPE(2, 3));
    const qn_tensor *b = qn_input(g, "b", QN_F32, QN_SHAPE(4, 5));
    assert_ok(qn_graph_status(g));
    const qn_tensor *bad = qn_add(g, a, b);
    assert_null(bad);
    assert_fails(qn_graph_status(g), QN_ERR_INVALID, "[4,5]");
    char first[512];
    snprintf(first, sizeof first, "%s", qn_error_message());
    assert_null(qn_activate(g, bad, QN_TANH)); // NULL in, NULL out
    assert_null(qn_mul(g, a, a));              // nothing is built any more
    assert_null(qn_input(g, "c", QN_F32, QN_SCALAR));
    const qn_tensor *grad = a;
    assert_fails(qn_backward(g, NULL, NULL, &a, 1, &grad), QN_ERR_INVALID, "[4,5]");
    assert_null(grad);
    qn_plan *p;
    assert_fails(qn_plan_create(g, NULL, &p), QN_ERR_INVALID, "[4,5]");
    assert_null(p);
    assert_string_equal(qn_error_message(), first);
    qn_plan_stats stats;
    assert_fails(qn_plan_estimate(g, NULL, &stats), QN_ERR_INVALID, "[4,5]");
    qn_graph_destroy(&g);
    assert_null(g);
}

static void test_leaves(void **state)
{
    (void)state;
    static const struct {
        qn_dtype dtype;
        qn_shape shape;
    } impossible[] = {
        { QN_F32, { 1, { 0 } } },
        { QN_F32, { 2, { 3, -1 } } },
        { QN_F32, { 5, { 1, 1, 1, 1 } } },
        { QN_F32, { -1, { 1 } } },
        { QN_F32, { 2, { INT64_MAX, INT64_MAX } } },
        { QN_DTYPE_COUNT, { 1, { 1 } } },
    };
    for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
        qn_graph *g = new_graph();
        assert_null(qn_input(g, "odd", impossible[i].dtype, impossible[i].shape));
        assert_fails(qn_graph_status(g), QN_ERR_INVALID, "tensor odd");
        qn_graph_destroy(&g);
    }
    qn_store *s = new_store("layer.weight", "layer.bias");
    qn_graph *g = new_graph();
    const qn_tensor *w = qn_param(g, s, "layer.weight");
    assert_ptr_equal(qn_param(g, s, "layer.weight"), w);
    assert_true(w->needs_grad);
    const qn_tensor *frozen = qn_frozen(g, s, "layer.weight");
    assert_ptr_not_equal(frozen, w);
    assert_false(frozen->needs_grad);
    const qn_tensor *all = qn_store_tensor(g, s);
    assert_int_equal(all->shape.dim[0] * 4, qn_store_bytes(s));
    assert_null(qn_param(g, s, "layer.wieght"));
    assert_fails(qn_graph_status(g), QN_ERR_INVALID, "the nearest is layer.weight");
    qn_graph_destroy(&g);
    qn_store_destroy(&s);
}

static void test_scopes_and_names(void **state)
{
    (void)state;
    qn_graph *g = new_graph();
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SCALAR);
    qn_graph_scope(g, "h.0");
    qn_graph_scope(g, "attn");
    assert_string_equal(qn_scale(g, x, 2, 0)->name, "h.0.attn.scale");
    const qn_tensor *y = qn_scale(g, x, 3, 0);
    qn_name(g, y, "q");
    assert_string_equal(y->name, "h.0.attn.q");
    qn_graph_scope(g, NULL);
    assert_string_equal(qn_scale(g, x, 4, 0)->name, "h.0.scale");
    qn_graph_scope(g, NULL);
    qn_graph_scope(g, NULL); // one too many does nothing
    assert_string_equal(qn_scale(g, x, 5, 0)->name, "scale");
    qn_name(g, NULL, "nothing");
    assert_ok(qn_graph_status(g));
    for (int i = 0; i < 100; i++) qn_graph_scope(g, "deep");
    assert_fails(qn_graph_status(g), QN_ERR_INVALID, "too deep");
    qn_graph_destroy(&g);

    g = new_graph();
    char name[400];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    qn_graph_scope(g, name);
    assert_fails(qn_graph_status(g), QN_ERR_INVALID, "too long");
    qn_graph_destroy(&g);
}

// Every line of a dump names a tensor that was made before; every edge of a drawing has its ends.
static void test_dumps(void **state)
{
    (void)state;
    qn_store *s = new_store("w", NULL);
    qn_graph *g = new_graph();
    const qn_tensor *w = qn_param(g, s, "w");
    const qn_tensor *x = qn_input(g, "in \"quoted\" \\", QN_F32, QN_SHAPE(ROWS, WIDTH));
    const qn_tensor *loss = qn_sum_all(g, qn_activate(g, qn_mul(g, x, w), QN_TANH)), *grad;
    assert_ok(qn_backward(g, loss, NULL, &w, 1, &grad));

    FILE *f = tmpfile();
    assert_non_null(f);
    assert_ok(qn_graph_dump_text(g, f));
    rewind(f);
    char line[512];
    bool made[64] = { false };
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++) {
        char *equals = strstr(line, " = ");
        assert_non_null(equals);
        assert_non_null(strstr(equals, "  # "));
        for (char *at = strchr(equals, '%'); at; at = strchr(at + 1, '%'))
            assert_true(made[strtol(at + 1, NULL, 10)]);
        for (char *at = strchr(line, '%'); at && at < equals; at = strchr(at + 1, '%'))
            made[strtol(at + 1, NULL, 10)] = true;
    }
    assert_true(lines > 7);
    fclose(f);

    f = tmpfile();
    assert_non_null(f);
    assert_ok(qn_graph_dump_dot(g, f));
    rewind(f);
    bool leaf[64] = { false }, node[64] = { false };
    int open = 0, edges = 0;
    while (fgets(line, sizeof line, f)) {
        char kind = 0;
        int from = -1, to = -1;
        bool quoted = false;
        for (char *c = line; *c; c++) {
            if (*c == '\\' && quoted)
                c++;
            else if (*c == '"')
                quoted = !quoted;
            else if (!quoted)
                open += (*c == '{') - (*c == '}');
        }
        assert_false(quoted);
        if (sscanf(line, "  %c%d -> n%d", &kind, &from, &to) == 3) {
            assert_true(kind == 't' ? leaf[from] : node[from]);
            assert_true(node[to]);
            edges++;
        } else if (sscanf(line, "  %c%d [", &kind, &from) == 2) {
            (kind == 't' ? leaf : node)[from] = true;
        }
    }
    assert_int_equal(open, 0);
    assert_true(edges > 6);
    fclose(f);

    f = fopen("/dev/full", "w");
    if (f) {
        setvbuf(f, NULL, _IONBF, 0);
        assert_fails(qn_graph_dump_text(g, f), QN_ERR_IO, "dump");
        fclose(f);
    }
    qn_graph_destroy(&g);
    qn_store_destroy(&s);
}

// ------------------------------------------------------------------------------ gradients

static void test_backward_requests(void **state)
{
    (void)state;
    qn_store *s = new_store("used", "idle");
    qn_graph *g = new_graph();
    const qn_tensor *wrt[2] = { qn_param(g, s, "used"), qn_param(g, s, "idle") }, *grads[2];
    const qn_tensor *loss = qn_sum_squares(g, wrt[0]);
    assert_ok(qn_backward(g, loss, NULL, wrt, 2, grads));
    assert_true(qn_shape_equal(grads[0]->shape, wrt[0]->shape));
    assert_null(grads[1]); // the loss does not depend on it
    qn_graph_destroy(&g);

    static const char *const parts[] = { "no loss", "f32 scalar", "gradient 0", "seed" };
    for (int i = 0; i < 4; i++) {
        g = new_graph();
        const qn_tensor *w = qn_param(g, s, "used"), *none = NULL, *grad = w;
        loss = qn_sum_squares(g, w);
        assert_fails(qn_backward(g, i == 0 ? NULL : i == 1 ? w : loss, i == 3 ? w : NULL,
                                 i == 2 ? &none : &w, 1, &grad),
                     QN_ERR_INVALID, parts[i]);
        assert_null(grad);
        assert_fails(qn_graph_status(g), QN_ERR_INVALID, parts[i]); // it sticks
        qn_graph_destroy(&g);
    }
    qn_store_destroy(&s);
}

// d/dx of the sum of n paths, more than one sum takes: each path counts once.
static void test_many_paths(void **state)
{
    (void)state;
    enum { PATHS = 21 };
    qn_graph *g = new_graph();
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(3)), *sum = NULL, *grad;
    qn_wants_grad(x);
    for (int i = 0; i < PATHS; i++) {
        const qn_tensor *path = qn_scale(g, x, (float)(i + 1), 0);
        sum = sum ? qn_add(g, sum, path) : path;
    }
    assert_ok(qn_backward(g, qn_sum_all(g, sum), NULL, &x, 1, &grad));
    qn_plan *p;
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = &grad, .output_count = 1 }, &p));
    const float in[3] = { 1, 2, 3 };
    float out[3];
    assert_ok(qn_plan_set(p, x, in, sizeof in));
    assert_ok(qn_plan_run(p));
    assert_ok(qn_plan_get(p, grad, out, sizeof out));
    for (int i = 0; i < 3; i++) assert_true(out[i] == PATHS * (PATHS + 1) / 2); // exact in f32
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
}

// ------------------------------------------------------------------------------ plans

static void test_inputs_and_outputs(void **state)
{
    (void)state;
    qn_graph *g = new_graph();
    const qn_tensor *a = qn_input(g, "a", QN_F32, QN_SHAPE(4));
    const qn_tensor *b = qn_input(g, "b", QN_F32, QN_SHAPE(4));
    const qn_tensor *unread = qn_input(g, "unread", QN_F32, QN_SHAPE(2));
    const qn_tensor *sum = qn_add(g, a, b), *unwanted = qn_mul(g, a, b);
    qn_plan *p;
    const qn_tensor *none = NULL;
    assert_fails(qn_plan_create(g, &(qn_plan_opts){ .outputs = &none, .output_count = 1 }, &p),
                 QN_ERR_INVALID, "output 0");
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = &sum, .output_count = 1 }, &p));
    const float x[4] = { 1, 2, 3, 4 };
    float y[4];
    assert_fails(qn_plan_run(p), QN_ERR_INVALID, "input a was never set");
    assert_ok(qn_plan_set(p, a, x, sizeof x));
    assert_fails(qn_plan_run(p), QN_ERR_INVALID, "input b was never set");
    assert_fails(qn_plan_set(p, b, x, 8), QN_ERR_INVALID, "input b has 16 bytes, 8 were given");
    assert_fails(qn_plan_set(p, sum, x, sizeof x), QN_ERR_INVALID, "is not an input");
    assert_ok(qn_plan_set(p, b, x, sizeof x));
    assert_ok(qn_plan_set(p, unread, x, 8)); // harmless
    assert_ok(qn_plan_run(p));
    assert_fails(qn_plan_get(p, unwanted, y, sizeof y), QN_ERR_INVALID, "is not an output");
    assert_fails(qn_plan_get(p, sum, y, 4), QN_ERR_INVALID, "16 bytes, 4 were wanted");
    assert_ok(qn_plan_get(p, sum, y, sizeof y));
    for (int i = 0; i < 4; i++) assert_true(y[i] == 2 * x[i]);
    assert_int_equal(qn_plan_describe(p).nodes, 1); // what nobody wants does not run
    size_t count;
    assert_fails(qn_plan_profile(p, NULL, 0, &count), QN_ERR_INVALID, "profiling");
    assert_fails(qn_plan_guards(p), QN_ERR_INVALID, "guards");
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
}

// A random network over one store: pointwise operations, reshapes and assigns in any order.
typedef struct network {
    qn_graph *g;
    const qn_tensor *outputs[3];
} network;

enum { MADE = 24 };

static network random_network(qn_store *s, uint64_t seed)
{
    network n = { .g = new_graph() };
    qn_random rng = qn_random_start(seed, 1);
    const qn_tensor *w = qn_param(n.g, s, "w"), *v = qn_param(n.g, s, "v"), *x[MADE + 2] = { w, v };
    for (int i = 2; i < MADE + 2; i++) {
        const qn_tensor *a = x[qn_random_below(&rng, (uint64_t)i)];
        const qn_tensor *b = x[qn_random_below(&rng, (uint64_t)i)];
        switch (qn_random_below(&rng, 6)) {
        case 0: x[i] = qn_add(n.g, a, b); break;
        case 1: x[i] = qn_activate(n.g, qn_mul(n.g, a, b), QN_TANH); break;
        case 2: x[i] = qn_scale(n.g, a, 0.75f, 0.125f); break;
        case 3:
            x[i] = qn_reshape(n.g, qn_reshape(n.g, a, QN_SHAPE(CELLS)), QN_SHAPE(ROWS, WIDTH));
            break;
        case 4: x[i] = qn_activate(n.g, a, QN_SIGMOID); break;
        default: // what was built before sees the old value, what follows the new one
            x[i] = qn_assign(n.g, qn_random_below(&rng, 2) ? w : v, a);
        }
    }
    for (int i = 0; i < 3; i++) n.outputs[i] = x[2 + qn_random_below(&rng, MADE)];
    assert_ok(qn_graph_status(n.g));
    return n;
}

typedef struct values {
    float out[3][CELLS], w[CELLS], v[CELLS];
} values;

static values run_network(uint64_t seed, bool no_inplace, bool poison)
{
    values r;
    qn_store *s = new_store("w", "v");
    fill(s, "w", seed);
    fill(s, "v", seed + 1);
    network n = random_network(s, seed);
    qn_plan *p;
    assert_ok(qn_plan_create(n.g,
                             &(qn_plan_opts){ .outputs = n.outputs, .output_count = 3,
                                              .no_inplace = no_inplace, .poison = poison },
                             &p));
    for (int k = 0; k < 2; k++) assert_ok(qn_plan_run(p));
    if (poison) assert_ok(qn_plan_guards(p));
    for (int i = 0; i < 3; i++)
        assert_ok(qn_plan_get(p, n.outputs[i], r.out[i], sizeof r.out[i]));
    assert_ok(qn_store_read(s, "w", r.w, sizeof r.w));
    assert_ok(qn_store_read(s, "v", r.v, sizeof r.v));
    qn_plan_destroy(&p);
    qn_graph_destroy(&n.g);
    qn_store_destroy(&s);
    return r;
}

// Computed in place, with assigned values placed directly and memory shared, or none of that, and
// twice in a row: the same bits in every output and in the store.
static void test_sharing_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        values a = run_network(seed, false, false), b = run_network(seed, true, false);
        values c = run_network(seed, true, true);
        if (memcmp(&a, &b, sizeof a) != 0 || memcmp(&b, &c, sizeof b) != 0)
            fail_msg("network %d depends on how its memory is shared", (int)seed);
    }
}

// The value of an assignment that nobody disturbs takes no memory of its own.
static void test_direct_placement(void **state)
{
    (void)state;
    qn_store *s = new_store("w", "v");
    fill(s, "w", 3);
    fill(s, "v", 4);
    qn_graph *g = new_graph();
    const qn_tensor *w = qn_param(g, s, "w"), *v = qn_param(g, s, "v");
    qn_assign(g, v, qn_scale(g, w, 2, 1));
    qn_plan *p, *q;
    assert_ok(qn_plan_create(g, NULL, &p));
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .no_inplace = true }, &q));
    assert_int_equal(qn_plan_describe(p).arena, 0);
    assert_true(qn_plan_describe(q).arena >= CELLS * 4);
    float direct[CELLS], copied[CELLS];
    assert_ok(qn_plan_run(p));
    assert_ok(qn_plan_wait(p));
    assert_ok(qn_store_read(s, "v", direct, sizeof direct));
    fill(s, "v", 5);
    assert_ok(qn_plan_run(q));
    assert_ok(qn_plan_wait(q));
    assert_ok(qn_store_read(s, "v", copied, sizeof copied));
    assert_memory_equal(direct, copied, sizeof direct);
    qn_plan_destroy(&p);
    qn_plan_destroy(&q);
    qn_graph_destroy(&g);
    qn_store_destroy(&s);
}

static void test_profile_and_estimate(void **state)
{
    (void)state;
    qn_store *s = new_store("w", "v");
    fill(s, "w", 1);
    fill(s, "v", 2);
    qn_graph *g = new_graph();
    const qn_tensor *w = qn_param(g, s, "w"), *v = qn_param(g, s, "v");
    const qn_tensor *product = qn_matmul(g, w, v, &(qn_matmul_opts){ .transpose_b = true });
    const qn_tensor *total = qn_sum_all(g, qn_activate(g, product, QN_TANH));
    qn_plan_opts o = { .outputs = &total, .output_count = 1, .profile = true };
    qn_plan_stats guess, real;
    assert_ok(qn_plan_estimate(g, &o, &guess));
    qn_plan *p;
    assert_ok(qn_plan_create(g, &o, &p));
    real = qn_plan_describe(p);
    assert_int_equal(guess.arena, real.arena);
    assert_int_equal(guess.unshared, real.unshared);
    assert_int_equal(guess.nodes, real.nodes);
    assert_int_equal(guess.flops, real.flops);
    assert_int_equal(guess.traffic, real.traffic);
    assert_true(real.flops >= 2 * ROWS * ROWS * WIDTH);
    assert_true(real.arena <= real.unshared);
    assert_int_equal(real.dispatches, 3);
    assert_int_equal(real.submissions, 1);
    assert_ok(qn_plan_run(p));
    qn_node_time times[16];
    size_t count;
    assert_ok(qn_plan_profile(p, times, 16, &count));
    assert_int_equal(count, real.nodes);
    assert_string_equal(times[0].op, "matmul");
    double seconds = 0;
    for (size_t i = 0; i < count; i++) {
        assert_true(times[i].seconds >= 0 && isfinite(times[i].seconds));
        seconds += times[i].seconds;
    }
    assert_true(seconds > 0 && seconds < 60);
    size_t again;
    assert_ok(qn_plan_profile(p, times, 1, &again)); // room for one only
    assert_int_equal(again, count);
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
    qn_store_destroy(&s);
}

// ------------------------------------------------------------------------------ memory

static qn_result build_and_plan(qn_store *s)
{
    qn_graph *g = NULL;
    qn_plan *p = NULL;
    qn_result r = qn_graph_create(qn_test_device(), &g);
    if (r != QN_OK) return r;
    qn_graph_scope(g, "net");
    const qn_tensor *w = qn_param(g, s, "w");
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(ROWS, WIDTH)), *grad = NULL;
    const qn_tensor *h = qn_activate(g, qn_mul(g, x, w), QN_TANH);
    const qn_tensor *loss = qn_sum_all(g, h);
    r = qn_backward(g, loss, NULL, &w, 1, &grad);
    qn_assign(g, w, qn_sum_of(g, (const qn_tensor *const[]){ w, grad }, 2));
    qn_plan_opts o = { .outputs = &loss, .output_count = 1 };
    if (r == QN_OK) r = qn_plan_create(g, &o, &p);
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
    return r;
}

static void test_allocation_failures(void **state)
{
    (void)state;
    qn_store *s = new_store("w", NULL);
    assert_ok(build_and_plan(s)); // kernels are there from now on
    int64_t n = 1;
    for (;; n++) {
        qn_alloc_fail_at(n);
        qn_result r = build_and_plan(s);
        qn_alloc_fail_at(0);
        if (r == QN_OK) break;
        if (r != QN_ERR_NO_MEMORY)
            fail_msg("allocation %d: %s: %s", (int)n, qn_result_name(r), qn_error_message());
    }
    assert_true(n > 10);
    qn_store_destroy(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_stick),
        cmocka_unit_test(test_leaves),
        cmocka_unit_test(test_scopes_and_names),
        cmocka_unit_test(test_dumps),
        cmocka_unit_test(test_backward_requests),
        cmocka_unit_test(test_many_paths),
        cmocka_unit_test(test_inputs_and_outputs),
        cmocka_unit_test(test_sharing_changes_nothing),
        cmocka_unit_test(test_direct_placement),
        cmocka_unit_test(test_profile_and_estimate),
        cmocka_unit_test(test_allocation_failures),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
