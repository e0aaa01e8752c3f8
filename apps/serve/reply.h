// What clients get to read: completions, events of a stream, errors, metrics, all as text.
#ifndef QN_SERVE_REPLY_H
#define QN_SERVE_REPLY_H

#include "io/textbuf.h"
#include "llm/answer.h"
#include "serve/request.h"

// An answer of the API: what stands in every event of one.
typedef struct qn_reply {
    const qn_request *request;
    const char *id; // "chatcmpl-..."
    const char *model;
    int64_t created; // seconds since 1970
    const qn_chat *chat;
} qn_reply;

typedef struct qn_reply_times {
    double prompt_seconds, seconds; // until the first token, from then on
} qn_reply_times;

// The whole answer as one JSON object. answers [prompts * n], those of a prompt together.
qn_result qn_reply_whole(const qn_reply *r, const qn_answer *answers, size_t count,
                         const qn_reply_times *t, qn_textbuf *out);

// Server-sent events. A stream is, for each answer, one that begins it, some with text and one
// with the reason of its end; then one with the counts if the request wants that; then the end.
void qn_reply_begin(const qn_reply *r, const qn_answer *a, size_t index, qn_textbuf *out);
// text[from ..] and tokens[token_from ..] of the answer, up to `token_end`.
void qn_reply_part(const qn_reply *r, const qn_answer *a, size_t index, size_t from,
                   size_t token_from, size_t token_end, qn_textbuf *out);
void qn_reply_end(const qn_reply *r, const qn_answer *a, size_t index, qn_textbuf *out);
void qn_reply_usage(const qn_reply *r, const qn_answer *answers, size_t count,
                    const qn_reply_times *t, qn_textbuf *out);
void qn_reply_done(qn_textbuf *out);

// {"error": {"message", "type", "param", "code"}}; the type follows from the HTTP status. `code`
// may be NULL. As an event of a stream: with "data: " before it.
void qn_reply_error(int status, const char *message, const char *code, bool event, qn_textbuf *out);

#endif
