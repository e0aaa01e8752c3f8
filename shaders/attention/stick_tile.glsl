// One 32 x 32 tile of a product for 64 invocations, 4 x 4 values each, from slices of 16 terms in
// shared memory. An invocation fills two quads of each slice, numbers lane and lane + 64.
const uint SIDE = 32;
const uint DEPTH = 16;
shared float stick_left[DEPTH * (SIDE + 1)], stick_right[DEPTH * (SIDE + 1)];

// Element (k, i) of a slice.
#define STICK_LEFT(k, i) stick_left[(k) * (SIDE + 1) + (i)]
#define STICK_RIGHT(k, j) stick_right[(k) * (SIDE + 1) + (j)]
// Quad number q of a slice: along the terms, or along the tile's side.
#define STICK_ALONG_TERMS(name, q, v)                                                              \
    [[unroll]] for (uint c = 0; c < 4; c++) name(((q) & 3u) * 4u + c, (q) >> 2) = (v)[c];
#define STICK_ALONG_SIDE(name, q, v)                                                               \
    [[unroll]] for (uint c = 0; c < 4; c++) name((q) >> 3, ((q) & 7u) * 4u + c) = (v)[c];

vec4 stick_sum[4];

void stick_clear()
{
    [[unroll]] for (uint i = 0; i < 4; i++) stick_sum[i] = vec4(0.0);
}

// Adds the slice; invocation `lane` owns rows lane / 8 + 8 i and columns 4 (lane % 8) + c.
void stick_multiply(uint lane)
{
    barrier();
    uint i0 = lane >> 3, j0 = (lane & 7u) * 4u;
    [[unroll]] for (uint k = 0; k < DEPTH; k++) {
        vec4 r = vec4(STICK_RIGHT(k, j0), STICK_RIGHT(k, j0 + 1u), STICK_RIGHT(k, j0 + 2u),
                      STICK_RIGHT(k, j0 + 3u));
        [[unroll]] for (uint i = 0; i < 4; i++) stick_sum[i] += STICK_LEFT(k, i0 + i * 8u) * r;
    }
    barrier();
}
