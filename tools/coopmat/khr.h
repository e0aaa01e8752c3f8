// Rewrites SPIR-V that uses cooperative matrices in the dialect of SPV_NV_cooperative_matrix, the
// only one that older compilers write, to SPV_KHR_cooperative_matrix.
//
// The two differ in numbers, in the place of an operand and in two additions: a KHR type names its
// use (left factor, right factor, sum), and a KHR load or store names a layout where the NV one has
// a flag. The use of a type is inferred from the multiply-adds that its values reach, so the three
// kinds of tile must be three types: give their sizes by different specialisation constants.
#ifndef QN_COOPMAT_KHR_H
#define QN_COOPMAT_KHR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The rewritten module, malloc'd: *words of *count. NULL and a sentence in error[size] where the
// module is not SPIR-V, is cut off or cannot be rewritten. A module without cooperative matrices is
// copied.
uint32_t *qn_coopmat_to_khr(const uint32_t *words, size_t count, size_t *out_count, char *error,
                            size_t error_size);

#endif
