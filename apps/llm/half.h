// f32 to 16 bits, round to nearest even.
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

#endif
