// The numbers of a case: repeatable generators and the formats in which a device holds them.
#include "run_impl.h"

#include <quoin/blocks.h>

#include <float.h>
#include <math.h>
#include <string.h>

run_format run_format_of(qn_dtype t)
{
    static const run_format formats[QN_DTYPE_COUNT] = {
        [QN_F32] = { 24, -126 },
        [QN_F16] = { 11, -14 },
        [QN_BF16] = { 8, -126 },
    };
    return formats[t];
}

// Exponent of the last place of v.
static int last_place(run_format f, double v)
{
    int e;
    frexp(v, &e); // 2^(e-1) <= |v| < 2^e
    int least = f.least - f.bits + 1;
    return v != 0 && e - f.bits > least ? e - f.bits : least;
}

double run_round(run_format f, double v)
{
    if (v == 0 || !isfinite(v)) return v;
    int place = last_place(f, v);
    double r = ldexp(nearbyint(ldexp(v, -place)), place);
    int greatest = 1 - f.least; // exponents are symmetric: 127 for -126, 15 for -14
    return fabs(r) >= ldexp(1, greatest + 1) ? copysign(INFINITY, v) : r;
}

double run_half_ulp(run_format f, double v)
{
    return isfinite(v) ? ldexp(1, last_place(f, v) - 1) : 0;
}

// A 16-bit float with `bits` of significand from a value that has them.
static uint16_t encode16(run_format f, double v)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    int fraction = f.bits - 1;
    uint16_t infinite = (uint16_t)(0x7fffu >> fraction << fraction);
    if (isnan(v)) return (uint16_t)(sign | infinite | 1u << (fraction - 1));
    if (isinf(v)) return (uint16_t)(sign | infinite);
    double a = fabs(v);
    if (a < ldexp(1, f.least)) // denormal: a multiple of the least last place
        return (uint16_t)(sign | (unsigned)ldexp(a, f.bits - 1 - f.least));
    int e = ilogb(a);
    unsigned significand = (unsigned)ldexp(a, fraction - e); // with its leading one
    return (uint16_t)(sign | (((unsigned)(e - f.least) << fraction) + significand));
}

static double decode16(run_format f, uint16_t w)
{
    int fraction = f.bits - 1;
    unsigned low = w & ((1u << fraction) - 1), e = (w & 0x7fffu) >> fraction;
    unsigned top = 0x7fffu >> fraction;
    double a;
    if (e == top)
        a = low ? NAN : INFINITY;
    else if (e == 0)
        a = ldexp(low, f.least - fraction);
    else
        a = ldexp(low + (1u << fraction), (int)e - 1 + f.least - fraction);
    return w & 0x8000 ? -a : a;
}

// Blocks of 32 as a device holds them: all integers, from the next multiple of 256 on the scales,
// written from the words of quoin/blocks.h. v becomes what they stand for.
static void encode_blocks(qn_dtype t, double *v, uint8_t *bytes, int64_t count)
{
    const int64_t size = t == QN_Q4_0 ? count / 2 : count;
    uint16_t *scales = (uint16_t *)(void *)(bytes + (size + 255) / 256 * 256);
    const run_format half = run_format_of(QN_F16);
    const double most = t == QN_Q4_0 ? 7 : 127, least = t == QN_Q4_0 ? -8 : -127;
    memset(bytes, 0, (size_t)qn_dtype_bytes(t, (uint64_t)count));
    for (int64_t b = 0; b < count / 32; b++) {
        double *x = v + b * 32, largest = 0;
        for (int i = 0; i < 32; i++) largest = fmax(largest, fabs(x[i]));
        const double d = run_round(half, b % 3 ? largest / most : -largest / most);
        scales[b] = encode16(half, d);
        for (int i = 0; i < 32; i++) {
            double q = d != 0 ? fmax(least, fmin(most, nearbyint(x[i] / d))) : 0;
            x[i] = d * q;
            if (t == QN_Q8_0)
                bytes[b * 32 + i] = (uint8_t)(int8_t)q;
            else
                bytes[b * 16 + i / 2] |= (uint8_t)((int)q + 8) << i % 2 * 4;
        }
    }
}

void run_encode(qn_dtype t, double *v, void *bytes, int64_t count)
{
    if (qn_dtype_is_block(t)) {
        encode_blocks(t, v, bytes, count);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        if (t == QN_I32) {
            ((int32_t *)bytes)[i] = (int32_t)v[i];
            v[i] = ((int32_t *)bytes)[i];
            continue;
        }
        v[i] = run_round(run_format_of(t), v[i]);
        if (t == QN_F32)
            ((float *)bytes)[i] = (float)v[i];
        else
            ((uint16_t *)bytes)[i] = encode16(run_format_of(t), v[i]);
    }
}

void run_decode(qn_dtype t, const void *bytes, double *v, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (t == QN_I32)
            v[i] = ((const int32_t *)bytes)[i];
        else if (t == QN_F32)
            v[i] = (double)((const float *)bytes)[i];
        else
            v[i] = decode16(run_format_of(t), ((const uint16_t *)bytes)[i]);
    }
}

// ----------------------------------------------------------------------------- generators

uint64_t run_key(const char *op, const char *name, const char *what)
{
    const char *parts[] = { op, name, what };
    uint64_t h = 0xcbf29ce484222325u; // FNV-1a, the terminating zeros included
    for (int p = 0; p < 3; p++) {
        const unsigned char *s = (const unsigned char *)parts[p];
        do
            h = (h ^ *s) * 0x100000001b3u;
        while (*s++);
    }
    return h;
}

// A counter-based generator: the finaliser of SplitMix64 over key + i * odd.
static uint64_t mixed(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double run_uniform(uint64_t key, uint64_t i)
{
    return (double)(mixed(key, i) >> 11) * 0x1p-53;
}

double run_normal(uint64_t key, uint64_t i)
{
    double turn = 6.283185307179586476925286766559 * run_uniform(key, 2 * i + 1);
    return sqrt(-2 * log(1 - run_uniform(key, 2 * i))) * cos(turn);
}

// Rows of evenly spaced values in [lo, hi), each in its own random order.
static void fill_distinct(uint64_t key, const qn_case_input *in, qn_ref *t)
{
    int64_t width = qn_shape_last(t->shape);
    for (int64_t i = 0; i < t->count; i++) {
        // Inside-out shuffle: place the new value, move the one that was there to the end.
        int64_t column = i % width, row = i - column;
        int64_t at = (int64_t)(run_uniform(key, (uint64_t)i) * (double)(column + 1));
        t->v[i] = t->v[row + at];
        t->v[row + at] = in->lo + (in->hi - in->lo) * (double)column / (double)width;
    }
}

static void fill(uint64_t key, const qn_case_input *in, qn_ref *t)
{
    if (in->gen == QN_GEN_DISTINCT) {
        fill_distinct(key, in, t);
        return;
    }
    if (in->gen == QN_GEN_CUSTOM) {
        in->fill(t);
        return;
    }
    for (int64_t i = 0; i < t->count; i++) {
        double u = run_uniform(key, (uint64_t)i);
        if (in->gen == QN_GEN_NORMAL)
            t->v[i] = (in->scale != 0 ? in->scale : 1) * run_normal(key, (uint64_t)i);
        else if (in->gen == QN_GEN_UNIFORM)
            t->v[i] = in->lo + (in->hi - in->lo) * u;
        else
            t->v[i] = in->lo + floor(u * (in->hi - in->lo + 1));
    }
}

void run_preset(qn_ref *t)
{
    memset(t->v, 0, (size_t)t->count * sizeof *t->v);
    memset(t->mag, 0, (size_t)t->count * sizeof *t->mag);
    t->terms = 1;
    t->slack = 0;
}

qn_result run_make_ref(qn_arena *arena, qn_shape shape, qn_ref *out)
{
    *out = (qn_ref){ .shape = shape, .count = qn_shape_count(shape) };
    size_t bytes = (size_t)out->count * sizeof *out->v;
    out->v = qn_arena_alloc(arena, bytes);
    out->mag = qn_arena_alloc(arena, bytes);
    if (!out->v || !out->mag) return qn_no_memory(bytes);
    run_preset(out);
    return QN_OK;
}

qn_result run_make_inputs(run_job *j)
{
    for (int i = 0; i < j->c->inputs; i++) {
        const qn_case_input *in = &j->c->in[i];
        QN_TRY(run_make_ref(&j->arena, in->shape, &j->in[i]));
        j->size[i] = qn_dtype_bytes(in->dtype, (uint64_t)j->in[i].count);
        j->bytes[i] = qn_arena_alloc(&j->arena, j->size[i]);
        if (!j->bytes[i]) return qn_no_memory(j->size[i]);
        fill(run_key(j->op, j->c->name, in->name), in, &j->in[i]);
        run_encode(in->dtype, j->in[i].v, j->bytes[i], j->in[i].count);
    }
    return QN_OK;
}
