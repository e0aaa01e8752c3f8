// quoin/blocks.h: weights quantised in blocks of 32, QN_Q8_0 and QN_Q4_0, as GGUF files hold them
// and as devices do. With q the integers of a block and d its scale, a value is d q. [gguf]
//
//   Q8_0  file: f16 d, i8 q[32]. d = max|x| / 127, q = round(x / d)
//   Q4_0  file: f16 d, u8 n[16]: q + 8 of values 0..15 in the low, 16..31 in the high halves.
//         d = m / -8, m the value of largest magnitude; q + 8 = min(15, floor(x / d + 8.5))
//
// On a device a tensor is all its integers (Q4_0: value i of a block in bits 4i..4i+3 of its 128),
// then, from qn_blocks_scales_at() on, all its scales.
#ifndef QUOIN_BLOCKS_H
#define QUOIN_BLOCKS_H

#include <quoin/graph.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QN_BLOCK 32 // values; the last dimension of a quantised tensor is a multiple

QN_API bool qn_dtype_is_block(qn_dtype t);
QN_API uint32_t qn_block_bytes(qn_dtype t); // of a block in a file: 34, 18
// Where a device tensor of `count` values keeps its scales.
QN_API uint64_t qn_blocks_scales_at(qn_dtype t, uint64_t count);

// x [32 n] to n blocks of a file. False, with part of them written, when a value is not finite
// or a block's scale is beyond f16.
QN_API bool qn_blocks_from_f32(qn_dtype t, const float *x, size_t n, void *blocks);
QN_API void qn_blocks_to_f32(qn_dtype t, const void *blocks, size_t n, float *x);

// n blocks of a file to a device's two parts and back: integers [16 n or 32 n bytes], scales [n].
QN_API void qn_blocks_split(qn_dtype t, const void *blocks, size_t n, void *integers,
                            uint16_t *scales);
QN_API void qn_blocks_join(qn_dtype t, const void *integers, const uint16_t *scales, size_t n,
                           void *blocks);

#ifdef __cplusplus
}
#endif
#endif
