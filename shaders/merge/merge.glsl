// What the merge kernels share: outputs of any storage, keys and which of them are kept. Include
// after types.glsl and the arguments. Buffers are whole multiples of 16 bytes, so tails are written
// in full; elements beyond a tensor's end are never looked at.
#include "each.glsl"
#include "narrow.glsl"

// An output stored as OUT says (qn_storage): 0 f32, 1 f16, 2 bf16; rounded once, to nearest even.
#define BIND_STORED(b, name) BIND_W(b, name, vec4) BIND_W(b, name##_2, uvec2)
#define STORE4(name, i, v)                                                                         \
    {                                                                                              \
        if (OUT == 0)                                                                              \
            name[i] = v;                                                                           \
        else                                                                                       \
            name##_2[i] = packed16(floatBitsToUint(v), OUT);                                       \
    }

uvec2 packed16(uvec4 b, uint kind)
{
    uvec4 h = kind == 1 ? uvec4(to_f16(b.x), to_f16(b.y), to_f16(b.z), to_f16(b.w))
                        : uvec4(to_bf16(b.x), to_bf16(b.y), to_bf16(b.z), to_bf16(b.w));
    return uvec2(h.x | h.y << 16, h.z | h.w << 16);
}

// The order of magnitudes is the order of these integers.
uvec4 keys_of(vec4 v) { return floatBitsToUint(v) & 0x7fffffffu; }

// Keys in [(low, low_index), (high, high_index)), compared as pairs with the element's index; as a
// set of keys to keep from the top, low_below turns the first comparison of indices around: of
// equal keys those with an index below low_index are kept.
bvec4 kept_keys(uvec4 key, uint e, uint low, uint low_index, bool low_below, uint high,
                uint high_index)
{
    uvec4 at = e + uvec4(0, 1, 2, 3);
    bvec4 side = low_below ? lessThan(at, uvec4(low_index)) : greaterThanEqual(at, uvec4(low_index));
    uvec4 up = uvec4(greaterThan(key, uvec4(low))) |
               (uvec4(equal(key, uvec4(low))) & uvec4(side));
    uvec4 down = uvec4(lessThan(key, uvec4(high))) |
                 (uvec4(equal(key, uvec4(high))) & uvec4(lessThan(at, uvec4(high_index))));
    return notEqual(up & down, uvec4(0));
}

bvec4 bits4(uint word, uint shift)
{
    return notEqual(uvec4(word >> shift) & uvec4(1, 2, 4, 8), uvec4(0));
}
