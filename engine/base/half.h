// f32 to 16 bits, round to nearest even, and back.
#ifndef QN_HALF_H
#define QN_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint16_t qn_bf16_from_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u); // stays NaN
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline uint16_t qn_f16_from_f32(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint32_t sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // 65520 and more round to infinity
    if (a < 0x38800000u) { // below 2^-14: subnormal, in units of 2^-24
        if (a < 0x33000000u) return (uint16_t)sign;
        uint32_t shift = 126 - (a >> 23), m = (a & 0x7fffffu) | 0x800000u;
        uint32_t half = 1u << (shift - 1), rest = m & ((1u << shift) - 1);
        uint32_t q = m >> shift;
        return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
    }
    a -= 112u << 23;
    return (uint16_t)(sign | (a + 0xfffu + (a >> 13 & 1u)) >> 13);
}

static inline float qn_f32_from_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float qn_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu, u;
    float x;
    if (e == 0) { // zero or m units of 2^-24
        x = (float)m * 0x1p-24f;
        return sign ? -x : x;
    }
    u = sign | (e == 31 ? 0x7f800000u : (e + 112) << 23) | m << 13;
    memcpy(&x, &u, sizeof x);
    return x;
}

#endif
