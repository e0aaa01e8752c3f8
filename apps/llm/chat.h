// Conversations as the text that a model was trained on: which words and marks stand around each
// message. Published folders say it in Jinja; here the form is recognised by its marks, out of a
// fixed table, and nothing of the file is ever run.
#ifndef QN_CHAT_H
#define QN_CHAT_H

#include "sampler.h"

#include <quoin/tokenizer.h>

typedef enum qn_role { QN_ROLE_SYSTEM = 0, QN_ROLE_USER, QN_ROLE_ASSISTANT, QN_ROLES } qn_role;
const char *qn_role_name(qn_role r); // "system"
#define QN_CHAT_FORMATS "plain|chatml|llama3|phi3|zephyr|alpaca"

typedef struct qn_message {
    qn_role role;
    const char *content;
} qn_message;

// A row of the table in chat.c.
typedef struct qn_chat_format qn_chat_format;
const char *qn_chat_format_name(const qn_chat_format *f);
// NULL: no such.
const qn_chat_format *qn_chat_format_find(const char *name);

// How a folder's conversations are written, and what ends an answer beside its end tokens.
#define QN_CHAT_ENDS 8
typedef struct qn_chat {
    const qn_chat_format *format;
    const qn_tokenizer *tokenizer;
    int32_t end[QN_CHAT_ENDS]; // tokens that end a text: config's and generation_config's, the
    size_t end_count;          // format's own
    const char *stop;          // a text that ends an answer; NULL: none
    bool named;                // the folder says how, rather than getting the plain form
    qn_sampling sampling;      // the program's defaults, or what generation_config.json says
} qn_chat;

// The format called `name`, or, if that is NULL, the one that tokenizer_config.json or
// chat_template.jinja in `dir` asks for, or "plain" where they say nothing. A template that is not
// in the table is QN_ERR_UNSUPPORTED with the names that there are. `eos` is config.json's.
qn_result qn_chat_open(const char *dir, const char *name, const qn_tokenizer *t, int64_t eos,
                       qn_chat *out);
bool qn_chat_ends(const qn_chat *c, int32_t token);

// Appends the tokens of a conversation and of an answer's beginning. What stands in messages is
// ordinary text, marks spelled out in it included.
qn_result qn_chat_encode(const qn_chat *c, const qn_message *messages, size_t count,
                         qn_tokens *out);

#endif
