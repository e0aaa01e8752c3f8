// Which kernel, tile and grid a product gets: pure functions of shape and device, so that equal
// sizes give equal bits.
#ifndef QN_MATMUL_CHOOSE_H
#define QN_MATMUL_CHOOSE_H

#include <quoin/engine.h>

// c = op(a) op(b) per batch, as asked for.
typedef struct qn_product {
    uint64_t batch, m, n, k;
    bool transpose_a, transpose_b, transpose_c; // a is [k, m], b [n, k], c [n, m]
    bool bias;
    bool half; // b is stored in 16 bits
} qn_product;

// The same product as the kernel computes it: `p` may be the transposed one, c^T = op(b)^T op(a)^T,
// with `swapped` saying that a and b change places.
typedef struct qn_matmul_choice {
    qn_product p;
    bool swapped;
    qn_kernel kernel;
    bool aligned;           // rows of all three are whole vec4s
    uint32_t tile;          // the kernel's constant 1
    uint32_t rows, columns; // of c per group
    uint32_t group_size;
    uint32_t most_terms;     // of the sums in one pass, a multiple of 4
    uint64_t rounds_of_most; // loop rounds for that many
} qn_matmul_choice;

qn_matmul_choice qn_matmul_choose(const qn_product *p, const qn_device_info *dev);

// Tile of the products over experts, from the slots that an expert may expect.
typedef struct qn_expert_choice {
    qn_kernel kernel;
    uint32_t tile; // the kernel's constant 1
    uint32_t rows, columns;
    uint32_t group_size;
    uint32_t terms_per_round;
} qn_expert_choice;

qn_expert_choice qn_expert_matmul_choose(uint64_t slots, uint64_t experts,
                                         const qn_device_info *dev);
// rows: I, of each expert's result.
qn_expert_choice qn_expert_outer_choose(uint64_t rows, const qn_device_info *dev);

#endif
