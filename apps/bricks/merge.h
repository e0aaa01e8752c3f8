// A merge from recipe to folder: reading, arithmetic and writing at the same time, in bounded
// memory; resumable; audited.
#ifndef QN_MERGE_H
#define QN_MERGE_H

#include "plan.h"

typedef struct qn_merge_progress {
    uint64_t done, total; // bytes read and written
    const char *tensor;
} qn_merge_progress;

typedef struct qn_merge_opts {
    qn_merge_plan_opts plan;
    const char *out;     // folder
    uint64_t shard_size; // bytes; 0: one file
    bool no_tokenizer, no_card;
    bool force;      // replace what is in the folder
    uint64_t window; // tests: elements computed at once; 0: the default
    void (*progress)(void *user, const qn_merge_progress *p); // NULL: none
    bool (*stop)(void); // asked between tensors: end, keeping finished shards; NULL: never
    void *user;
} qn_merge_opts;

typedef struct qn_merge_stats {
    size_t tensors, kept;   // written; in shards that an earlier run had finished
    uint64_t read, written; // bytes
    uint64_t device_peak;   // bytes
    uint64_t bound;         // bytes: 3 times the largest tensor times inputs, and an output
    double seconds;
} qn_merge_stats;

// Merges one document. `text` is the recipe's file, which is kept beside the result. QN_ERR_CANCELLED
// when stopped: the same call goes on from there.
qn_result qn_merge_run(qn_device *dev, const qn_recipe *recipe, const char *text,
                       const qn_merge_opts *opts, qn_merge_stats *stats);

// Files beside the tensors (merge_files.c).
qn_result qn_merge_save_config(const qn_merge_plan *p, const char *dir);
qn_result qn_merge_save_tokenizer(const qn_merge_plan *p, const char *dir);
qn_result qn_merge_save_card(const qn_merge_plan *p, const char *text, const char *dir);
qn_result qn_merge_save_audit(const qn_merge_plan *p, const char *dir);
// One output tensor of the audit, also what a dry run shows.
void qn_merge_put_output(qn_json_writer *w, const qn_merge_plan *p, const qn_merge_output *o);
// "dir/name" through a callback; the path is freed.
qn_result qn_merge_copy_file(const char *from, const char *to, const char *name);

#endif
