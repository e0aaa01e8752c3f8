// Element types of safetensors and their conversion to what the host computes with.
#include "safetensors_impl.h"
#include "fail.h"

#include <inttypes.h>
#include <string.h>

static const struct {
    char name[5];
    uint8_t size;
    bool is_float;
} dtypes[QN_ST_DTYPE_COUNT] = {
    [QN_ST_F64] = { "F64", 8, true },  [QN_ST_F32] = { "F32", 4, true },
    [QN_ST_F16] = { "F16", 2, true },  [QN_ST_BF16] = { "BF16", 2, true },
    [QN_ST_I64] = { "I64", 8, false }, [QN_ST_I32] = { "I32", 4, false },
    [QN_ST_I16] = { "I16", 2, false }, [QN_ST_I8] = { "I8", 1, false },
    [QN_ST_U8] = { "U8", 1, false },   [QN_ST_BOOL] = { "BOOL", 1, false },
    [QN_ST_U16] = { "U16", 2, false }, [QN_ST_U32] = { "U32", 4, false },
};

static bool known(qn_st_dtype d)
{
    return (unsigned)d < QN_ST_DTYPE_COUNT;
}

const char *qn_st_dtype_name(qn_st_dtype d)
{
    return known(d) ? dtypes[d].name : "unknown";
}

uint32_t qn_st_dtype_size(qn_st_dtype d)
{
    return known(d) ? dtypes[d].size : 0;
}

bool qn_st_dtype_is_float(qn_st_dtype d)
{
    return known(d) && dtypes[d].is_float;
}

bool qn_st_dtype_parse(const char *name, qn_st_dtype *out)
{
    for (int d = 0; d < QN_ST_DTYPE_COUNT; d++) {
        if (strcmp(dtypes[d].name, name)) continue;
        *out = (qn_st_dtype)d;
        return true;
    }
    return false;
}

static float from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// IEEE 754 binary16; NaNs keep their payload.
static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (!exponent) { // zero and subnormals: fraction * 2^-24 is exact
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t bias = exponent == 31 ? 255 - 31 : 127 - 15;
    return from_bits(sign | (exponent + bias) << 23 | fraction << 13);
}

static qn_result check(const qn_safetensor *t, uint64_t first, uint64_t count, bool floats)
{
    if (first > t->count || count > t->count - first)
        return qn_fail(QN_ERR_INVALID,
                       "tensor %s: elements %" PRIu64 " and %" PRIu64 " more of %" PRIu64, t->name,
                       first, count, t->count);
    if (qn_st_dtype_is_float(t->dtype) != floats)
        return qn_fail(QN_ERR_INVALID, "tensor %s: dtype %s, expected %s", t->name,
                       qn_st_dtype_name(t->dtype), floats ? "a floating-point type" : "integers");
    return QN_OK;
}

// Reads elements of type `type` as `value` and stores `expr` of them.
#define CONVERT(type, expr)                                                                        \
    for (uint64_t i = 0; i < count; i++) {                                                         \
        type value;                                                                                \
        memcpy(&value, p + i * sizeof value, sizeof value);                                        \
        out[i] = (expr);                                                                           \
    }                                                                                              \
    break

qn_result qn_safetensor_f32(const qn_safetensor *t, uint64_t first, uint64_t count, float *out)
{
    QN_TRY(check(t, first, count, true));
    const char *p = (const char *)t->data + first * qn_st_dtype_size(t->dtype);
    switch (t->dtype) {
    case QN_ST_F64:
        CONVERT(double, (float)value);
    case QN_ST_F32:
        if (count) memcpy(out, p, count * sizeof *out);
        break;
    case QN_ST_F16:
        CONVERT(uint16_t, from_half(value));
    default:
        CONVERT(uint16_t, from_bits((uint32_t)value << 16)); // BF16
    }
    return QN_OK;
}

qn_result qn_safetensor_f64(const qn_safetensor *t, uint64_t first, uint64_t count, double *out)
{
    QN_TRY(check(t, first, count, true));
    const char *p = (const char *)t->data + first * qn_st_dtype_size(t->dtype);
    switch (t->dtype) {
    case QN_ST_F64:
        if (count) memcpy(out, p, count * sizeof *out);
        break;
    case QN_ST_F32:
        CONVERT(float, value);
    case QN_ST_F16:
        CONVERT(uint16_t, from_half(value));
    default:
        CONVERT(uint16_t, from_bits((uint32_t)value << 16)); // BF16
    }
    return QN_OK;
}

qn_result qn_safetensor_i64(const qn_safetensor *t, uint64_t first, uint64_t count, int64_t *out)
{
    QN_TRY(check(t, first, count, false));
    const char *p = (const char *)t->data + first * qn_st_dtype_size(t->dtype);
    switch (t->dtype) {
    case QN_ST_I64:
        if (count) memcpy(out, p, count * sizeof *out);
        break;
    case QN_ST_I32:
        CONVERT(int32_t, value);
    case QN_ST_I16:
        CONVERT(int16_t, value);
    case QN_ST_I8:
        CONVERT(int8_t, value);
    case QN_ST_U8:
        CONVERT(uint8_t, value);
    case QN_ST_U16:
        CONVERT(uint16_t, value);
    case QN_ST_U32:
        CONVERT(uint32_t, value);
    default:
        CONVERT(uint8_t, value != 0); // BOOL
    }
    return QN_OK;
}
