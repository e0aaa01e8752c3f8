// A mixture of experts made of dense models, by mergekit-moe's files: everything but the feed-forward
// blocks is the base's, expert e's block is that of experts[e], routers come from prompts or chance.
#ifndef QN_BRICKS_MOE_H
#define QN_BRICKS_MOE_H

#include "fail.h"

typedef struct qn_moe_opts {
    const char *out;    // folder; must not exist
    const char *models; // folder in which models are looked for; NULL: none
    bool fused;         // experts as stacks instead of tensors of their own
    bool useless;       // sources may be identical
    uint64_t seed, shard_size;
} qn_moe_opts;

typedef struct qn_moe_stats {
    size_t experts, chosen, layers;
    const char *layout; // "mixtral"
} qn_moe_stats;

qn_result qn_moe_run(const char *recipe, const qn_moe_opts *opts, qn_moe_stats *stats);

#endif
