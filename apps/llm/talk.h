// A conversation with a model: messages, and answers to them as they come.
#ifndef QN_TALK_H
#define QN_TALK_H

#include "answer.h"

typedef struct qn_talk qn_talk;

typedef struct qn_talk_opts {
    const qn_chat *chat;
    qn_runner *runner;    // its slot 0 is the conversation's
    qn_sampling sampling; // each answer's seed is one more than the last one's
    int64_t max_tokens;   // of an answer; 0: what the context holds
} qn_talk_opts;

qn_result qn_talk_create(const qn_talk_opts *opts, qn_talk **out);
void qn_talk_destroy(qn_talk **t);
qn_sampling *qn_talk_sampling(qn_talk *t); // to change, from the next answer on

size_t qn_talk_count(const qn_talk *t);
qn_message qn_talk_at(const qn_talk *t, size_t i);
qn_result qn_talk_add(qn_talk *t, qn_role role, const char *content);
// The system message, first of all; an empty one takes it away.
qn_result qn_talk_set_system(qn_talk *t, const char *content);
void qn_talk_forget(qn_talk *t, size_t count); // the last `count` messages

typedef struct qn_talk_stats {
    int64_t prompt_tokens, read_tokens; // of the conversation; of these, not read before
    int64_t tokens;
    double prompt_seconds, seconds; // to the first token, from then on
    int64_t left_out;               // of the oldest messages, which the context had no room for
    qn_finish finish;
} qn_talk_stats;

// Answers the conversation and adds the answer to it. `text` receives what is certain, nothing now
// and then while a long prompt is read; false stops the answer, which stays as far as it came.
// When the context has no room for the conversation and half an answer, the oldest messages behind
// the system's are left out; QN_ERR_INVALID when the last one alone is too long.
typedef bool (*qn_talk_text)(void *user, const char *bytes, size_t size);
qn_result qn_talk_answer(qn_talk *t, qn_talk_text text, void *user, qn_talk_stats *out);

// {"messages": [{"role", "content"}]}, atomically.
qn_result qn_talk_save(const qn_talk *t, const char *path);
// Replaces the conversation; on failure it stays.
qn_result qn_talk_load(qn_talk *t, const char *path);

#endif
