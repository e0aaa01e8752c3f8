// Blocks of quantised weights: from floats, to floats, to a device's layout and back.
#include <quoin/blocks.h>

#include "half.h"

#include <math.h>

enum { Q8_BYTES = 34, Q4_BYTES = 18, NIBBLES = QN_BLOCK / 2 };

bool qn_dtype_is_block(qn_dtype t)
{
    return t == QN_Q8_0 || t == QN_Q4_0;
}

uint32_t qn_block_bytes(qn_dtype t)
{
    return t == QN_Q8_0 ? Q8_BYTES : t == QN_Q4_0 ? Q4_BYTES : 0;
}

uint64_t qn_blocks_scales_at(qn_dtype t, uint64_t count)
{
    uint64_t integers = t == QN_Q4_0 ? count / 2 : count;
    return (integers + QN_RANGE_ALIGN - 1) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
}

static void put_scale(uint8_t *block, uint16_t d)
{
    block[0] = (uint8_t)d;
    block[1] = (uint8_t)(d >> 8);
}

static uint16_t scale_of(const uint8_t *block)
{
    return (uint16_t)(block[0] | block[1] << 8);
}

// Infinity and NaN spread through sums; a finite sum of magnitudes proves all values finite.
static bool all_finite(const float *x)
{
    double sum = 0;
    for (int i = 0; i < QN_BLOCK; i++) sum += fabs((double)x[i]);
    return isfinite(sum);
}

static bool usable_scale(uint16_t d)
{
    return (d & 0x7c00u) != 0x7c00u;
}

static bool to_q8(const float *x, uint8_t *out)
{
    float most = 0;
    for (int i = 0; i < QN_BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    const float d = most / 127, inverse = d > 0 && isfinite(1 / d) ? 1 / d : 0;
    const uint16_t half = qn_f16_from_f32(d);
    put_scale(out, half);
    for (int i = 0; i < QN_BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
    return usable_scale(half);
}

static bool to_q4(const float *x, uint8_t *out)
{
    float m = 0;
    for (int i = 0; i < QN_BLOCK; i++)
        if (fabsf(x[i]) > fabsf(m)) m = x[i];
    const float d = m / -8, inverse = d != 0 && isfinite(1 / d) ? 1 / d : 0;
    const uint16_t half = qn_f16_from_f32(d);
    put_scale(out, half);
    uint8_t q[QN_BLOCK];
    for (int i = 0; i < QN_BLOCK; i++) {
        float at = floorf(x[i] * inverse + 8.5f);
        q[i] = (uint8_t)(at > 15 ? 15 : at);
    }
    for (int i = 0; i < NIBBLES; i++) out[2 + i] = (uint8_t)(q[i] | q[i + NIBBLES] << 4);
    return usable_scale(half);
}

bool qn_blocks_from_f32(qn_dtype t, const float *x, size_t n, void *blocks)
{
    uint8_t *out = blocks;
    for (size_t b = 0; b < n; b++, x += QN_BLOCK, out += qn_block_bytes(t)) {
        if (!all_finite(x)) return false;
        if (!(t == QN_Q8_0 ? to_q8(x, out) : to_q4(x, out))) return false;
    }
    return true;
}

void qn_blocks_to_f32(qn_dtype t, const void *blocks, size_t n, float *x)
{
    const uint8_t *in = blocks;
    for (size_t b = 0; b < n; b++, in += qn_block_bytes(t), x += QN_BLOCK) {
        const float d = qn_f32_from_f16(scale_of(in));
        for (int i = 0; t == QN_Q8_0 && i < QN_BLOCK; i++) x[i] = d * (float)(int8_t)in[2 + i];
        for (int i = 0; t == QN_Q4_0 && i < NIBBLES; i++) {
            x[i] = d * (float)((in[2 + i] & 15) - 8);
            x[i + NIBBLES] = d * (float)((in[2 + i] >> 4) - 8);
        }
    }
}

void qn_blocks_split(qn_dtype t, const void *blocks, size_t n, void *integers, uint16_t *scales)
{
    const uint8_t *in = blocks;
    uint8_t *out = integers;
    for (size_t b = 0; b < n; b++, in += qn_block_bytes(t)) {
        scales[b] = scale_of(in);
        if (t == QN_Q8_0) {
            memcpy(out, in + 2, QN_BLOCK);
            out += QN_BLOCK;
            continue;
        }
        for (int i = 0; i < NIBBLES; i += 2) {
            out[i / 2] = (uint8_t)((in[2 + i] & 15) | in[3 + i] << 4);
            out[i / 2 + NIBBLES / 2] = (uint8_t)(in[2 + i] >> 4 | (in[3 + i] & 0xf0));
        }
        out += NIBBLES;
    }
}

void qn_blocks_join(qn_dtype t, const void *integers, const uint16_t *scales, size_t n,
                    void *blocks)
{
    const uint8_t *in = integers;
    uint8_t *out = blocks;
    for (size_t b = 0; b < n; b++, out += qn_block_bytes(t)) {
        put_scale(out, scales[b]);
        if (t == QN_Q8_0) {
            memcpy(out + 2, in, QN_BLOCK);
            in += QN_BLOCK;
            continue;
        }
        for (int i = 0; i < NIBBLES; i += 2) {
            uint8_t low = in[i / 2], high = in[i / 2 + NIBBLES / 2];
            out[2 + i] = (uint8_t)((low & 15) | high << 4);
            out[3 + i] = (uint8_t)(low >> 4 | (high & 0xf0));
        }
        in += NIBBLES;
    }
}
