// Differences between models, kept as files of their own: taken, added, taken away again.
//
// A file holds, for every tensor T that differs, either T (x - base in f32), or T.idx and T.val (the
// largest differences), or T as U16 or U32 (the exclusive or of the bit patterns). Metadata: format
// "quoin-delta", method "difference", "sparse" or "exact", base_sha256: SHA-256 of the base's tensors'
// bytes in the order of their names.
#ifndef QN_BRICKS_DELTA_H
#define QN_BRICKS_DELTA_H

#include "edit.h"

enum { QN_HASH_TEXT = 65 }; // hexadecimal digits and NUL

// QN_ERR_UNSUPPORTED where the program was built without libmd.
qn_result qn_delta_hash(const qn_safetensors *s, char text[QN_HASH_TEXT]);

typedef struct qn_delta_opts {
    double density; // of the differences, the largest in magnitude; 0: all
    bool exact;     // bit patterns: detaches bit for bit, cannot be scaled
} qn_delta_opts;

// Writes x - base to a file. Both have the same tensors of the same types and shapes.
// *changed: how many tensors differ.
qn_result qn_delta_take(const qn_brick_model *x, const qn_brick_model *base, const char *path,
                        const qn_delta_opts *opts, size_t *changed);

typedef struct qn_delta qn_delta;
qn_result qn_delta_open(const char *path, qn_delta **out);
void qn_delta_close(qn_delta **d);
const char *qn_delta_base(const qn_delta *d); // the hash; ""

// Lets the edit make x + scale * difference. QN_ERR_INVALID when an exact one is scaled by anything
// but 1, or a tensor does not fit. The delta must outlive the writing.
qn_result qn_delta_apply(qn_delta *d, qn_edit *e, double scale);

#endif
