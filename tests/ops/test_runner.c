// The runner's own proof: operations and tables that are wrong in one way each must be caught, and
// the message must say how. Right ones must pass.
#include "device.h"
#include "op.h"
#include "run_impl.h"

#include "args.h"
#include "args/copy_words.h"
#include "args/fill_index.h"

#include <math.h>
#include <string.h>

static qn_context *ctx;
static qn_device *devs[2];
static size_t dev_count;

// ------------------------------------------------------------------- judgement, without a device

typedef struct verdict {
    qn_check_case report;
    run_job j;
} verdict;

static const char *judge(verdict *v, qn_dtype dtype, const void *bytes, const qn_ref *ref)
{
    *v = (verdict){ .j = { .form = "test" } };
    v->j.report = &v->report;
    run_judge_tensor(&v->j, "out0", dtype, bytes, ref);
    return v->report.failure;
}

static void f32_tolerance_follows_terms_and_magnitude(void **state)
{
    (void)state;
    verdict v;
    double value = 1, mag = 0;
    qn_ref ref = { .count = 1, .v = &value, .mag = &mag, .terms = 16 };
    float got = 1 + 8 * 0x1p-24f; // (4 + sqrt(16)) u, exactly
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
    assert_true(v.report.units > 0.99 && v.report.units <= 1);
    got = 1 + 10 * 0x1p-24f;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "out0[0]"));
    ref.slack = 2;
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
    ref.slack = 0;
    mag = 2;
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
    assert_true(v.report.units > 0.62 && v.report.units < 0.63); // 10 of 16
}

static void nothing_but_numbers_passes_for_numbers(void **state)
{
    (void)state;
    verdict v;
    double value = 3, mag = 0;
    qn_ref ref = { .count = 1, .v = &value, .mag = &mag, .terms = 1 };
    float got = NAN;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "NaN"));
    got = INFINITY;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "out0[0]"));
    value = 1e300; // more than f32 holds
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
    got = 3;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "out0[0]"));
    value = NAN;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "out0[0]"));
    got = NAN;
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
    value = 0;
    got = 1e-30f;
    assert_non_null(strstr(judge(&v, QN_F32, &got, &ref), "out0[0]"));
    got = 1e-39f; // a driver may flush it: so may we
    assert_string_equal(judge(&v, QN_F32, &got, &ref), "");
}

static void integers_match_exactly(void **state)
{
    (void)state;
    verdict v;
    double value = 16777217, mag = 1e9;
    qn_ref ref = { .count = 1, .v = &value, .mag = &mag, .terms = 1000 };
    int32_t got = 16777217;
    assert_string_equal(judge(&v, QN_I32, &got, &ref), "");
    got++;
    assert_non_null(strstr(judge(&v, QN_I32, &got, &ref), "16777218"));
}

// For each finite 16-bit value: itself is right, both neighbours are wrong.
static void sixteen_bits_have_one_right_value(void **state)
{
    (void)state;
    static const qn_dtype types[] = { QN_F16, QN_BF16 };
    for (int t = 0; t < 2; t++) {
        for (uint32_t w = 0; w < 0x10000; w++) {
            uint16_t word = (uint16_t)w, back;
            double value, mag = 0;
            run_decode(types[t], &word, &value, 1);
            if (!isfinite(value)) continue;
            double copy = value;
            run_encode(types[t], &copy, &back, 1);
            assert_int_equal(back, word);
            assert_true(copy == value);
            qn_ref ref = { .count = 1, .v = &value, .mag = &mag, .terms = 1 };
            verdict v;
            assert_string_equal(judge(&v, types[t], &word, &ref), "");
            // Where neighbours are nearer than the least normal f32 they are not told apart.
            if (fabs(value) < 0x1p-115 && types[t] == QN_BF16) continue;
            uint16_t next = (uint16_t)(word + 1), last = (uint16_t)(word - 1);
            if ((next & 0x7fff) != 0) assert_true(judge(&v, types[t], &next, &ref)[0] != 0);
            if ((word & 0x7fff) != 0) assert_true(judge(&v, types[t], &last, &ref)[0] != 0);
        }
    }
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    run_format f16 = run_format_of(QN_F16), bf16 = run_format_of(QN_BF16);
    assert_true(run_round(f16, 2049) == 2048);
    assert_true(run_round(f16, 2051) == 2052);
    assert_true(run_round(f16, 65519) == 65504);
    assert_true(isinf(run_round(f16, 65520)));
    assert_true(run_round(f16, 0x1p-25) == 0);
    assert_true(run_round(f16, 0x1.8p-25) == 0x1p-24);
    assert_true(run_round(bf16, 257) == 256);
    assert_true(run_round(bf16, -259) == -260);
    for (uint64_t i = 0; i < 1000; i++) {
        double x = ldexp(run_normal(1, i), (int)(i % 300) - 150);
        assert_true(run_round(run_format_of(QN_F32), x) == (double)(float)x);
    }
}

static void inputs_repeat_and_differ_by_name(void **state)
{
    (void)state;
    qn_case c = {
        .name = "one",
        .inputs = 3,
        .in = {
            { .name = "a", .shape = QN_SHAPE(40, 25) },
            { .name = "b", .shape = QN_SHAPE(40, 25), .gen = QN_GEN_DISTINCT, .lo = -2, .hi = 3 },
            { .name = "c", .shape = QN_SHAPE(1000), .dtype = QN_I32, .gen = QN_GEN_INT, .lo = -1,
              .hi = 1 },
        },
    };
    qn_case other = c;
    other.name = "other";
    run_job x = { .op = "op", .c = &c }, y = x, z = { .op = "op", .c = &other };
    assert_int_equal(run_make_inputs(&x), QN_OK);
    assert_int_equal(run_make_inputs(&y), QN_OK);
    assert_int_equal(run_make_inputs(&z), QN_OK);
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(x.bytes[i], y.bytes[i], x.size[i]);
        assert_memory_not_equal(x.bytes[i], z.bytes[i], x.size[i]);
    }
    double sum = 0, square = 0;
    for (int i = 0; i < 1000; i++) {
        sum += x.in[0].v[i];
        square += x.in[0].v[i] * x.in[0].v[i];
    }
    assert_true(fabs(sum) < 130 && fabs(square - 1000) < 200); // four standard deviations
    for (int row = 0; row < 40; row++) {
        unsigned seen = 0;
        for (int i = 0; i < 25; i++)
            seen |= 1u << (int)lround((x.in[1].v[row * 25 + i] + 2) * 5);
        assert_int_equal(seen, (1u << 25) - 1);
    }
    int counts[3] = { 0 };
    for (int i = 0; i < 1000; i++) counts[(int)x.in[2].v[i] + 1]++;
    for (int k = 0; k < 3; k++) assert_true(counts[k] > 270 && counts[k] < 400);
    qn_arena_free(&x.arena);
    qn_arena_free(&y.arena);
    qn_arena_free(&z.arena);
}

// --------------------------------------------------------------------------- fake operations

typedef enum fault {
    NO_FAULT = 0,
    UNFINISHED,   // leaves the last element unwritten
    BEYOND,       // writes one element too many
    OVER_INPUT,   // writes into its input
    ONE_FORM,     // is wrong on tiled devices only
    REMEMBERS,    // its result is what the run before left in `memory`
    TOO_MANY_OUT, // more outputs than there may be
} fault;

static qn_buffer *memory; // what REMEMBERS keeps, on devs[0]

// y[i] = 7 + i, as integers; x is not read.
static qn_result index_infer(const qn_node *n, const qn_device_info *dev, qn_shape *shape,
                             qn_dtype *dtype)
{
    (void)dev;
    shape[0] = n->in[0]->shape;
    dtype[0] = QN_I32;
    return QN_OK;
}

static qn_result fill_with(qn_recorder *r, qn_range to, uint32_t count, uint32_t start)
{
    fill_index_args args = { .count = count, .start = start };
    qn_dispatch d = {
        .kernel = QN_K_fill_index,
        .buffers = { to },
        .args = &args,
        .args_size = sizeof args,
        .groups = { qn_div_up(count, 64), 1, 1 },
    };
    return qn_record(r, &d);
}

static qn_result copy_from_memory(qn_recorder *r, qn_range to, uint32_t count)
{
    copy_words_args args = { .count = count };
    qn_dispatch d = {
        .kernel = QN_K_copy_words,
        .buffers = { { .buffer = memory }, to },
        .args = &args,
        .args_size = sizeof args,
        .groups = { qn_div_up(count, 4), 1, 1 },
    };
    return qn_record(r, &d);
}

static qn_result index_record(qn_recorder *r, const qn_node *n)
{
    fault f = *(const fault *)n->attrs;
    uint32_t count = (uint32_t)qn_shape_count(n->out[0]->shape), start = 7;
    qn_range to = qn_at(r, n->out[0]);
    if (f == UNFINISHED) count--;
    if (f == BEYOND) {
        count++;
        to.size += QN_RANGE_ALIGN;
    }
    if (f == OVER_INPUT) QN_TRY(fill_with(r, qn_at(r, n->in[0]), 1, 0));
    if (f == ONE_FORM && qn_recorder_device(r)->kernel_class == QN_CLASS_TILED) start++;
    if (f == REMEMBERS && qn_recorder_device(r) == qn_device_describe(devs[0])) {
        QN_TRY(copy_from_memory(r, to, count));
        return fill_with(r, (qn_range){ .buffer = memory }, count, 8);
    }
    return fill_with(r, to, count, start);
}

static const qn_op_def index_op = {
    .name = "index",
    .inputs = 1,
    .outputs = 1,
    .attrs_size = sizeof(fault),
    .infer = index_infer,
    .record = index_record,
};

static int build_index(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                       const qn_tensor **out)
{
    fault f = *(const fault *)c->params;
    out[0] = QN_OP1(g, &index_op, &f, in[0]);
    return f == TOO_MANY_OUT ? QN_CASE_OUTPUTS + 1 : 1;
}

static void ref_index(const qn_case *c, qn_ref *in, qn_ref *out)
{
    (void)c;
    (void)in;
    for (int64_t i = 0; i < out->count; i++) out->v[i] = 7 + (double)i;
}

// Runs one case; its failure, or "" where it passed.
static const char *failure_of(const qn_case *c)
{
    static char text[sizeof((qn_check_case *)NULL)->failure];
    if (!dev_count) skip();
    qn_op_test test = { .cases = c, .case_count = 1 };
    qn_check_op report;
    qn_result r = qn_run_op("fake", &test, devs, dev_count, NULL, &report);
    if (r != QN_OK) fail_msg("%s: %s", qn_result_name(r), qn_error_message());
    assert_int_equal(report.count, 1);
    assert_int_equal(report.failed, report.cases[0].failure[0] != 0);
    snprintf(text, sizeof text, "%s", report.cases[0].failure);
    qn_free(report.cases);
    return text;
}

static void expect(const char *failure, const char *fragment)
{
    if (!fragment ? failure[0] != 0 : !strstr(failure, fragment))
        fail_msg("\"%s\", expected \"%s\"", failure, fragment ? fragment : "");
}

static const char *index_failure(fault f)
{
    qn_case c = {
        .name = "index",
        .inputs = 1,
        .in = { { .name = "x", .shape = QN_SHAPE(3, 50) } },
        .params = &f,
        .build = build_index,
        .ref = ref_index,
    };
    return failure_of(&c);
}

static void a_right_operation_passes(void **state)
{
    (void)state;
    expect(index_failure(NO_FAULT), NULL);
}

static void an_unwritten_element_is_caught(void **state)
{
    (void)state;
    expect(index_failure(UNFINISHED), "out0[149]");
}

static void a_write_behind_the_output_is_caught(void **state)
{
    (void)state;
    expect(index_failure(BEYOND), "behind its tensor");
}

static void a_changed_input_is_caught(void **state)
{
    (void)state;
    expect(index_failure(OVER_INPUT), "input x was changed");
}

static void an_error_in_one_form_is_caught(void **state)
{
    (void)state;
    expect(index_failure(ONE_FORM), "portable: out0[0] = 8, expected 7");
}

static void a_result_that_changes_from_run_to_run_is_caught(void **state)
{
    (void)state;
    if (!dev_count) skip();
    int32_t first[150];
    for (int i = 0; i < 150; i++) first[i] = 7 + i;
    qn_buffer_opts opts = { .size = sizeof first, .name = "memory" };
    assert_int_equal(qn_buffer_create(devs[0], &opts, &memory), QN_OK);
    assert_int_equal(qn_buffer_write(memory, 0, first, sizeof first), QN_OK);
    expect(index_failure(REMEMBERS), "forward: second run: out0[0] is 8, not 7");
    qn_buffer_destroy(&memory);
}

static void too_many_outputs_are_caught(void **state)
{
    (void)state;
    expect(index_failure(TOO_MANY_OUT), "has 7 outputs");
}

// Operations made from qn_scale() by replacing a part of its definition.
typedef struct changed {
    qn_result (*backward)(qn_graph *, const qn_node *, const qn_tensor *const *, const bool *,
                          const qn_tensor **);
    qn_result (*record)(qn_recorder *, const qn_node *);
    uint32_t inplace;
    double ref_error; // the reference is 2x times 1 + this
    double jump;      // added to the reference right of 0
} changed;

static qn_op_def scale_op; // the definition in use
static qn_result (*scale_record)(qn_recorder *, const qn_node *);

static int build_scale(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                       const qn_tensor **out)
{
    const changed *how = c->params;
    out[0] = qn_scale(g, in[0], 2, 0);
    if (!out[0] || (!how->backward && !how->record)) return 1;
    const qn_node *n = qn_tensor_node(out[0]);
    scale_op = *n->op;
    scale_record = scale_op.record;
    scale_op.inplace = how->inplace;
    if (how->backward) scale_op.backward = how->backward;
    if (how->record) scale_op.record = how->record;
    out[0] = qn_op(g, &scale_op, n->attrs, n->in, NULL);
    return 1;
}

static void ref_scale(const qn_case *c, qn_ref *in, qn_ref *out)
{
    const changed *how = c->params;
    for (int64_t i = 0; i < out->count; i++) {
        double x = in->v[i];
        out->v[i] = 2 * x * (1 + how->ref_error) + (x > 0 ? how->jump : 0);
        if (how->jump > 0) out->mag[i] = 1;
    }
}

static void zero_fill(qn_ref *t)
{
    for (int64_t i = 0; i < t->count; i++) t->v[i] = 0;
}

static const char *scale_failure(const changed *how, qn_shape shape)
{
    qn_case c = {
        .name = "scale",
        .inputs = 1,
        .in = { { .name = "x", .shape = shape, .grad = true } },
        .params = how,
        .build = build_scale,
        .ref = ref_scale,
    };
    if (how->jump > 0) {
        c.in[0].gen = QN_GEN_CUSTOM;
        c.in[0].fill = zero_fill;
    }
    return failure_of(&c);
}

static void right_values_and_gradients_pass(void **state)
{
    (void)state;
    expect(scale_failure(&(changed){ 0 }, QN_SHAPE(3, 7)), NULL);
    expect(scale_failure(&(changed){ 0 }, QN_SCALAR), NULL);
    expect(scale_failure(&(changed){ 0 }, QN_SHAPE(1000)), NULL);
}

static void a_wrong_reference_is_caught(void **state)
{
    (void)state;
    expect(scale_failure(&(changed){ .ref_error = 1e-6 }, QN_SHAPE(100)), "out0[0]");
}

static const qn_tensor *twice(qn_graph *g, const qn_tensor *x)
{
    return qn_scale(g, x, 2, 0);
}

// Right but for a relative error of 1e-4 in one element.
static qn_result backward_one_element(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                      const bool *want, const qn_tensor **gin)
{
    (void)want;
    int64_t count = qn_shape_count(n->in[0]->shape);
    float *factor = qn_malloc((size_t)count * sizeof *factor);
    if (!factor) return qn_no_memory((size_t)count * sizeof *factor);
    for (int64_t i = 0; i < count; i++) factor[i] = i == count / 2 ? 1.0001f : 1;
    const qn_tensor *f = qn_constant(g, "factor", QN_F32, n->in[0]->shape, factor);
    qn_free(factor);
    gin[0] = qn_mul(g, twice(g, gout[0]), f);
    return QN_OK;
}

static qn_result backward_negative(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                   const bool *want, const qn_tensor **gin)
{
    (void)n;
    (void)want;
    gin[0] = qn_scale(g, gout[0], -2, 0);
    return QN_OK;
}

static qn_result backward_nothing(qn_graph *g, const qn_node *n, const qn_tensor *const *gout,
                                  const bool *want, const qn_tensor **gin)
{
    (void)g;
    (void)n;
    (void)gout;
    (void)want;
    (void)gin;
    return QN_OK;
}

static void a_wrong_gradient_is_caught(void **state)
{
    (void)state;
    changed negative = { .backward = backward_negative };
    expect(scale_failure(&negative, QN_SHAPE(5)), "grad x[0]");
    expect(scale_failure(&negative, QN_SHAPE(300)), "grad x along[0]");
    changed nothing = { .backward = backward_nothing };
    expect(scale_failure(&nothing, QN_SHAPE(300)), "grad x along[0] = 0");
}

static void a_slightly_wrong_gradient_element_is_caught(void **state)
{
    (void)state;
    changed how = { .backward = backward_one_element };
    expect(scale_failure(&how, QN_SHAPE(64)), "grad x[32]");
    expect(scale_failure(&how, QN_SHAPE(65)), "grad x along");
}

static void a_jump_of_the_reference_is_named(void **state)
{
    (void)state;
    changed how = { .jump = 1e-7 };
    expect(scale_failure(&how, QN_SHAPE(9)), "not smooth");
}

// Right unless the output lies over the input.
static qn_result record_fill_first(qn_recorder *r, const qn_node *n)
{
    uint32_t count = (uint32_t)qn_shape_count(n->out[0]->shape);
    QN_TRY(fill_with(r, qn_at(r, n->out[0]), count, 0));
    return scale_record(r, n);
}

static void an_operation_that_cannot_work_in_place_is_caught(void **state)
{
    (void)state;
    changed how = { .record = record_fill_first };
    expect(scale_failure(&how, QN_SHAPE(4, 33)), NULL);
    how.inplace = 1;
    expect(scale_failure(&how, QN_SHAPE(4, 33)), "in place or not: out0[");
}

// --------------------------------------------------------------------------------- stores

// y = x assigned to a stored p; `params` says by how much the reference of p is wrong.
static int build_assign(qn_graph *g, const qn_case *c, const qn_tensor *const *in,
                        const qn_tensor **out)
{
    (void)c;
    out[0] = qn_assign(g, in[0], in[1]);
    return 1;
}

static void ref_assign(const qn_case *c, qn_ref *in, qn_ref *out)
{
    for (int64_t i = 0; i < out->count; i++) {
        out->v[i] = in[1].v[i];
        in[0].v[i] = in[1].v[i] + *(const double *)c->params;
    }
}

static const char *assign_failure(double error)
{
    qn_case c = {
        .name = "assign",
        .inputs = 2,
        .in = {
            { .name = "p", .shape = QN_SHAPE(70), .stored = true },
            { .name = "x", .shape = QN_SHAPE(70) },
        },
        .params = &error,
        .build = build_assign,
        .ref = ref_assign,
    };
    return failure_of(&c);
}

static void stored_values_are_compared(void **state)
{
    (void)state;
    expect(assign_failure(0), NULL);
    expect(assign_failure(0.5), "stored p[0]");
}

// ------------------------------------------------------------------------------- refusals

static void build_accepted(qn_graph *g)
{
    qn_scale(g, qn_input(g, "x", QN_F32, QN_SHAPE(3)), 2, 0);
}

static void build_refused(qn_graph *g)
{
    qn_add(g, qn_input(g, "x", QN_F32, QN_SHAPE(3)), qn_input(g, "y", QN_F32, QN_SHAPE(4)));
}

static void expect_refusal(void (*build)(qn_graph *), qn_result code, const char *message,
                           const char *fragment)
{
    qn_refusal refusal = { .name = "a", .code = code, .message = message, .build = build };
    qn_op_test test = { .refusals = &refusal, .refusal_count = 1 };
    qn_check_op report;
    assert_int_equal(qn_run_op("fake", &test, devs, dev_count, NULL, &report), QN_OK);
    assert_int_equal(report.count, 1);
    assert_string_equal(report.cases[0].name, "refuses a");
    expect(report.cases[0].failure, fragment);
    qn_free(report.cases);
}

static void refusals_must_match(void **state)
{
    (void)state;
    if (!dev_count) skip();
    expect_refusal(build_refused, QN_ERR_INVALID, "[4]", NULL);
    expect_refusal(build_refused, QN_ERR_INVALID, "no such words", "does not mention");
    expect_refusal(build_refused, QN_ERR_UNSUPPORTED, "[4]", "QN_ERR_INVALID");
    expect_refusal(build_accepted, QN_ERR_INVALID, "[3]", "accepted");
}

static void a_filter_chooses_cases(void **state)
{
    (void)state;
    if (!dev_count) skip();
    fault f = NO_FAULT;
    qn_case cases[] = {
        { .name = "index_3", .inputs = 1, .in = { { .name = "x", .shape = QN_SHAPE(3) } },
          .params = &f, .build = build_index, .ref = ref_index },
        { .name = "index_4", .inputs = 1, .in = { { .name = "x", .shape = QN_SHAPE(4) } },
          .params = &f, .build = build_index, .ref = ref_index },
    };
    qn_op_test test = { .cases = cases, .case_count = 2 };
    qn_check_op report;
    assert_int_equal(qn_run_op("fake", &test, devs, dev_count, "_4", &report), QN_OK);
    assert_int_equal(report.count, 1);
    assert_string_equal(report.cases[0].name, "index_4");
    qn_free(report.cases);
}

// Without a device the tests of judgement still run.
static void open_devices(void)
{
    qn_device_opts opts = { .cache_dir = "" };
    if (qn_context_create(NULL, &ctx) != QN_OK || qn_device_create(ctx, &opts, &devs[0]) != QN_OK) {
        fprintf(stderr, "no device: %s\n", qn_error_message());
        return;
    }
    dev_count = 1;
    qn_keep_drivers();
    opts.hide = QN_CAP_SUBGROUP | QN_CAP_TEXEL;
    if (qn_device_describe(devs[0])->kernel_class == QN_CLASS_FLAT &&
        qn_device_create(ctx, &opts, &devs[1]) == QN_OK)
        dev_count = 2;
}

int main(void)
{
    open_devices();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_tolerance_follows_terms_and_magnitude),
        cmocka_unit_test(nothing_but_numbers_passes_for_numbers),
        cmocka_unit_test(integers_match_exactly),
        cmocka_unit_test(sixteen_bits_have_one_right_value),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(inputs_repeat_and_differ_by_name),
        cmocka_unit_test(a_right_operation_passes),
        cmocka_unit_test(an_unwritten_element_is_caught),
        cmocka_unit_test(a_write_behind_the_output_is_caught),
        cmocka_unit_test(a_changed_input_is_caught),
        cmocka_unit_test(an_error_in_one_form_is_caught),
        cmocka_unit_test(a_result_that_changes_from_run_to_run_is_caught),
        cmocka_unit_test(too_many_outputs_are_caught),
        cmocka_unit_test(right_values_and_gradients_pass),
        cmocka_unit_test(a_wrong_reference_is_caught),
        cmocka_unit_test(a_wrong_gradient_is_caught),
        cmocka_unit_test(a_slightly_wrong_gradient_element_is_caught),
        cmocka_unit_test(a_jump_of_the_reference_is_named),
        cmocka_unit_test(an_operation_that_cannot_work_in_place_is_caught),
        cmocka_unit_test(stored_values_are_compared),
        cmocka_unit_test(refusals_must_match),
        cmocka_unit_test(a_filter_chooses_cases),
    };
    int failed = cmocka_run_group_tests_name("runner", tests, NULL, NULL);
    for (size_t i = dev_count; i-- > 0;) qn_device_destroy(&devs[i]);
    qn_context_destroy(&ctx);
    return failed;
}
