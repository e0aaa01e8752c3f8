// Blocks of quantised weights: the words of the format against a double reference, byte by byte.
#include "device.h"

#include "half.h"
#include "random.h"

#include <quoin/blocks.h>

#include <math.h>
#include <string.h>

enum { BLOCKS = 300 };

static double half_value(const uint8_t *at)
{
    int h = at[0] | at[1] << 8, e = h >> 10 & 31, m = h & 1023;
    double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -x : x;
}

// A value of a file's block, from the table of the format.
static double value_of(qn_dtype t, const uint8_t *block, int i)
{
    double d = half_value(block);
    if (t == QN_Q8_0) return d * (int8_t)block[2 + i];
    int byte = block[2 + i % 16];
    return d * ((i < 16 ? byte & 15 : byte >> 4) - 8);
}

static void random_bytes(uint8_t *at, size_t n, uint64_t seed)
{
    qn_random r = qn_random_start(seed, 0);
    for (size_t i = 0; i < n; i++) at[i] = (uint8_t)qn_random_word(&r);
}

// Any bytes with finite scales are blocks: they mean the same in the file and on a device.
static void test_layouts(void **state)
{
    (void)state;
    static const qn_dtype types[] = { QN_Q8_0, QN_Q4_0 };
    static uint8_t file[BLOCKS * 34], again[BLOCKS * 34], integers[BLOCKS * 32];
    static uint16_t scales[BLOCKS];
    static float x[BLOCKS * 32];
    for (int k = 0; k < 2; k++) {
        const qn_dtype t = types[k];
        const size_t size = qn_block_bytes(t);
        random_bytes(file, BLOCKS * size, 5);
        for (int b = 0; b < BLOCKS; b++)
            if ((file[(size_t)b * size + 1] & 0x7c) == 0x7c) file[(size_t)b * size + 1] ^= 0x40;
        qn_blocks_to_f32(t, file, BLOCKS, x);
        qn_blocks_split(t, file, BLOCKS, integers, scales);
        qn_blocks_join(t, integers, scales, BLOCKS, again);
        assert_memory_equal(file, again, BLOCKS * size);
        for (int b = 0; b < BLOCKS; b++)
            for (int i = 0; i < QN_BLOCK; i++) {
                double want = value_of(t, file + (size_t)b * size, i);
                assert_true((double)x[b * 32 + i] == want);
                int q = t == QN_Q8_0 ? (int8_t)integers[b * 32 + i]
                                     : (integers[b * 16 + i / 2] >> i % 2 * 4 & 15) - 8;
                uint8_t d[2] = { (uint8_t)scales[b], (uint8_t)(scales[b] >> 8) };
                assert_true(half_value(d) * q == want);
            }
    }
}

// The writer's rule, and how far a value may move: half a step, and the rounding of the scale.
static void test_quantising(void **state)
{
    (void)state;
    static float x[BLOCKS * 32], back[BLOCKS * 32];
    static uint8_t blocks[BLOCKS * 34];
    qn_random r = qn_random_start(3, 1);
    for (int i = 0; i < BLOCKS * 32; i++)
        x[i] = (float)(qn_random_normal(&r) * pow(10, i / 32 % 7 - 3));
    memset(x, 0, 32 * sizeof *x);
    for (int i = 32; i < 64; i++) x[i] = 0.5f;
    for (int i = 64; i < 96; i++) x[i] = i == 70 ? -3.0f : 0.01f;
    assert_true(qn_blocks_from_f32(QN_Q8_0, x, BLOCKS, blocks));
    qn_blocks_to_f32(QN_Q8_0, blocks, BLOCKS, back);
    for (int b = 0; b < BLOCKS; b++) {
        double most = 0;
        for (int i = 0; i < 32; i++) most = fmax(most, fabs((double)x[b * 32 + i]));
        for (int i = 0; i < 32; i++) {
            double error = fabs((double)back[b * 32 + i] - (double)x[b * 32 + i]);
            assert_true(error <= most / 127 * (0.5 + 1e-5) + most * 0x1p-11 + 0x1p-25 * 127);
        }
    }
    assert_true(qn_blocks_from_f32(QN_Q4_0, x, BLOCKS, blocks));
    qn_blocks_to_f32(QN_Q4_0, blocks, BLOCKS, back);
    for (int b = 0; b < BLOCKS; b++) {
        double m = 0;
        for (int i = 0; i < 32; i++)
            if (fabs((double)x[b * 32 + i]) > fabs(m)) m = (double)x[b * 32 + i];
        for (int i = 0; i < 32; i++) {
            // Values on the far side of the largest one end at 7 steps: up to a step is cut off.
            double v = (double)x[b * 32 + i], error = fabs((double)back[b * 32 + i] - v);
            double step = fabs(m) / 8, bound = v * m < 0 && fabs(v) > 7 * step ? 1 : 0.5;
            assert_true(error <= step * (bound + 1e-5) + fabs(m) * 0x1p-11 + 0x1p-25 * 8);
        }
    }
    assert_true(back[70] < -2.99f && back[70] > -3.01f);
    for (int i = 0; i < 32; i++) assert_true(back[i] == 0);
}

static void test_unusable(void **state)
{
    (void)state;
    static const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f };
    uint8_t block[34];
    for (int k = 0; k < 4; k++)
        for (int at = 0; at < 32; at += 31) {
            float x[32] = { 1 };
            x[at] = odd[k];
            assert_false(qn_blocks_from_f32(QN_Q8_0, x, 1, block));
            assert_false(qn_blocks_from_f32(QN_Q4_0, x, 1, block));
        }
    for (uint32_t h = 0; h < 0x10000; h++) {
        if ((h & 0x7c00) == 0x7c00) continue;
        uint8_t bytes[2] = { (uint8_t)h, (uint8_t)(h >> 8) };
        assert_true((double)qn_f32_from_f16((uint16_t)h) == half_value(bytes));
    }
    assert_true(isinf(qn_f32_from_f16(0x7c00)) && isnan(qn_f32_from_f16(0x7e00)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_quantising),
        cmocka_unit_test(test_unusable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
