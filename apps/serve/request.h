// What clients ask for: the bodies of POST requests, read and checked. The shapes are those of the
// OpenAI API; sampling options of other local servers are understood beside them, unknown members
// ignored, and what this server cannot do is refused by name.
#ifndef QN_SERVE_REQUEST_H
#define QN_SERVE_REQUEST_H

#include "llm/chat.h"
#include "llm/runner.h"

#include <quoin/tokenizer.h>

#define QN_MOST_STOPS 16
#define QN_MOST_CHOICES 128 // prompts times n

// Bounds and defaults of a server, and what its model can do.
typedef struct qn_request_limits {
    const qn_chat *chat; // tokenizer, template, defaults of sampling
    int64_t vocab_size;
    int64_t bos;        // the token that an empty prompt stands for
    int64_t context;    // tokens that prompt and answer have together
    int64_t max_tokens; // of an answer when the request does not say; 0: what the context holds
} qn_request_limits;

typedef enum qn_endpoint { QN_CHAT_COMPLETION = 0, QN_COMPLETION } qn_endpoint;

typedef struct qn_prompt {
    int32_t *id;
    size_t count;
} qn_prompt;

typedef struct qn_request {
    qn_endpoint endpoint;
    qn_prompt *prompts;
    size_t prompt_count;
    int64_t n;          // answers to each prompt
    int64_t max_tokens; // of each
    bool stream, usage; // usage: a last event with the counts
    bool echo;          // completions: the prompt before the answer
    int top;            // most likely tokens listed for each; -1: no probabilities at all
    bool ignore_end;
    bool seeded; // the request names its seed; else the server takes one
    char *stops[QN_MOST_STOPS + 1];
    size_t stop_count;
    qn_sampling sampling;
    qn_token_bias *bias;
    size_t bias_count;
} qn_request;

// Reads a body. Failures are the client's and name the member (QN_ERR_FORMAT, QN_ERR_INVALID,
// QN_ERR_UNSUPPORTED), or QN_ERR_NO_MEMORY. *code is then what the API calls this error, or NULL.
qn_result qn_request_read(qn_endpoint endpoint, const char *body, size_t size,
                          const qn_request_limits *l, qn_request *out, const char **code);
void qn_request_free(qn_request *r);

// {"content": TEXT, "with_pieces": BOOL} and {"tokens": [ID...]}: appended to the output.
qn_result qn_request_tokenize(const char *body, size_t size, const qn_request_limits *l,
                              qn_tokens *out, bool *with_pieces);
qn_result qn_request_detokenize(const char *body, size_t size, const qn_request_limits *l,
                                qn_text *out);

#endif
