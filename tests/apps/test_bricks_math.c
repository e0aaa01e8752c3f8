// Scores, groups, alignment and factors of bricks against small cases worked out by hand, by search
// and by an independent implementation.
#include "bricks/align.h"
#include "bricks/factor.h"
#include "bricks/golden_analysis.h"
#include "bricks/groups.h"
#include "bricks/score.h"
#include "random.h"
#include "scratch.h"

#include <math.h>

#define GOLDEN QN_SOURCE_DIR "/tests/golden/bricks"

// ------------------------------------------------------------------------------ golden

typedef struct seen {
    int lines, failed;
    char failure[768];
} seen;

static void note(void *user, const qn_golden_line *l)
{
    seen *s = user;
    s->lines++;
    if (l->passed) return;
    s->failed++;
    snprintf(s->failure, sizeof s->failure, "%s: %g of the tolerance in %s; %s", l->name, l->error,
             l->tensor, l->detail);
}

static seen replay(const char *dir)
{
    seen s = { 0 };
    qn_golden_report report = { .line = note, .user = &s };
    qn_golden_bricks(dir, &report);
    assert_int_equal(report.passed + report.failed, s.lines);
    return s;
}

static void test_golden(void **state)
{
    (void)state;
    seen s = replay(GOLDEN);
    if (s.failed) fail_msg("%s", s.failure);
    assert_int_equal(s.lines, 8);
}

static void copy_folder(void)
{
    char **names, path[1024];
    size_t count;
    assert_ok(qn_remove_tree(scratch("case")));
    assert_ok(qn_make_dirs(scratch("case")));
    assert_ok(qn_list_dir(GOLDEN, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char *data;
        size_t size;
        snprintf(path, sizeof path, GOLDEN "/%s", names[i]);
        assert_ok(qn_read_file(path, 1 << 20, &data, &size));
        snprintf(path, sizeof path, "case/%s", names[i]);
        scratch_write(path, data, size);
        qn_free(data);
    }
    qn_free_names(names, count);
}

// Changes the middle element of a tensor.
static void change(const char *file, const char *tensor)
{
    char name[64];
    snprintf(name, sizeof name, "case/%s", file);
    qn_safetensors *f;
    assert_ok(qn_safetensors_open(scratch(name), &f));
    const qn_safetensor *t = qn_safetensors_find(f, tensor);
    if (!t) fail_msg("%s is not in %s", tensor, file);
    char *data;
    size_t size, wide = t->size / t->count;
    scratch_read(name, &data, &size);
    char *found = memmem(data, size, t->data, t->size);
    assert_non_null(found);
    char *at = found + t->count / 2 * wide;
    float x;
    if (t->dtype == QN_ST_F32) {
        memcpy(&x, at, sizeof x);
        x += 0.01f;
        memcpy(at, &x, sizeof x);
    } else {
        *at = (char)(*at ^ 1);
    }
    qn_safetensors_close(&f);
    scratch_write(name, data, size);
    qn_free(data);
}

static void test_changed_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *file, *tensor;
    } rows[] = {
        { "analysis.safetensors", "out.instance_mean" }, { "analysis.safetensors", "out.score" },
        { "analysis.safetensors", "out.mask_activation" },
        { "analysis.safetensors", "out.mask_magnitude" }, { "analysis.safetensors", "out.top" },
        { "analysis.safetensors", "out.overlap" }, { "planted.safetensors", "labels" },
        { "lowrank.safetensors", "out.expert_score" }, { "lowrank.safetensors", "out.coactivation" },
        { "experts.safetensors", "out.perm_1_to_0" }, { "experts.safetensors", "out.w_in_align0" },
        { "experts.safetensors", "out.w_out_align1" }, { "experts.safetensors", "out.cluster" },
        { "lora.safetensors", "out.applied" }, { "lora.safetensors", "out.applied_rs" },
        { "lora.safetensors", "out.extract_product" }, { "gate.safetensors", "out.gate" },
        { "streams.safetensors", "out.u1" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_folder();
        change(rows[i].file, rows[i].tensor);
        seen s = replay(scratch("case"));
        if (s.lines != 8 || s.failed != 1)
            fail_msg("%d of %d fail with a changed %s: %s", s.failed, s.lines, rows[i].tensor,
                     s.failure);
    }
    copy_folder();
    assert_int_equal(remove(scratch("case/lora.safetensors")), 0);
    seen s = replay(scratch("case"));
    assert_int_equal(s.failed, 1);
    assert_non_null(strstr(s.failure, "lora.safetensors"));
    scratch_write_text("case/bricks.json", "{\"lora\": {\"file\": 3}}");
    s = replay(scratch("case"));
    assert_int_equal(s.failed, 1);
}

// ------------------------------------------------------------------------------ by hand

static void test_precision(void **state)
{
    (void)state;
    static const struct {
        float score[5];
        uint8_t label[5];
        double want;
    } rows[] = {
        { { 5, 4, 3, 2, 1 }, { 1, 1, 0, 0, 0 }, 1 },
        { { 5, 4, 3, 2, 1 }, { 0, 0, 0, 1, 1 }, (0.25 + 0.4) / 2 },
        { { 1, 1, 1, 1, 1 }, { 0, 1, 0, 1, 0 }, 0.4 }, // constant: the share of positives
        { { 2, 2, 1, 1, 0 }, { 1, 0, 0, 1, 0 }, 0.5 },
    };
    double got;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_ok(qn_score_precision(rows[i].score, 1, rows[i].label, 1, 5, &got));
        assert_true(fabs(got - rows[i].want) < 1e-15);
    }
    assert_ok(qn_score_precision(rows[0].score, 1, (uint8_t[5]){ 0 }, 1, 5, &got));
    assert_true(isnan(got));
}

// The assignment against all permutations.
static double best_of(const double *s, int n, int row, unsigned taken)
{
    if (row == n) return 0;
    double best = -INFINITY;
    for (int k = 0; k < n; k++) {
        if (taken >> k & 1) continue;
        double own = s[row * n + k] + best_of(s, n, row + 1, taken | 1u << k);
        if (own > best) best = own;
    }
    return best;
}

static void test_assignment(void **state)
{
    (void)state;
    qn_random rng = qn_random_start(5, 0);
    for (int n = 1; n <= 7; n++)
        for (int round = 0; round < 20; round++) {
            double s[49], sum = 0;
            int32_t p[7];
            unsigned taken = 0;
            for (int i = 0; i < n * n; i++)
                s[i] = round % 2 ? (double)qn_random_below(&rng, 3) : qn_random_normal(&rng);
            assert_ok(qn_align_assign(s, (size_t)n, p));
            for (int i = 0; i < n; i++) {
                sum += s[i * n + p[i]];
                taken |= 1u << p[i];
            }
            assert_int_equal(taken, (1u << n) - 1);
            assert_true(fabs(sum - best_of(s, n, 0, 0)) < 1e-9);
        }
    assert_fails(qn_align_assign(&(double){ NAN }, 1, (int32_t[1]){ 0 }), QN_ERR_INVALID,
                 "not a number");
}

// Copies of one expert with their units dealt anew merge into that expert.
static void test_merged_copies(void **state)
{
    (void)state;
    enum { D = 6, H = 9, COPIES = 3 };
    float in[COPIES][D * H], out[COPIES][D * H], got_in[D * H], got_out[D * H];
    qn_random rng = qn_random_start(6, 0);
    for (int i = 0; i < D * H; i++) in[0][i] = (float)qn_random_normal(&rng);
    for (int i = 0; i < D * H; i++) out[0][i] = (float)qn_random_normal(&rng);
    for (int c = 1; c < COPIES; c++)
        for (int u = 0; u < H; u++)
            for (int k = 0; k < D; k++) {
                int to = (u * 4 + c) % H; // 4 and 9 have no common divisor
                in[c][k * H + to] = in[0][k * H + u];
                out[c][to * D + k] = out[0][u * D + k];
            }
    qn_expert e[COPIES];
    for (int c = 0; c < COPIES; c++) e[c] = (qn_expert){ in[c], out[c] };
    const double usage[COPIES] = { 0.5, 0.3, 0.2 };
    assert_ok(qn_align_merge(e, usage, usage, COPIES, D, H, true, got_in, got_out));
    for (int i = 0; i < D * H; i++) {
        assert_true(fabsf(got_in[i] - in[0][i]) <= 1e-6f);
        assert_true(fabsf(got_out[i] - out[0][i]) <= 1e-6f);
    }
    assert_ok(qn_align_merge(e, usage, usage, COPIES, D, H, false, got_in, got_out));
    double off = 0;
    for (int i = 0; i < D * H; i++) off += fabs((double)(got_in[i] - in[0][i]));
    assert_true(off > 1);
}

static void test_clusters(void **state)
{
    (void)state;
    static const double dist[25] = {
        0, 9, 1, 8, 5, //
        9, 0, 9, 2, 6, //
        1, 9, 0, 9, 5, //
        8, 2, 9, 0, 6, //
        5, 6, 5, 6, 0,
    };
    static const struct {
        size_t groups;
        int32_t want[5];
    } rows[] = {
        { 5, { 0, 1, 2, 3, 4 } },
        { 4, { 0, 1, 0, 2, 3 } },
        { 3, { 0, 1, 0, 1, 2 } },
        { 2, { 0, 1, 0, 1, 0 } },
        { 1, { 0, 0, 0, 0, 0 } },
    };
    static const double usage[5] = { 0.1, 0.3, 0.25, 0.3, 0.05 };
    int32_t got[5];
    for (size_t i = 0; i < 5; i++) {
        assert_ok(qn_align_cluster(dist, 5, rows[i].groups, got));
        assert_memory_equal(got, rows[i].want, sizeof got);
    }
    assert_ok(qn_align_lead(dist, usage, 5, 2, got)); // 1 and 3 lead
    static const int32_t two[5] = { 0, 1, 1, 0, 1 };
    assert_memory_equal(got, two, sizeof got);
    assert_fails(qn_align_cluster(dist, 5, 6, got), QN_ERR_INVALID, "6 groups of 5");
    assert_fails(qn_align_lead(dist, usage, 5, 0, got), QN_ERR_INVALID, "0 groups of 5");
}

static void test_exchange(void **state)
{
    (void)state;
    enum { N = 12, K = 3 };
    double w[N * N] = { 0 };
    int32_t labels[N];
    for (int i = 0; i < N; i++) {
        labels[i] = i / (N / K);
        for (int k = 0; k < N; k++) w[i * N + k] = i != k && i % K == k % K ? 1 : 0;
    }
    assert_true(qn_groups_inside(w, N, labels) < 0.5);
    qn_groups_exchange(w, N, K, labels);
    assert_true(qn_groups_inside(w, N, labels) == 1);
    int32_t perm[N], size[K] = { 0 };
    qn_groups_order(labels, N, K, perm);
    for (int i = 0; i < N; i++) {
        size[labels[i]]++;
        assert_int_equal(labels[perm[i]], i / (N / K));
    }
    for (int k = 0; k < K; k++) assert_int_equal(size[k], N / K);
    double J;
    assert_fails(qn_groups_kmeans(w, N, N, &(qn_groups_opts){ .groups = 5 }, labels, &J),
                 QN_ERR_INVALID, "5 groups do not divide 12 neurons");
}

// u diag(s) vt is the matrix, s descends, factors are orthonormal; tall, wide and of low rank.
static void test_svd(void **state)
{
    (void)state;
    static const size_t shapes[][3] = { { 1, 1, 1 }, { 7, 3, 3 }, { 3, 7, 3 }, { 8, 8, 2 } };
    qn_random rng = qn_random_start(7, 0);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const size_t m = shapes[i][0], n = shapes[i][1], r = shapes[i][2], q = m < n ? m : n;
        double x[64] = { 0 }, u[64], s[8], vt[64], a[64], b[64];
        for (size_t k = 0; k < m * r; k++) a[k] = qn_random_normal(&rng);
        for (size_t k = 0; k < r * n; k++) b[k] = qn_random_normal(&rng);
        for (size_t k = 0; k < m * n * r; k++)
            x[k / r] += a[k / r / n * r + k % r] * b[k % r * n + k / r % n];
        assert_ok(qn_factor_svd(x, m, n, u, s, vt));
        for (size_t k = 1; k < q; k++) assert_true(s[k] <= s[k - 1]);
        for (size_t k = r; k < q; k++) assert_true(s[k] < 1e-12);
        for (size_t k = 0; k < m * n; k++) {
            double sum = 0;
            for (size_t j = 0; j < q; j++) sum += u[k / n * q + j] * s[j] * vt[j * n + k % n];
            assert_true(fabs(sum - x[k]) < 1e-12);
        }
        for (size_t j = 0; j < r; j++) {
            double dot = 0;
            for (size_t k = 0; k < n; k++) dot += vt[j * n + k] * vt[j * n + k];
            assert_true(fabs(dot - 1) < 1e-12);
        }
    }
    float none[1];
    assert_fails(qn_factor_extract(none, 1, 1, 2, none, none), QN_ERR_INVALID, "rank 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),     cmocka_unit_test(test_changed_numbers),
        cmocka_unit_test(test_precision),  cmocka_unit_test(test_assignment),
        cmocka_unit_test(test_merged_copies), cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_exchange),   cmocka_unit_test(test_svd),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
