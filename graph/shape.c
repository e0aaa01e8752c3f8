// Element types and shapes.
#include <quoin/blocks.h>

#include <stdio.h>

static const struct {
    const char *name;
    uint32_t size;
} dtypes[] = {
    [QN_F32] = { "f32", 4 },
    [QN_F16] = { "f16", 2 },
    [QN_BF16] = { "bf16", 2 },
    [QN_I32] = { "i32", 4 },
    [QN_Q8_0] = { "q8_0", 0 },
    [QN_Q4_0] = { "q4_0", 0 },
};
_Static_assert(sizeof dtypes / sizeof *dtypes == QN_DTYPE_COUNT, "a row per dtype");

const char *qn_dtype_name(qn_dtype t)
{
    return (unsigned)t < QN_DTYPE_COUNT ? dtypes[t].name : "unknown dtype";
}

uint32_t qn_dtype_size(qn_dtype t)
{
    return (unsigned)t < QN_DTYPE_COUNT ? dtypes[t].size : 0;
}

uint64_t qn_dtype_bytes(qn_dtype t, uint64_t count)
{
    if (!qn_dtype_is_block(t)) return count * qn_dtype_size(t);
    return qn_blocks_scales_at(t, count) + count / QN_BLOCK * sizeof(uint16_t);
}

int64_t qn_shape_count(qn_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.rank; i++) n *= s.dim[i];
    return n;
}

bool qn_shape_equal(qn_shape a, qn_shape b)
{
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

int64_t qn_shape_last(qn_shape s)
{
    return s.rank ? s.dim[s.rank - 1] : 1;
}

int64_t qn_shape_rows(qn_shape s)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < s.rank; i++) n *= s.dim[i];
    return n;
}

char *qn_shape_format(qn_shape s, char text[QN_SHAPE_TEXT])
{
    size_t at = (size_t)snprintf(text, QN_SHAPE_TEXT, "[");
    for (int i = 0; i < s.rank && i < QN_MAX_RANK && at < QN_SHAPE_TEXT; i++)
        at += (size_t)snprintf(text + at, QN_SHAPE_TEXT - at, i ? ",%lld" : "%lld",
                               (long long)s.dim[i]);
    if (at < QN_SHAPE_TEXT) snprintf(text + at, QN_SHAPE_TEXT - at, "]");
    return text;
}
