// One answer as it is written: from the runner's tokens to whole characters, up to an end token, a
// stop string or a limit.
#ifndef QN_ANSWER_H
#define QN_ANSWER_H

#include "chat.h"
#include "runner.h"
#include "text/stops.h"

typedef enum qn_finish {
    QN_FINISH_NOT = 0, // going on
    QN_FINISH_STOP,    // an end token or a stop string
    QN_FINISH_LENGTH,  // as many tokens as allowed, or the context is full
    QN_FINISH_BROKEN,  // the model gave no usable number
} qn_finish;

// A token with its probability, kept where asked for.
typedef struct qn_answer_token {
    size_t offset; // where in the text it begins, bytes
    qn_token_chance chance;
    int top_count;
    qn_token_chance top[QN_RUNNER_TOP];
} qn_answer_token;

typedef struct qn_answer {
    const qn_chat *chat;
    int64_t max_tokens;
    bool ignore_end; // end tokens are tokens like others
    bool keep;       // tokens with their probabilities
    bool trim;       // leave out blanks at the beginning
    qn_stops stops;  // its strings outlive the answer
    // What there is so far.
    qn_text text;
    int64_t tokens; // written; an end token is not counted
    qn_finish finish;
    qn_answer_token *token; // those that stand in the text, where `keep`
    size_t token_count, token_cap;
    // Inside.
    qn_token_stream stream;
    qn_text piece;
    size_t raw; // bytes that went into the search for stop strings
} qn_answer;

// Zero-initialise and set the first members, `stops` included, then:
qn_result qn_answer_start(qn_answer *a);
// Appends what the event makes certain; nothing once the answer is finished.
qn_result qn_answer_push(qn_answer *a, const qn_runner_event *e);
// Ends it where it is, with what was held back.
qn_result qn_answer_end(qn_answer *a, qn_finish why);
void qn_answer_free(qn_answer *a);

#endif
