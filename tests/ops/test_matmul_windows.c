// Products whose result is larger than one binding may be: the recorder cuts them into windows.
// Operands are small integers, so every element is exact.
#include "device.h"

#include <quoin/ops.h>

#include <stdlib.h>

enum { K = 4, N = 1027 }; // odd, so that rows of the result start at every place within a vec4

static float a_at(int64_t i, int64_t k) { return (float)((i * 7 + k * 3) % 11 - 5); }
static float b_at(int64_t k, int64_t j) { return (float)((j * 5 + k) % 13 - 6); }

// [rows, columns], or with `transposed` [columns, rows] of the same values, in batches all alike.
static const qn_tensor *matrix(qn_graph *g, const char *name, float (*at)(int64_t, int64_t),
                               int64_t batches, int64_t rows, int64_t columns, bool transposed)
{
    int64_t each = rows * columns;
    float *v = test_malloc((size_t)(batches * each) * sizeof *v);
    for (int64_t i = 0; i < batches * each; i++) {
        int64_t r = transposed ? i % each % rows : i % each / columns;
        int64_t c = transposed ? i % each / rows : i % each % columns;
        v[i] = at(r, c);
    }
    int64_t first = transposed ? columns : rows, second = transposed ? rows : columns;
    qn_shape shape = batches > 1 ? QN_SHAPE(batches, first, second) : QN_SHAPE(first, second);
    const qn_tensor *t = qn_constant(g, name, QN_F32, shape, v);
    test_free(v);
    return t;
}

static int64_t rows_beyond(qn_device *dev)
{
    uint64_t most = qn_device_describe(dev)->max_binding;
    if (most > (uint64_t)1 << 28) skip(); // would take gigabytes
    return (int64_t)(most / 4 / N) + 300;
}

// y [batches, rows, N], or transposed [N, rows] in its place, is the product.
static void check(qn_graph *g, const qn_tensor *y, int64_t batches, int64_t rows, bool transposed)
{
    qn_plan *p;
    size_t size = (size_t)(batches * rows * N) * sizeof(float);
    float *got = test_malloc(size);
    assert_ok(qn_graph_status(g));
    assert_ok(qn_plan_create(g, &(qn_plan_opts){ .outputs = &y, .output_count = 1 }, &p));
    assert_ok(qn_plan_run(p));
    assert_ok(qn_plan_get(p, y, got, size));
    // The operands repeat: 11 and 13 rows of values.
    float expected[11][13];
    for (int i = 0; i < 11; i++)
        for (int j = 0; j < 13; j++) {
            expected[i][j] = 0;
            for (int k = 0; k < K; k++) expected[i][j] += a_at(i, k) * b_at(k, j);
        }
    for (int64_t x = 0; x < batches * rows * N; x++) {
        int64_t i = transposed ? x % rows : x / N % rows, j = transposed ? x / rows : x % N;
        if (got[x] != expected[i % 11][j % 13])
            fail_msg("element %lld is %g, expected %g", (long long)x, (double)got[x],
                     (double)expected[i % 11][j % 13]);
    }
    test_free(got);
    qn_plan_destroy(&p);
    qn_graph_destroy(&g);
}

static void multiply(qn_device *dev, bool ta, bool tb)
{
    qn_graph *g;
    int64_t rows = rows_beyond(dev);
    assert_ok(qn_graph_create(dev, &g));
    const qn_tensor *a = matrix(g, "a", a_at, 1, rows, K, ta), *b = matrix(g, "b", b_at, 1, K, N, tb);
    check(g, qn_matmul(g, a, b, &(qn_matmul_opts){ .transpose_a = ta, .transpose_b = tb }), 1, rows,
          false);
}

static void rows(void **state)
{
    (void)state;
    multiply(qn_test_device(), false, false);
}

static void rows_of_columns(void **state)
{
    (void)state;
    multiply(qn_test_device(), true, true);
}

static void rows_in_portable_form(void **state)
{
    (void)state;
    qn_device *dev = qn_test_device_hiding(QN_CAP_SUBGROUP | QN_CAP_TEXEL);
    multiply(dev, true, false);
    qn_keep_drivers();
    qn_device_destroy(&dev);
}

static void batches(void **state)
{
    (void)state;
    qn_graph *g;
    enum { BATCHES = 70 };
    int64_t each = rows_beyond(qn_test_device()) / BATCHES + 1;
    assert_ok(qn_graph_create(qn_test_device(), &g));
    const qn_tensor *a = matrix(g, "a", a_at, BATCHES, each, K, false);
    const qn_tensor *b = matrix(g, "b", b_at, BATCHES, K, N, true);
    check(g, qn_matmul(g, a, b, &(qn_matmul_opts){ .transpose_b = true }), BATCHES, each, false);
}

// d(sum(x' s * w))/dx = s w' as [K', M]: the one product that is written transposed. Here s holds
// the product's b, [N, K] or [K, N], and w its a.
static void gradient(bool tb)
{
    qn_graph *g;
    qn_device *dev = qn_test_device();
    int64_t many = rows_beyond(dev);
    assert_ok(qn_graph_create(dev, &g));
    const qn_tensor *x = qn_input(g, "x", QN_F32, QN_SHAPE(N, many)), *dx;
    qn_wants_grad(x);
    const qn_tensor *s = matrix(g, "s", b_at, 1, K, N, !tb), *w = matrix(g, "w", a_at, 1, many, K, false);
    const qn_tensor *y = qn_matmul(g, x, s, &(qn_matmul_opts){ .transpose_a = true, .transpose_b = tb });
    assert_ok(qn_backward(g, qn_sum_all(g, qn_mul(g, y, w)), NULL, &x, 1, &dx));
    check(g, dx, 1, many, true);
}

static void transposed_rows(void **state)
{
    (void)state;
    gradient(false);
}

static void transposed_columns(void **state)
{
    (void)state;
    gradient(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows),
        cmocka_unit_test(rows_of_columns),
        cmocka_unit_test(rows_in_portable_form),
        cmocka_unit_test(batches),
        cmocka_unit_test(transposed_rows),
        cmocka_unit_test(transposed_columns),
    };
    qn_device_or_skip();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    qn_keep_drivers();
    return failed + qn_device_finish() ? EXIT_FAILURE : EXIT_SUCCESS;
}
