// A tokenizer of bytes and what a server of it would allow, for requests without a model.
#ifndef QN_TEST_SERVE_FIXTURE_H
#define QN_TEST_SERVE_FIXTURE_H

#include "serve/request.h"

// Opens a plain conversation format over a tokenizer with one special token. `folder` exists.
static inline qn_result serve_fixture(const char *folder, qn_tokenizer **t, qn_chat *chat,
                                      qn_request_limits *limits)
{
    static const char *const special[] = { "<|endoftext|>" };
    const qn_tokenizer_train_opts o = { .size = 257, .special = special, .special_count = 1 };
    qn_result r = qn_tokenizer_train("abc", 3, &o, t);
    if (r == QN_OK) r = qn_chat_open(folder, "plain", *t, qn_tokenizer_find(*t, special[0]), chat);
    *limits = (qn_request_limits){ .chat = chat, .vocab_size = 260, .bos = 0, .context = 64 };
    return r;
}

#endif
