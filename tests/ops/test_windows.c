// Tensors larger than one binding may be: operations split them into windows. The rows of a large
// matrix repeat one short row, so every result is known from a single row.
#include "device.h"
#include "op.h"

#include <math.h>

enum { WIDTH = 1027 }; // odd, so that rows start at every place within a vec4

typedef struct fixture {
    qn_graph *g;
    const qn_tensor *row, *big; // [WIDTH] and [rows, WIDTH]
    int64_t rows;
    double v[WIDTH];
} fixture;

static void open_fixture(fixture *f)
{
    uint64_t most = qn_device_describe(qn_test_device())->max_binding;
    if (most > (uint64_t)1 << 28) skip(); // would take gigabytes
    f->rows = (int64_t)(most / 4 / WIDTH) + 5000;
    assert_ok(qn_graph_create(qn_test_device(), &f->g));
    f->row = qn_input(f->g, "row", QN_F32, QN_SHAPE(WIDTH));
    f->big = QN_OP1(f->g, &qn_op_repeat, &QN_SHAPE(f->rows, WIDTH), f->row);
    for (int i = 0; i < WIDTH; i++) f->v[i] = (i * 37 % 101 - 50) / 16.0;
}

// Runs the graph and destroys it; out receives y [count], which is f32 or i32.
static void run(fixture *f, const qn_tensor *y, void *out, size_t count)
{
    qn_plan *p;
    float v[WIDTH];
    for (int i = 0; i < WIDTH; i++) v[i] = (float)f->v[i];
    assert_ok(qn_graph_status(f->g));
    assert_ok(qn_plan_create(f->g, &(qn_plan_opts){ .outputs = &y, .output_count = 1 }, &p));
    assert_ok(qn_plan_set(p, f->row, v, sizeof v));
    assert_ok(qn_plan_run(p));
    assert_ok(qn_plan_get(p, y, out, count * 4));
    qn_plan_destroy(&p);
    qn_graph_destroy(&f->g);
}

// Sums of `rows` equal terms; a sequential f32 sum of n terms is within n u of exact at worst, and
// blocks of a few hundred rows bound n.
static void check_columns(const fixture *f, const float *got, const double *one_row)
{
    for (int i = 0; i < WIDTH; i++) {
        double expected = one_row[i] * (double)f->rows;
        assert_true(fabs((double)got[i] - expected) <= 2048 * 0x1p-24 * fabs(expected) + 1e-30);
    }
}

static void elementwise(void **state)
{
    (void)state;
    fixture f;
    float got[WIDTH];
    double one[WIDTH];
    open_fixture(&f);
    const qn_tensor *y = qn_add(f.g, qn_scale(f.g, f.big, 2, 0), f.row);
    run(&f, qn_sum_rows(f.g, qn_mul(f.g, y, f.big)), got, WIDTH);
    for (int i = 0; i < WIDTH; i++) one[i] = 3 * f.v[i] * f.v[i];
    check_columns(&f, got, one);
}

static void halves(void **state)
{
    (void)state;
    fixture f;
    float got[WIDTH];
    open_fixture(&f);
    const qn_tensor *y = qn_cast(f.g, qn_cast(f.g, f.big, QN_BF16), QN_F32);
    run(&f, qn_sum_rows(f.g, y), got, WIDTH);
    check_columns(&f, got, f.v); // sixteenths up to 50 / 16 fit bf16
}

static void all(void **state)
{
    (void)state;
    fixture f;
    float got;
    double one = 0, mag = 0;
    open_fixture(&f);
    run(&f, qn_sum_all(f.g, f.big), &got, 1);
    for (int i = 0; i < WIDTH; i++) {
        one += f.v[i];
        mag += fabs(f.v[i]);
    }
    assert_true(fabs((double)got - one * (double)f.rows) <= 1024 * 0x1p-24 * mag * (double)f.rows);
    open_fixture(&f);
    run(&f, qn_sum_squares(f.g, f.big), &got, 1);
    one = 0;
    for (int i = 0; i < WIDTH; i++) one += f.v[i] * f.v[i];
    assert_true(fabs((double)got - one * (double)f.rows) <= 1024 * 0x1p-24 * one * (double)f.rows);
}

static void normed_rows(void **state)
{
    (void)state;
    fixture f;
    float got[WIDTH];
    double one[WIDTH], square = 0, sum = 0;
    open_fixture(&f);
    run(&f, qn_sum_rows(f.g, qn_unit_norm(f.g, f.big, 1e-6f)), got, WIDTH);
    for (int i = 0; i < WIDTH; i++) square += f.v[i] * f.v[i];
    for (int i = 0; i < WIDTH; i++) one[i] = f.v[i] / sqrt(square);
    check_columns(&f, got, one);
    open_fixture(&f);
    run(&f, qn_sum_rows(f.g, qn_softmax(f.g, f.big)), got, WIDTH);
    for (int i = 0; i < WIDTH; i++) sum += exp(f.v[i]);
    for (int i = 0; i < WIDTH; i++) one[i] = exp(f.v[i]) / sum;
    check_columns(&f, got, one);
}

static void reduced_rows(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f);
    int32_t *at = test_malloc((size_t)f.rows * sizeof *at);
    int32_t expected = 0;
    for (int i = 1; i < WIDTH; i++)
        if (f.v[i] > f.v[expected]) expected = i;
    run(&f, qn_argmax(f.g, f.big), at, (size_t)f.rows);
    for (int64_t r = 0; r < f.rows; r++) assert_int_equal(at[r], expected);
    test_free(at);
}

// The gradient of a loss over a large matrix, every label the same.
static void loss(void **state)
{
    (void)state;
    fixture f;
    float got[WIDTH];
    double one[WIDTH], sum = 0;
    enum { LABEL = 5 };
    open_fixture(&f);
    const qn_tensor *grad;
    int32_t *labels = test_malloc((size_t)f.rows * sizeof *labels);
    for (int64_t r = 0; r < f.rows; r++) labels[r] = LABEL;
    const qn_tensor *label = qn_constant(f.g, "labels", QN_I32, QN_SHAPE(f.rows), labels);
    test_free(labels);
    qn_wants_grad(f.row);
    const qn_tensor *big = qn_add(f.g, qn_scale(f.g, f.big, 0, 0), f.row);
    assert_ok(qn_backward(f.g, qn_cross_entropy(f.g, big, label, NULL), NULL, &f.row, 1, &grad));
    run(&f, grad, got, WIDTH);
    for (int i = 0; i < WIDTH; i++) sum += exp(f.v[i]);
    for (int i = 0; i < WIDTH; i++) one[i] = (exp(f.v[i]) / sum - (i == LABEL)) / (double)f.rows;
    check_columns(&f, got, one);
}

// Rows looked up in a table of several windows, and their gradient.
static void table(void **state)
{
    (void)state;
    fixture f;
    float got[WIDTH];
    double one[WIDTH];
    open_fixture(&f);
    int32_t ids[7] = { (int32_t)f.rows - 1, 0, -1, (int32_t)f.rows, 64, (int32_t)f.rows / 2, 64 };
    const qn_tensor *id = qn_constant(f.g, "ids", QN_I32, QN_SHAPE(7), ids);
    run(&f, qn_sum_rows(f.g, qn_embedding(f.g, f.big, id)), got, WIDTH);
    for (int i = 0; i < WIDTH; i++) one[i] = 5 * f.v[i] / (double)f.rows; // five of the ids exist
    check_columns(&f, got, one);

    open_fixture(&f);
    id = qn_constant(f.g, "ids", QN_I32, QN_SHAPE(7), ids);
    const qn_tensor *dy = QN_OP1(f.g, &qn_op_repeat, &QN_SHAPE(7, WIDTH), f.row);
    qn_sorted sorted = qn_counting_sort(f.g, id, (int)f.rows);
    const qn_tensor *grad =
        QN_OP1(f.g, &qn_op_embedding_grad, NULL, dy, id, sorted.order, sorted.offsets);
    run(&f, qn_sum_rows(f.g, grad), got, WIDTH);
    check_columns(&f, got, one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise), cmocka_unit_test(halves),       cmocka_unit_test(all),
        cmocka_unit_test(normed_rows), cmocka_unit_test(reduced_rows), cmocka_unit_test(loss),
        cmocka_unit_test(table),
    };
    qn_device_or_skip();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + qn_device_finish();
}
