// Rounding to 16-bit types, to nearest even, whatever the driver does. In and out: bits.
uint to_bf16(uint bits)
{
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40u; // NaN stays NaN
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// The built-in packing may round towards zero; this one is integer arithmetic throughout.
uint to_f16(uint bits)
{
    uint sign = bits >> 16 & 0x8000u, m = bits & 0x7fffffffu;
    // Normal results: rebias the exponent by 112, drop 13 bits of the mantissa.
    uint normal = (m - 0x38000000u + 0xfffu + (m >> 13 & 1u)) >> 13;
    // Subnormal ones, down to half of 2^-24: shift the mantissa with its hidden bit.
    uint shift = min(126u - (m >> 23), 31u), full = (m & 0x7fffffu) | 0x800000u;
    uint tail = full & ((1u << shift) - 1u), half_ = 1u << (shift - 1u), q = full >> shift;
    uint small = q + uint(tail > half_ || (tail == half_ && (q & 1u) == 1u));
    uint r = m < 0x38800000u ? (m < 0x33000000u ? 0u : small) : normal;
    if (m >= 0x477ff000u) r = 0x7c00u;               // rounds to 65536 or more: infinite
    if (m > 0x7f800000u) r = 0x7e00u;                // NaN
    return sign | r;
}
