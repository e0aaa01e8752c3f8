// Which kernel, tile and grid products get; needs no device.
#include "ops/matmul_choose.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static const qn_device_info flat8 = { .kernel_class = QN_CLASS_FLAT, .subgroup_size = 8 };
static const qn_device_info flat16 = { .kernel_class = QN_CLASS_FLAT, .subgroup_size = 16 };
static const qn_device_info tiled = { .kernel_class = QN_CLASS_TILED, .subgroup_size = 32 };

static qn_product product(uint64_t m, uint64_t n, uint64_t k)
{
    return (qn_product){ .batch = 1, .m = m, .n = n, .k = k };
}

static void large_products_get_the_large_tile(void **state)
{
    (void)state;
    qn_product p = product(1024, 512, 256);
    qn_matmul_choice c = qn_matmul_choose(&p, &flat8);
    assert_int_equal(c.kernel, QN_K_matmul_flat);
    assert_int_equal(c.tile, 32);
    assert_int_equal(c.columns, 32);
    assert_true(c.aligned);
    assert_false(c.swapped);
    c = qn_matmul_choose(&p, &flat16);
    assert_int_equal(c.columns, 64);
    c = qn_matmul_choose(&p, &tiled);
    assert_int_equal(c.kernel, QN_K_matmul);
    assert_int_equal(c.tile, 8);
    assert_int_equal(c.rows, 64);
    assert_int_equal(c.group_size, 128);
}

static void tiles_follow_the_rows(void **state)
{
    (void)state;
    static const uint64_t rows[] = { 5, 8, 16, 20, 32, 33, 40, 48, 96 };
    static const uint32_t tile[] = { 8, 8, 16, 32, 32, 16, 16, 16, 32 };
    for (size_t i = 0; i < sizeof tile / sizeof *tile; i++) {
        qn_product p = product(rows[i], 256, 64);
        p.half = true; // never turned round
        assert_int_equal(qn_matmul_choose(&p, &flat8).tile, tile[i]);
    }
    qn_product p = product(20, 256, 64);
    assert_int_equal(qn_matmul_choose(&p, &tiled).tile, 4);
}

static void narrow_products_are_turned_round(void **state)
{
    (void)state;
    qn_product p = product(2048, 16, 256); // a router
    qn_matmul_choice c = qn_matmul_choose(&p, &flat16);
    assert_true(c.swapped);
    assert_int_equal(c.p.m, 16);
    assert_int_equal(c.p.n, 2048);
    assert_int_equal(c.tile, 16);
    // c' = b' a': b is [k, n], so its transpose is given transposed, and a's as [m, k].
    assert_true(c.p.transpose_a);
    assert_true(c.p.transpose_b);
    assert_true(c.p.transpose_c);
    p.bias = true; // which lies along the columns
    assert_false(qn_matmul_choose(&p, &flat16).swapped);
    p.bias = false;
    p.half = true;
    assert_false(qn_matmul_choose(&p, &flat16).swapped);
}

static void few_rows_are_vectors(void **state)
{
    (void)state;
    qn_product p = product(1, 4096, 1024);
    qn_matmul_choice c = qn_matmul_choose(&p, &flat8);
    assert_int_equal(c.kernel, QN_K_matvec_flat);
    assert_int_equal(c.columns, 256);
    assert_int_equal(qn_matmul_choose(&p, &tiled).kernel, QN_K_matvec);
    p.transpose_b = true;
    assert_int_equal(qn_matmul_choose(&p, &flat8).kernel, QN_K_rowvec_flat);
    assert_int_equal(qn_matmul_choose(&p, &tiled).columns, 16);
    p.k = 1020; // no whole blocks
    c = qn_matmul_choose(&p, &flat8);
    assert_int_equal(c.kernel, QN_K_matmul_flat);
    assert_int_equal(c.tile, 1);
    p.m = 3; // tiles are powers of two
    assert_int_equal(qn_matmul_choose(&p, &flat8).tile, 4);
    p.m = 5;
    assert_int_equal(qn_matmul_choose(&p, &tiled).kernel, QN_K_matmul);
}

static void a_single_column_is_a_vector_too(void **state)
{
    (void)state;
    qn_product p = product(4096, 1, 1024);
    qn_matmul_choice c = qn_matmul_choose(&p, &tiled);
    assert_int_equal(c.kernel, QN_K_matvec);
    assert_true(c.swapped);
    assert_int_equal(c.p.m, 1);
    assert_true(c.p.transpose_b);
    assert_true(c.aligned);
    p.bias = true;
    assert_false(qn_matmul_choose(&p, &tiled).swapped);
}

static void rows_of_whole_vec4s_are_aligned(void **state)
{
    (void)state;
    // Which of the dimensions 9 (m), 20 (n) and 32 (k) are contiguous somewhere.
    for (int flags = 0; flags < 4; flags++) {
        qn_product p = product(9, 20, 32);
        p.transpose_a = flags & 1;
        p.transpose_b = flags & 2;
        assert_int_equal(qn_matmul_choose(&p, &tiled).aligned, !p.transpose_a);
    }
    qn_product p = product(8, 20, 33); // k is nowhere contiguous: no matter
    p.transpose_a = true;
    assert_true(qn_matmul_choose(&p, &tiled).aligned);
    p.transpose_b = true;
    assert_false(qn_matmul_choose(&p, &tiled).aligned);
}

// Every choice computes the product asked for: its dimensions, turned back, are the given ones.
static void choices_cover_the_product(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 1, 3, 4, 5, 17, 64, 130, 1000 };
    const qn_device_info *devs[] = { &flat8, &flat16, &tiled };
    for (int i = 0; i < 8 * 8 * 8 * 3 * 16; i++) {
        qn_product p = product(sizes[i % 8], sizes[i / 8 % 8], sizes[i / 64 % 8]);
        int flags = i / 512 % 16;
        p.transpose_a = flags & 1;
        p.transpose_b = flags & 2;
        p.bias = flags & 4;
        p.half = flags & 8;
        qn_matmul_choice c = qn_matmul_choose(&p, devs[i / 8192]);
        assert_int_equal(c.swapped ? c.p.n : c.p.m, p.m);
        assert_int_equal(c.swapped ? c.p.m : c.p.n, p.n);
        assert_int_equal(c.p.k, p.k);
        assert_false(c.swapped && (p.bias || p.half));
        assert_true(c.rows > 0 && c.columns > 0 && c.tile > 0);
        assert_int_equal(c.most_terms % 4, 0);
        assert_true(c.rounds_of_most <= 60000);
        if (p.bias) assert_false(c.p.transpose_c);
        if (c.kernel == QN_K_matvec || c.kernel == QN_K_matvec_flat) {
            assert_true(c.p.m <= 4);
            assert_false(c.p.transpose_a || c.p.transpose_c);
        }
        if (c.p.transpose_a || c.p.transpose_c) assert_int_equal(c.tile % 4, 0);
    }
}

static void expert_tiles_follow_their_slots(void **state)
{
    (void)state;
    assert_int_equal(qn_expert_matmul_choose(2048, 16, &flat8).tile, 32);
    assert_int_equal(qn_expert_matmul_choose(512, 16, &flat8).tile, 16);
    assert_int_equal(qn_expert_matmul_choose(128, 16, &flat8).tile, 8);
    assert_int_equal(qn_expert_matmul_choose(2, 16, &flat8).tile, 4);
    assert_int_equal(qn_expert_matmul_choose(4096, 16, &tiled).tile, 8);
    assert_int_equal(qn_expert_matmul_choose(256, 16, &tiled).tile, 4);
    assert_int_equal(qn_expert_outer_choose(256, &flat8).tile, 32);
    assert_int_equal(qn_expert_outer_choose(16, &flat8).tile, 16);
    assert_int_equal(qn_expert_outer_choose(4, &flat8).tile, 4);
    assert_int_equal(qn_expert_outer_choose(256, &tiled).kernel, QN_K_expert_outer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_products_get_the_large_tile),
        cmocka_unit_test(tiles_follow_the_rows),
        cmocka_unit_test(narrow_products_are_turned_round),
        cmocka_unit_test(few_rows_are_vectors),
        cmocka_unit_test(a_single_column_is_a_vector_too),
        cmocka_unit_test(rows_of_whole_vec4s_are_aligned),
        cmocka_unit_test(choices_cover_the_product),
        cmocka_unit_test(expert_tiles_follow_their_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
