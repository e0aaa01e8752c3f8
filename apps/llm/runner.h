// Running a loaded model for several texts at once. Each slot holds one text with its keys and
// values and its way of sampling; a step reads the next piece of every prompt that waits and
// writes one token for each of the other running slots. What a slot writes does not depend on
// what the others do.
//
//     qn_runner_opts o = { .slots = 4, .context = 2048 };
//     qn_runner_create(dev, &folder.config, folder.weights, &o, &r);
//     qn_runner_sample(r, 0, &how);             // optional: the default is greedy
//     qn_runner_feed(r, 0, ids, count);         // the prompt; the slot runs from now on
//     while (wanted) {
//         qn_runner_step(r, events, &n);        // prompts first give steps without an event
//         for (i < n) ... events[i].slot wrote events[i].token
//         qn_runner_hold(r, slot);              // at an end token, a stop string, a lost client
//     }
//
// The caller decides what ends a text: end tokens are tokens like others here. One thread at a
// time. A step lasts as long as one piece of a prompt, so cancelling is: hold the slot, go on.
#ifndef QN_RUNNER_H
#define QN_RUNNER_H

#include "sampler.h"

#include <quoin/model.h>

typedef struct qn_runner qn_runner;

typedef struct qn_runner_opts {
    int64_t slots;   // texts held at once; 0: 1
    int64_t context; // tokens that each slot has room for; 0: 2,048
    int64_t chunk;   // longest piece of a prompt read in one step; 0: 64
    // [vocab_size], 0 for tokens that are never written (the tokenizer has none for them); copied.
    // NULL: all may be.
    const uint8_t *usable;
} qn_runner_opts;

// `weights` is loaded and must outlive the runner. QN_ERR_NO_DEVICE_MEMORY when the cache does not
// fit; qn_runner_cache_bytes() tells what it takes.
qn_result qn_runner_create(qn_device *dev, const qn_model_config *c, qn_store *weights,
                           const qn_runner_opts *opts, qn_runner **out);
void qn_runner_destroy(qn_runner **r);
// Device bytes of the caches of such a runner.
uint64_t qn_runner_cache_bytes(const qn_model_config *c, const qn_runner_opts *opts);

int64_t qn_runner_slots(const qn_runner *r);
int64_t qn_runner_context(const qn_runner *r);

// ------------------------------------------------------------------------------------ a slot
// Slots are 0 .. slots - 1; another number is QN_ERR_INVALID.

typedef struct qn_token_bias {
    int32_t token;
    float bias; // added to its logit, before everything else; -INFINITY: never
} qn_token_bias;

#define QN_RUNNER_BIAS 1024 // biases of a slot at most
#define QN_RUNNER_TOP 20    // alternatives of a token at most

typedef struct qn_runner_sampling {
    qn_sampling how;           // temperature, top-k, ..., seed; see sampler.h. All zeros but for
                               // top_p and repeat_penalty 1: greedy
    const qn_token_bias *bias; // copied
    size_t bias_count;
    int top; // how many most likely tokens events shall list: 0 .. QN_RUNNER_TOP
} qn_runner_sampling;

// Empties the slot: no text, greedy sampling, not running.
qn_result qn_runner_reset(qn_runner *r, int64_t slot);
// How the slot's tokens are chosen from now on; NULL: greedy. The draw for a token depends on the
// seed, the logits and the token's position in the text, on nothing else.
qn_result qn_runner_sample(qn_runner *r, int64_t slot, const qn_runner_sampling *s);
// Appends tokens to the slot's text (behind those that it wrote) and lets it run. Nothing is
// appended when they do not fit the context or one is outside the vocabulary.
qn_result qn_runner_feed(qn_runner *r, int64_t slot, const int32_t *ids, size_t count);
// Takes the slot out of the steps; its text stays. qn_runner_feed() with count 0 lets it run
// again.
qn_result qn_runner_hold(qn_runner *r, int64_t slot);
// Forgets all but the first `count` tokens of the text, and holds the slot. For another answer, or
// a prompt that begins like the last one: what is left need not be read again.
qn_result qn_runner_rewind(qn_runner *r, int64_t slot, size_t count);

// The slot's text, prompt and written tokens, until the next call for it; *read of them have gone
// through the model (may be NULL).
const int32_t *qn_runner_text(const qn_runner *r, int64_t slot, size_t *count, size_t *read);
bool qn_runner_running(const qn_runner *r, int64_t slot);

// ------------------------------------------------------------------------------------ memories
// Models with memories (docs/memory.md): each slot remembers what it read, whatever has left the
// attention's window; a reset or a rewind goes back to what the slot began with.

bool qn_runner_remembers(const qn_runner *r);
// What the slot begins with, now and after each reset, from a file of qn_runner_memory_save(); for a
// slot that has read nothing yet. Refused with the reason, the slot keeping what it had, for a file
// of another model, damaged or with numbers that are not finite.
qn_result qn_runner_memory_load(qn_runner *r, int64_t slot, const char *path);
// Reads what the slot has not read of its text and writes what it remembers, atomically; with
// long_term the consolidated matrices alone.
qn_result qn_runner_memory_save(qn_runner *r, int64_t slot, const char *path, bool long_term);

// ------------------------------------------------------------------------------------ running

typedef struct qn_token_chance {
    int32_t token;
    float logprob; // natural log of the model's probability: of the logits as they are, before
                   // biases, penalties and temperature
} qn_token_chance;

typedef struct qn_runner_event {
    int64_t slot;
    int32_t token;  // appended to the slot's text; -1: the logits hold no usable number (broken
                    // weights), the slot is held
    float logprob;  // as above
    bool full;      // the context has no room behind this token: the slot is held
    int top_count;  // min(asked for, vocabulary)
    qn_token_chance top[QN_RUNNER_TOP]; // most likely first, ties to the lower token
} qn_runner_event;

// One step of every running slot; events[slots] receives those that wrote a token, in the order of
// slots, *count how many. Without a running slot: QN_OK and no event. After a failure (device lost,
// out of memory) only qn_runner_reset() and _destroy() make sense.
qn_result qn_runner_step(qn_runner *r, qn_runner_event *events, size_t *count);

// Appends `count` tokens to a slot that is not running and tells how likely each was, given all
// before it. The first token of an empty slot has none before it: its logprob is NaN. The slot is
// not running afterwards; other slots are left alone.
typedef struct qn_token_score {
    float logprob;
    int32_t best; // the most likely token in this place; -1 where there is none before it
} qn_token_score;
qn_result qn_runner_score(qn_runner *r, int64_t slot, const int32_t *ids, size_t count,
                          qn_token_score *out);

#endif
