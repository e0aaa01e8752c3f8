// Running a model forwards with a key-value cache: prompts in chunks, then token by token.
#ifndef QN_DECODER_H
#define QN_DECODER_H

#include <quoin/model.h>

typedef struct qn_decoder qn_decoder;

typedef struct qn_decoder_opts {
    int64_t batch;   // rows decoded together; 0: 1
    int64_t context; // positions the cache holds; 0: 1,024
    int64_t chunk;   // longest piece of a prompt per run; 0: 64
    bool masked;     // rows may hide positions (left padding): qn_decoder_feed() reads `keep`
} qn_decoder_opts;

// `weights` is loaded and must outlive the decoder.
qn_result qn_decoder_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                            const qn_decoder_opts *opts, qn_decoder **out);
void qn_decoder_destroy(qn_decoder **d);
// Appends `count` tokens to every row: ids [batch, count]; logits [batch, V] of the last position,
// or NULL. keep [batch, count], 0 hides a position; only for masked decoders, else NULL.
// QN_ERR_INVALID when the context is full.
qn_result qn_decoder_feed(qn_decoder *d, const int32_t *ids, const int32_t *keep, int64_t count,
                          float *logits);
int64_t qn_decoder_used(const qn_decoder *d);    // positions filled
int64_t qn_decoder_context(const qn_decoder *d);
void qn_decoder_reset(qn_decoder *d);            // forgets everything
// Keeps the first `used` positions only; no more than are filled.
void qn_decoder_rewind(qn_decoder *d, int64_t used);
// Copies layer i's keys (which = 0) or values (1) of all filled positions: [batch, used, A].
qn_result qn_decoder_cache(qn_decoder *d, int64_t layer, int which, float *out);

#endif
